"""A toy task and a toy reward for trainings on tiny models."""

from __future__ import annotations

from collections.abc import Sequence

from elicit.tasks.base import Item, Split, Task
from elicit.tasks.grading import NumberGrader
from elicit.training.rl.rewards import RewardContext, Rollout

SPLITS: tuple[Split, ...] = ("fit", "dev", "test")


def toy_task(size: int = 4) -> Task:
    """Sums of two digits, a few in each split."""
    items = [
        Item(f"{split}-{n}", f"What is {n + 2} + {3 * m + 1}?", str(n + 3 * m + 3), split)
        for m, split in enumerate(SPLITS)
        for n in range(size)
    ]
    return Task("toy", tuple(items), NumberGrader(), "number", {"family": "toy"})


def vowels(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    """The fraction of characters that are small vowels or digits: easily learned by a model of characters."""
    return [sum(c in "aeiou0123456789" for c in r.text) / max(1, len(r.tokens)) for r in rollouts]
