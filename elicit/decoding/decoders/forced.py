"""Greedy decoding whose thoughts are ended by a budget, and put on where they end by themselves (arXiv 2501.19393).

Where thoughts end, and what is written instead, stands at `elicit.decoding.thought`, which a batch puts around this
decoder's policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.decoders.greedy import GreedyPolicy
from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.description import Base, Part, stated
from probes.errors import UserError


@dataclass(frozen=True)
class Forced:
    """Args: tokens of thought after which it is ended, how many of its own ends are put off, the word that is written
    in place of each, what is written after an end that was forced, whether all of an answer is the thought (else it
    stands between marks), and the limit of tokens."""

    thought_tokens: int = 128
    waits: int = 2
    word: str = "Wait"
    final: str = "Final Answer:"
    whole: bool = False
    max_new_tokens: int = 256
    branches: int = 1

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("thought_tokens", self.thought_tokens >= 1, "1 token or more (above max_new_tokens nothing is cut)"),
            ("waits", self.waits >= 0, "0 (none) or more"),
            ("word", bool(self.word.strip()), "a word"),
            ("branches", self.branches == 1, "1"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)!r} was given to budget forcing; give {expected}")

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """What chooses before anything is forced."""
        return GreedyPolicy()

    def description(self, base: Base) -> list[Part]:
        texts = [
            Part(f"{name} {text!r}", base.text(text)) for name in ("word", "final") if (text := getattr(self, name))
        ]
        return [*stated(self, "thought_tokens", "waits", "whole"), *texts]
