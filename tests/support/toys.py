"""A toy task and a toy reward for trainings on tiny models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_letters, digits

from elicit.decoding.progress import Silent
from elicit.models import Model, load_model
from elicit.tasks.base import Grade, Item, Split, Task
from elicit.tasks.grading import NumberGrader
from elicit.training.rl.rewards import RewardContext, Rollout
from tests.support.tiny import save_tiny

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


class Vowels(NumberGrader):
    """Right is whatever holds a vowel or a digit, which a model of characters writes now and then."""

    of_text = True
    right = "aeiou0123456789"

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(float(any(c in self.right for c in answer or "")))


class Letters(Vowels):
    """Right is whatever holds a letter or a digit."""

    right = ascii_letters + digits


def load_talker(folder: Path, ends: Sequence[int] = range(40, 60)) -> Model:
    """A tiny model whose answers come to an end: some of its characters end them."""
    made = save_tiny(folder)
    settings = json.loads((made / "generation_config.json").read_text())
    settings["eos_token_id"] = [0, *ends]
    (made / "generation_config.json").write_text(json.dumps(settings))
    return load_model(str(made), dtype="float32", device="cpu")


class Stop(Exception):
    pass


class Stopping(Silent):
    """Stops a command once, in the middle of a training."""

    def __init__(self, *at: tuple[str, int]) -> None:
        self.at = set(at)

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        if (name, done) in self.at:
            raise Stop
