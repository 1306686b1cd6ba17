"""Greedy decoding whose tokens have thoughts before them (arXiv 2403.09629): as data; see `elicit.decoding.quiet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.description import Base, Part, stated
from probes.errors import UserError


@dataclass(frozen=True)
class Quiet:
    """Args: tokens of a thought between its marks, how far apart the tokens of an answer are that have one (1: each
    token; 0: the first one alone), the limit of an answer's tokens, its branches, of which there is one."""

    thought_tokens: int = 12
    every: int = 1
    max_new_tokens: int = 256
    branches: int = 1

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("thought_tokens", self.thought_tokens >= 1, "1 or more"),
            ("every", self.every >= 0, "0 (before the first token alone) or more"),
            ("branches", self.branches == 1, "1"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)} was given to quiet decoding; give {expected}")

    @property
    def beside(self) -> int:
        """Tokens that a thought computes: its own and its two marks."""
        return self.thought_tokens + 2

    def thinks(self, step: int) -> bool:
        """Whether a thought comes before this token of an answer."""
        return step % self.every == 0 if self.every else step == 0

    def thoughts(self, tokens: int) -> int:
        """How many come before the first so many tokens."""
        return -(-tokens // self.every) if self.every else min(1, tokens)

    def description(self, base: Base) -> list[Part]:
        return stated(self, "thought_tokens", "every")

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """None: what is chosen among is not the model's own law.

        Raises:
            UserError: always.
        """
        raise UserError("quiet thoughts are decoded by the hf engine alone; use that")
