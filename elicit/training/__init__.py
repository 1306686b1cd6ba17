"""Training: packed examples with LoRA or all weights, reinforcement learning, organisms; resumed to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.training.recipe import Example as Example
    from elicit.training.recipe import Recipe as Recipe
    from elicit.training.sft import packed as packed
    from elicit.training.sft import train as train

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Example": "elicit.training.recipe",
        "Recipe": "elicit.training.recipe",
        "packed": "elicit.training.sft",
        "train": "elicit.training.sft",
    },
)
