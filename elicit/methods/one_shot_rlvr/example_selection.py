"""Which example to train on.

`history` is the paper's rule (arXiv 2504.20571, section 2): train on a pool for a few epochs and take the example
whose accuracy varied most over them. It costs a training. `samples` looks at the base alone: the largest variance of
rewards among its samples, p (1 − p). Both can take an example whose answer the base guesses at once every other time,
and one that is trained on it learns to say that number: two ways to the same reward compete, and which one wins may
depend on a rounding error. So the default here is `working`, which is ours: p (1 − p) with right answers that come at
once counted against those that come after a thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.training.rl.curve import OnStep
from elicit.training.rl.log import read_log
from elicit.training.rl.loop import train, usable
from elicit.training.rl.preflight import first_samples
from elicit.training.rl.rewards import Rollout
from elicit.training.rl.settings import Settings
from probes.errors import UserError, unknown

SELECTS = {
    "working": "the base's samples are often right after a thought, and seldom right at once",
    "samples": "the reward varies most over the base's samples",
    "history": "accuracy varied most over the epochs of a short training on the pool",
    "first": "the first ones",
}


@dataclass(frozen=True)
class Choice:
    """The chosen examples, and for each item of the pool its score."""

    items: Items
    rows: list[dict[str, Any]]


def choose(
    model: Model,
    items: Items,
    settings: Settings,
    *,
    how: str = "working",
    count: int = 1,
    pool: int = 16,
    epochs: int = 8,
    prompt: Prompt | None = None,
    folder: Path | None = None,
    on_step: OnStep | None = None,
) -> Choice:
    """The `count` best examples of the first `pool` items that have an answer.

    Args:
        model, items, settings, prompt: as for `train`.
        how: one of `SELECTS`.
        epochs, folder, on_step: of the short training of `history`, which resumes where it was stopped.

    Raises:
        UserError: an unknown rule, no item with an answer, fewer than asked for.
    """
    if how not in SELECTS:
        raise unknown("way to select examples", how, SELECTS)
    prompt = prompt or Prompt()
    some = pool_of(items, count, pool)
    if len(some) < max(1, count):
        raise UserError(
            f"{count} examples were asked for and {items.task.name!r} has {len(some)} fit items with an answer; give a "
            "task that has more"
        )
    usable(some)
    if how == "first":
        scores = -np.arange(len(some), dtype=float)
        spread = np.zeros(len(some))
    elif how == "history":
        if folder is None:
            raise UserError("selection by history trains on the pool first; give a folder for it")
        accuracy = history(model, some, settings, epochs, prompt, folder, on_step)
        scores = spread = historical_variance(accuracy)
    else:
        rollouts = first_samples(model, some, prompt, settings)
        spread = np.array([np.var([r.score >= 1 for r in answers]) for answers in rollouts])
        scores = spread if how == "samples" else np.array([working(answers) for answers in rollouts])
    order = sorted(range(len(some)), key=lambda n: (-scores[n], -spread[n], n))
    rows = [{"item": some[n].id, "score": float(scores[n]), "variance": float(spread[n])} for n in order]
    return Choice(Items(items.task, tuple(some[n] for n in order[:count])), rows)


def pool_of(items: Items, count: int, pool: int) -> Items:
    """What `count` examples are chosen from: the first `pool` items that have an answer."""
    return Items(items.task, tuple(item for item in items if item.answer is not None)[: max(pool, count)])


def working(rollouts: Sequence[Rollout]) -> float:
    """(w − g)(1 − w − g), with w the fraction of rollouts right after a thought that is longer than the answer, g the
    fraction of other right ones: how much of the first update's advantage goes to thoughts rather than to guesses.

    −1 where nothing would be learned: all are right, or fewer than two after a thought.
    """
    right = [r for r in rollouts if r.score >= 1]
    worked = sum(2 * len(r.chain_of_thought) > len(r.tokens) for r in right)
    if worked < 2 or len(right) == len(rollouts):
        return -1.0
    return (2 * worked - len(right)) / len(rollouts) * (1 - len(right) / len(rollouts))


def historical_variance(accuracy: Float[np.ndarray, "epochs items"]) -> Float[np.ndarray, " items"]:
    """The variance of each example's training accuracy over epochs (arXiv 2504.20571, eq. 1)."""
    return np.var(accuracy, axis=0)


def history(
    model: Model,
    pool: Items,
    settings: Settings,
    epochs: int,
    prompt: Prompt,
    folder: Path,
    on_step: OnStep | None = None,
) -> Float[np.ndarray, "epochs items"]:
    """Each example's accuracy in each epoch of a training on the whole pool."""
    short = replace(
        settings, updates=epochs, per_rollout=1, rollouts=settings.group * len(pool), part=settings.group,
        reward="exact", check_every=0,
    )  # fmt: skip
    train(model, pool, short, folder, prompt=prompt, checked=False, on_step=on_step)
    place = {item.id: n for n, item in enumerate(pool)}
    total = np.zeros((epochs, len(pool)))
    for line in read_log(folder):
        total[line["update"], place[line["item"]]] += line["score"] >= 1
    return total / settings.group
