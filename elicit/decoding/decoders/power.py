"""Samples of the power distribution pᵅ of a model: by Metropolis–Hastings (arXiv 2510.14901, algorithm 1), and token
by token with rollouts that look ahead (arXiv 2601.21590, algorithm 1).

What is drawn, and how it departs from the papers, stands at `elicit.decoding.power` and
`elicit.decoding.rollouts`, which the engines call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.description import Base, Part, one_of, stated
from probes.errors import UserError

ACCEPT = ("metropolis", "always")
FUTURES = ("own", "exchanged")


class _Whole:
    """What chains and rollouts have in common: answers are decoded many times, by tokens drawn from pᵅ normalised at
    each of them."""

    alpha: float
    samples: int

    @property
    def branches(self) -> int:
        return self.samples

    @property
    def temperature(self) -> float:
        """At which proposals and rollouts are drawn."""
        return 1 / self.alpha

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """None.

        Raises:
            UserError: always.
        """
        raise UserError("power sampling has no policy of one pass over an answer; decode it by the hf engine")

    def _check(self, *others: tuple[str, bool, str]) -> None:
        for name, ok, expected in (
            ("alpha", 0 < self.alpha < float("inf"), "a finite power above 0 (1 is the model itself)"),
            ("samples", self.samples >= 1, "at least 1"),
            *others,
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)} was given to power sampling; give {expected}")


@dataclass(frozen=True)
class Power(_Whole):
    """Args: power of the model's probability of a whole answer, tokens of a block, moves after each block, chains a
    question, seed, limit of tokens, and which moves are taken: by the Metropolis rule, or `always` (a control)."""

    alpha: float = 4.0
    block: int = 64
    moves: int = 10
    samples: int = 1
    seed: int = 0
    max_new_tokens: int = 256
    accept: str = "metropolis"

    def __post_init__(self) -> None:
        self._check(
            ("block", self.block >= 1, "at least 1 token"),
            ("moves", self.moves >= 0, "0 (none) or more"),
            ("accept", self.accept in ACCEPT, f"one of {', '.join(ACCEPT)}"),
        )

    @property
    def ends(self) -> list[int]:
        """Of each block the tokens at which it ends."""
        return [*range(self.block, self.max_new_tokens, self.block), self.max_new_tokens]

    @property
    def steps(self) -> int:
        """Forwards of a batch at most: each block grows, and each move may draw all of an answer again."""
        return self.max_new_tokens + self.moves * sum(self.ends)

    def description(self, base: Base) -> list[Part]:
        return [*stated(self, "alpha", "block", "moves", "samples"), Part("accept", one_of(len(ACCEPT)))]


@dataclass(frozen=True)
class PowerRollouts(_Whole):
    """Args: power of the model's probability of a whole answer, likeliest tokens that are candidates at each step,
    rollouts of each (0: none, which is low temperature among the candidates), tokens of a rollout at most, answers a
    question, seed, limit of tokens, and whose future a candidate is weighed by: its `own`, or the next one's
    (`exchanged`, a control)."""

    alpha: float = 4.0
    candidates: int = 8
    rollouts: int = 8
    horizon: int = 64
    samples: int = 1
    seed: int = 0
    max_new_tokens: int = 256
    futures: str = "own"

    def __post_init__(self) -> None:
        self._check(
            ("candidates", self.candidates >= 1, "at least 1"),
            ("rollouts", self.rollouts >= 0, "0 (none) or more"),
            ("horizon", self.horizon >= 1, "at least 1 token"),
            ("futures", self.futures in FUTURES, f"one of {', '.join(FUTURES)}"),
        )

    @property
    def ahead(self) -> int:
        """Rows that look ahead for each answer."""
        return self.candidates * max(1, self.rollouts)

    @property
    def steps(self) -> int:
        """Forwards of a batch at most: one for what was said, and those of the rollouts of each token."""
        left = range(self.max_new_tokens - 1, -1, -1)
        return self.max_new_tokens + (sum(min(self.horizon, n) for n in left) if self.rollouts else 0)

    def description(self, base: Base) -> list[Part]:
        numbers = stated(self, "alpha", "candidates", "rollouts", "horizon", "samples")
        return [*numbers, Part("futures", one_of(len(FUTURES)))]
