"""What training an SAE will take, told before it begins: disk and memory by arithmetic, time by trying a little."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from probes.batching import tokens_together
from probes.capture import capture
from probes.errors import UserError
from probes.sae.train import Recipe, trial_step
from probes.sites import Site, width

TRIED = 2  # forwards and steps that are timed; one before them is not
COPIES = 4  # of the weights in training: themselves, gradients, two moments
HIDDEN = 6  # [batch, d_sae] in fp32 at the widest place of a step, about


@dataclass(frozen=True)
class Estimate:
    """Bytes on disk while it trains, bytes of memory beside the model's, and seconds."""

    disk: int
    memory: int
    capture_seconds: float
    training_seconds: float

    @property
    def line(self) -> str:
        return (
            f"about {_time(self.capture_seconds)} to read the activations and {_time(self.training_seconds)} to train; "
            f"{self.disk / 1e9:.2f} GB of disk, {self.memory / 1e9:.2f} GB of memory beside the model's"
        )


def estimate(
    lm: PreTrainedModel, site: Site, recipe: Recipe, tokens: int, context: int, *, trainings: int = 1
) -> Estimate:
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
    return Estimate(
        disk=2 * tokens * d_model + trainings * COPIES * weights,
        memory=COPIES * weights + 4 * recipe.batch * (HIDDEN * recipe.d_sae + 4 * d_model),
        capture_seconds=tokens * _forward_seconds(lm, site, context),
        training_seconds=trainings * recipe.steps(tokens) * _step_seconds(recipe, d_model, lm.device),
    )


def check_room(needed: Estimate, folder: Path, free_memory: int | None) -> None:
    """Refuse what there is no room for.

    Raises:
        UserError: less disk or memory than is needed.
    """
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(place).free
    if needed.disk > free:
        raise UserError(
            f"training needs {needed.disk / 1e9:.2f} GB of disk and {free / 1e9:.2f} GB are free at {str(place)!r}; "
            "give fewer tokens, a smaller width or another --out"
        )
    if free_memory is not None and needed.memory > free_memory:
        raise UserError(
            f"training needs {needed.memory / 1e9:.2f} GB of memory beside the model's and {free_memory / 1e9:.2f} GB "
            "are free; give a smaller width or batch"
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


def _time(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, round(seconds))} s"
