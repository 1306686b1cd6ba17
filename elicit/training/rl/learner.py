"""What is trained: an adapter inside the base's own modules, or a copy of all weights; and the reference beside it.

LoRA layers stand in the base while it is trained and are taken out afterwards, so that the base that others hold is
what it was, to the bit. The reference of KL is the base with the adapter off: no second copy of the weights. A training
that begins where an earlier one ended has that one's adapter, or weights, as its reference.
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
from elicit.training.lora import load_adapter, merged, save_adapter
from elicit.training.recipe import Recipe
from elicit.training.saved import save_trained
from elicit.training.sft import prepare, quick
from probes.errors import UserError
from steering.adapters import Adapter, Tuned, Weights, applied, borrowed
from steering.exchange import Swap, exchanged


@dataclass(frozen=True, eq=False)
class Learner:
    """`model` computes with what is trained; `reference()` gives the base, or what the training began with."""

    base: Model
    model: Model
    trained: dict[str, nn.Parameter]
    swaps: list[Swap]
    recipe: Recipe
    start: Tuned | None = None

    @property
    def lm(self) -> PreTrainedModel:
        return self.model.lm

    @contextmanager
    def reference(self) -> Iterator[PreTrainedModel]:
        """The base's own weights, with the start on: what is trained is off inside the context."""
        off = exchanged([(parent, name, layer, base) for parent, name, base, layer in self.swaps])
        with off, applied(self.base.lm, self.start):
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
def learner(model: Model, recipe: Recipe, start: Tuned | None = None) -> Iterator[Learner]:
    """What the recipe trains, ready to compute; the model is as it was afterwards.

    Args:
        model: the base.
        recipe: what is trained.
        start: an earlier training, where this one begins; whole weights in the precision of the base.

    Raises:
        UserError: a start that is not of the recipe's kind and rank.
    """
    if start is not None and isinstance(start, Weights) == bool(recipe.rank):
        raise UserError(f"rank {recipe.rank} was given to a training that begins with {start}; give the same kind")
    engine_of(model)  # one with weights of its own takes them before anything is put into the base
    if not recipe.rank:
        with applied(model.lm, start):
            lm = copy.deepcopy(model.lm).float()
        with quick(lm, recipe):
            yield Learner(model, replace(model, lm=lm), prepare(lm, recipe), [], recipe, start)
        return
    with applied(model.lm, start):
        pass  # its layers are made on the base that nothing else is on
    with borrowed(model.lm) as kept:
        trained = prepare(model.lm, recipe)
        if isinstance(start, Adapter):
            load_adapter(trained, start)
        with quick(model.lm, recipe):
            yield Learner(model, model, trained, kept.brought(), recipe, start)
