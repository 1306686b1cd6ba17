"""What a training will take: one part of an update is computed as it will be, and multiplied."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from elicit.models import memory
from elicit.models.model import Model
from elicit.training.recipe import Example, Recipe
from elicit.training.rl.learner import learner
from elicit.training.sft import checkpointed, packed, target_loss
from probes.errors import UserError
from probes.estimate import Estimate, gigabytes

COPIES = 4  # of what is trained, in fp32: itself, its gradient, two moments
STATES = 2  # the new one is whole before the old one goes


def forecast_training(model: Model, recipe: Recipe, examples: Sequence[Example] | None = None) -> Estimate:
    """Train on a part twice, time the second, and count what autograd keeps; the model is as it was afterwards.

    Args:
        model: the base; of all weights (rank 0) a copy is trained.
        recipe: how.
        examples: of one update, as they will be; unless given rows are full, and half of their tokens are targets.

    Raises:
        UserError: no memory for the weights that are trained.
    """
    lm, free = model.lm, memory.free_bytes(model.lm.device)
    whole = 4 * COPIES * lm.num_parameters()
    if not recipe.rank and free is not None and whole > free:
        raise UserError(
            f"training all weights needs {gigabytes(whole)} for them, their gradient and moments, and "
            f"{gigabytes(free)} are free; give a rank above 0"
        )
    half = recipe.width // 2
    rows = [[Example([0] * (recipe.width - half), [0] * half)]] * recipe.part
    if examples is not None:
        rows = packed(examples, recipe.width)
    parts, part = math.ceil((recipe.rows if examples is None else len(rows)) / recipe.part), rows[: recipe.part]
    with learner(model, recipe) as one, checkpointed(one.lm) if recipe.checkpointing else nullcontext():
        trained = sum(p.numel() for p in one.trained.values())
        optimiser = torch.optim.AdamW(one.trained.values(), lr=recipe.lr, foreach=True)
        for _ in range(2):
            began = time.perf_counter()
            with _kept(one.lm) as kept:
                loss = target_loss(one.lm, part, recipe.width)
            loss.backward()
            computed = time.perf_counter() - began
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            stepped = time.perf_counter() - began - computed
    state = 4 * trained * (COPIES - 1)
    return Estimate(
        recipe.steps * (parts * computed + stepped),
        sum(kept.values()) + 4 * COPIES * trained,
        STATES * state + 2 * trained,
    )


@contextmanager
def _kept(lm: torch.nn.Module) -> Iterator[dict[int, int]]:
    """The bytes of each storage that autograd keeps for the gradient, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in lm.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
