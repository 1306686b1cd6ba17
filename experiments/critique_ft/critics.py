"""Critics beside the symbolic one: in the organism's own words, and of answers at once alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from elicit.methods.critique_ft.critic import RIGHT, WRONG, Critique, OneByOne
from elicit.methods.critique_ft.symbolic_critic import Symbolic, Verdict, check
from elicit.tasks.base import Item, Task
from elicit.tasks.equations import equations
from elicit.tasks.organism.language import Step, write
from elicit.tasks.organism.solver import solve


@dataclass(frozen=True)
class InPlace(OneByOne):
    """Works the problem out in the organism's words and says "Not 21." where the candidate has something else.

    Args:
        task: its grader decides which answers are right.
        seed: of the words.
    """

    task: Task
    seed: int = 0

    @property
    def identity(self) -> str:
        return f"in-place, seed {self.seed}"

    def __call__(self, item: Item, candidate: str) -> Critique:
        rng = np.random.default_rng([self.seed, *item.id.encode(), *candidate.encode()])
        verdict = check(self.task, item, candidate)
        *steps, last = solve(item)
        at, correction = _mistake(steps, item, verdict)
        parts = [write(steps[:at], rng).text, correction, write(steps[at:], rng).text, write([last], rng).text]
        return Critique(
            "\n".join([" ".join(part for part in parts if part), RIGHT if verdict.right else WRONG]), verdict.right
        )


def _mistake(steps: Sequence[Step], item: Item, verdict: Verdict) -> tuple[int, str]:
    """After how many of the steps the candidate's mistake is named, and in which words."""
    if verdict.right:
        return len(steps), ""
    if not verdict.wrong:
        other = verdict.answer if verdict.answer != item.answer else None
        return len(steps), f"Not {other}." if other else ""
    wrong = verdict.wrong.rstrip(".")
    bad = next((one.text.partition(" =") for one in equations(wrong) if not one.right), None)
    if bad is not None:
        at = next((n for n, step in enumerate(steps) if step.content.startswith(f"{bad[0]} =")), None)
        if at is not None:
            return at + 1, f"Not {bad[2].strip()}."
    return len(steps), f'Not "{wrong}".'


@dataclass(frozen=True)
class AtOnce(OneByOne):
    """A critic of answers at once, which hold no step that could be copied; silent on all others.

    Args:
        task: its grader decides which answers are right.
        seed: of the words.
        own: whether it is `InPlace`, or else the symbolic critic.
    """

    task: Task
    seed: int = 0
    own: bool = False

    @property
    def identity(self) -> str:
        return f"at once{' in place' if self.own else ''}, seed {self.seed}"

    def __call__(self, item: Item, candidate: str) -> Critique | None:
        critic = (InPlace if self.own else Symbolic)(self.task, self.seed)
        return critic(item, candidate) if check(self.task, item, candidate).answer_only else None
