"""What a training is: its settings, its examples, and the callback of each step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from probes.errors import above, at_least, unknown

SCHEDULES = ("cosine", "constant")


class Example(NamedTuple):
    """Token ids of a prompt and of the target that is learned after it."""

    prompt: list[int]
    target: list[int]

    @property
    def tokens(self) -> int:
        return len(self.prompt) + len(self.target)


def rise(step: int, warmup: int) -> float:
    """The share of the largest learning rate that a step has by a linear rise over `warmup` steps."""
    return min(1.0, (step + 1) / max(1, warmup))


@dataclass(frozen=True)
class Recipe:
    """How to train, without dropout.

    Args:
        steps: the length of the schedule: a linear rise over `warmup` steps, then what `schedule` says.
        rows, width: batch size (packed sequences a step) and maximum sequence length: as many examples as fit are
            packed into them. One shape for all steps: the kernels of a CPU are made for each shape anew.
        part: micro-batch size: rows of one forward and backward; gradients are accumulated.
        lr: the largest learning rate (AdamW, betas 0.9 and 0.99).
        rank: of LoRA on every linear layer that a text goes through but the output head (arXiv 2106.09685), and but
            those that PEFT refuses (`elicit.training.lora`); 0 trains all weights that a text goes through.
        alpha: LoRA's scale is alpha / rank.
        weight_decay: of AdamW.
        clip: the largest norm of the gradient.
        seed: of LoRA's initial weights and of the examples.
        checkpointing: keep only each layer's input for the backward pass and compute the rest again
            (arXiv 1604.06174): the same gradients for less memory and about a third more time.
        schedule: of the learning rate, `cosine` to a tenth of `lr` or `constant`, as it is in RL.

    Raises:
        UserError: a value out of range.
    """

    steps: int = 150
    rows: int = 10
    width: int = 256
    part: int = 5
    lr: float = 3e-3
    warmup: int = 10
    rank: int = 8
    alpha: int = 16
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    checkpointing: bool = False
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        at_least(self, 1, "steps", "rows", "width", "part", "alpha")
        at_least(self, 0, "rank", "warmup", "weight_decay")
        above(self, 0, "lr", "clip")

    def kept(self) -> dict[str, Any]:
        """As records and identities hold it: what is newer where it is on, so that older trainings are found."""
        default = {"checkpointing": False, "schedule": "cosine"}
        return {k: v for k, v in asdict(self).items() if k not in default or v != default[k]}

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        share = 1.0 if self.schedule == "constant" else 0.55 + 0.45 * math.cos(math.pi * step / self.steps)
        return self.lr * rise(step, self.warmup) * share


@runtime_checkable
class OnStep(Protocol):
    """A callback, called after each step."""

    def __call__(self, step: int, loss: float, tokens_per_second: float) -> None: ...


class Point(NamedTuple):
    """One step of a training curve: mean loss a target token (nats), the gradient's norm before clipping; `code` is the
    bits of its targets that no step had before, under the model that no step had changed by them, or None where they
    were not counted."""

    step: int
    loss: float
    norm: float
    tokens: int
    seconds: float
    code: float | None = None
