"""What two of the methods need on a model that nothing was made for: an SAE of it, and a copy of it that thinks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicit.cli.sae import train as train_sae
from elicit.decoding.progress import Progress
from elicit.evaluation.run.store import folder_for
from elicit.methods import critique_ft, fit, sae_steer, vector_transfer
from elicit.models import Model
from elicit.models.identity import hash_of_items
from elicit.tasks.base import Task
from experiments.natural.settings import PARTNER, SAE
from probes.sites import depth


@dataclass(frozen=True)
class Made:
    """Where what is trained here lies, whether it is there or not."""

    sae: Path
    partner: Path

    @property
    def adapter(self) -> Path:
        return self.partner / "adapter"


def made_for(model: Model, task: Task, prompt: str, max_new_tokens: int, seed: int) -> Made:
    """The folders, named after all that decides what is trained."""
    decides = {
        "model": model.provenance.sha256, "dtype": model.dtype, "items": hash_of_items(task.solved), "prompt": prompt,
        "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    return Made(
        folder_for("sae", task.name, model.name, decides | {"sae": SAE}),
        folder_for("partner", task.name, model.name, decides | {"partner": PARTNER}),
    )


def make(name: str, made: Made, model: Model, task: Task, source: str, bars: Progress, **shared: Any) -> None:
    """Train what a method needs, or find it trained; a training that was stopped is resumed.

    Args:
        name: of the method; most need nothing.
        made: where it goes.
        model, task: of which it is made; fit items alone are learned from.
        source: what the questions are loaded by.
        bars: reports the training.
        shared: prompt, limit and seed.

    Raises:
        UserError: a model that finds no right solution of its own to be trained on.
    """
    if name == sae_steer.NAME:
        train_sae(
            model=model.name, layer=depth(model.lm) // 2, sources=source, seed=shared["seed"], dtype=model.dtype,
            device=str(model.lm.device), out=made.sae, **SAE,
        )  # fmt: skip
    elif name == vector_transfer.NAME and not (made.partner / "elicited.json").is_file():
        fit(critique_ft.NAME, model, task.solved, bars, **{**PARTNER, **shared}).save(made.partner)
