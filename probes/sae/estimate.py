"""What training an SAE will take, told before it begins: disk and memory by arithmetic, time by trying a little."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.batching import tokens_together
from probes.capture import capture
from probes.estimate import Estimate, gigabytes, spoken
from probes.sae.train import Recipe, trial_step
from probes.sites import Site, width

TRIED = 2  # forwards and steps that are timed; one before them is not
COPIES = 4  # of the weights in training: themselves, gradients, two moments
HIDDEN = 6  # [batch, d_sae] in fp32 at the widest place of a step, about


@dataclass(frozen=True)
class Training(Estimate):
    """With the seconds of its parts."""

    writing_seconds: float = 0.0
    capture_seconds: float = 0.0
    training_seconds: float = 0.0

    @property
    def line(self) -> str:
        writing = f"at most {spoken(self.writing_seconds)} to write the texts, " if self.writing_seconds else ""
        return (
            f"{writing}about {spoken(self.capture_seconds)} to read the activations and "
            f"{spoken(self.training_seconds)} to train; {gigabytes(self.disk)} of disk, "
            f"{gigabytes(self.memory)} of memory beside the model's"
        ) + (f"; {self.beside}" if self.beside else "")


def estimate(
    lm: PreTrainedModel, site: Site, recipe: Recipe, tokens: int, context: int, *, trainings: int = 1
) -> Training:
    """Time a few forwards and steps on random tokens and noise, and multiply.

    Args:
        lm: the model.
        site: where it is read.
        recipe: with its number of latents written out.
        tokens: in all.
        context: tokens of a text.
        trainings: how many are run: two with the control.
    """
    d_model = width(lm)
    weights = 4 * (2 * d_model * recipe.d_sae + recipe.d_sae + d_model)
    capturing = tokens * _forward_seconds(lm, site, context)
    training = trainings * recipe.steps(tokens) * _step_seconds(recipe, d_model, lm.device)
    return Training(
        seconds=capturing + training,
        disk=2 * tokens * d_model + trainings * COPIES * weights,
        memory=COPIES * weights + 4 * recipe.batch * (HIDDEN * recipe.d_sae + 4 * d_model),
        capture_seconds=capturing,
        training_seconds=training,
    )


def _forward_seconds(lm: PreTrainedModel, site: Site, context: int) -> float:
    """A token."""
    rows = max(1, tokens_together(lm, 1) // context)
    embedding: Any = lm.get_input_embeddings()
    texts = torch.randint(len(embedding.weight), (rows, context), generator=torch.Generator().manual_seed(0)).tolist()
    capture(lm, texts, [site])
    began = time.perf_counter()
    for _ in range(TRIED):
        capture(lm, texts, [site])
    return (time.perf_counter() - began) / (TRIED * rows * context)


def _step_seconds(recipe: Recipe, d_model: int, device: torch.device) -> float:
    step = trial_step(recipe, d_model, device)
    step()
    began = time.perf_counter()
    for _ in range(TRIED):
        step()
    return (time.perf_counter() - began) / TRIED
