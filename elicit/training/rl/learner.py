"""What is trained: an adapter inside the base's own modules, or a copy of all weights; and the reference beside it.

LoRA layers stand in the base while it is trained and are taken out afterwards, so that the base that others hold is
what it was, to the bit. The reference of KL is the base with the adapter off: no second copy of the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import PreTrainedModel

from elicit.decoding.engine import engine_of
from elicit.models.model import Model
from elicit.training.lora import merged, save_adapter
from elicit.training.recipe import Recipe
from elicit.training.saved import save_trained
from elicit.training.sft import prepare, quick
from steering.adapters import Adapter, Tuned, borrowed
from steering.exchange import Swap, exchanged


@dataclass(frozen=True, eq=False)
class Learner:
    """`model` computes with what is trained; `reference()` gives the base."""

    base: Model
    model: Model
    trained: dict[str, nn.Parameter]
    swaps: list[Swap]
    recipe: Recipe

    @property
    def lm(self) -> PreTrainedModel:
        return self.model.lm

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """The base's own weights: the adapter is off inside the context."""
        with exchanged([(parent, name, layer, base) for parent, name, base, layer in self.swaps]):
            yield self.base.lm

    @contextmanager
    def decoding(self) -> Iterator[tuple[Model, Tuned | None]]:
        """The model to sample from: without autocast, which would cast all weights at every step, and with the adapter
        merged where it can be.

        Returns:
            With it the adapter that is to be put on, where an engine has weights of its own: what is trained, as a file
            for as long as the context is open.
        """
        with torch.autocast(self.lm.device.type, enabled=False):
            if engine_of(self.base).can.training:
                with merged(self.swaps):
                    yield self.model, None
                return
            with TemporaryDirectory() as folder:
                save_adapter(self.lm, self.recipe, Path(folder) / "adapter", self.base.name, torch.float32)
                yield self.base, Adapter(Path(folder) / "adapter")

    def save(self, folder: Path) -> Tuned:
        """The adapter in fp32 under `adapter/`, or all weights and the tokenizer under `model/`."""
        return save_trained(self.lm, self.model.tokenizer, self.recipe, folder, self.base.name)


@contextmanager
def learner(model: Model, recipe: Recipe) -> Iterator[Learner]:
    """What the recipe trains, ready to compute; the model is as it was afterwards."""
    engine_of(model)  # one with weights of its own takes them before anything is put into the base
    if not recipe.rank:
        lm = copy.deepcopy(model.lm).float()
        with quick(lm, recipe):
            yield Learner(model, replace(model, lm=lm), prepare(lm, recipe), [], recipe)
        return
    with borrowed(model.lm) as kept:
        trained = prepare(model.lm, recipe)
        with quick(model.lm, recipe):
            yield Learner(model, model, trained, kept.brought(), recipe)
