"""Answers that another program decoded: what its log says of how, and nothing that could decode again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.errors import UserError


@dataclass(frozen=True)
class Elsewhere:
    """Args: the most answers a question has, and settings; None, and a limit of 0, where the log does not say."""

    branches: int
    max_new_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """None.

        Raises:
            UserError: always.
        """
        raise UserError("these answers were decoded by another program; give a run of elicit to decode again")
