"""Samples of the power distribution pᵅ of a model by Metropolis–Hastings (arXiv 2510.14901, algorithm 1).

What is drawn, and how it departs from the paper, stands at `elicit.decoding.power`, which the engines call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.errors import UserError

ACCEPT = ("metropolis", "always")


@dataclass(frozen=True)
class Power:
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
        for name, ok, expected in (
            (
                "alpha",
                0 < self.alpha < float("inf"),
                "a finite power above 0 (1 is the model itself)",
            ),
            ("block", self.block >= 1, "at least 1 token"),
            ("moves", self.moves >= 0, "0 (none) or more"),
            ("samples", self.samples >= 1, "at least 1"),
            ("accept", self.accept in ACCEPT, f"one of {', '.join(ACCEPT)}"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)} was given to power sampling; give {expected}")

    @property
    def branches(self) -> int:
        return self.samples

    @property
    def temperature(self) -> float:
        """Of the proposals, which are drawn from pᵅ normalised at each token."""
        return 1 / self.alpha

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """None: a chain decodes many times.

        Raises:
            UserError: always.
        """
        raise UserError("power sampling has no policy of one pass over an answer; decode it by the hf engine")
