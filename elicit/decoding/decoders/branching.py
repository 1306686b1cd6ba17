"""Branch over the k most likely first tokens, then greedy on each branch (arXiv 2402.10200, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from elicit.decoding.decoders.greedy import GreedyPolicy
from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.description import Base, Part, stated
from probes.errors import UserError


class BranchingPolicy(GreedyPolicy):
    def __init__(self, k: int) -> None:
        self.k = k

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        # Stable, so that of equal logits the lower id comes first and rank 0 is the greedy path.
        return logits.float().sort(dim=-1, descending=True, stable=True).indices[:, : self.k]


@dataclass(frozen=True)
class Branching:
    k: int = 10
    max_new_tokens: int = 256

    @property
    def branches(self) -> int:
        return self.k

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        if not 1 <= self.k <= vocab_size:
            raise UserError(f"k = {self.k} branches were asked for; give a k from 1 to the vocabulary's {vocab_size}")
        return BranchingPolicy(self.k)

    def description(self, base: Base) -> list[Part]:
        return stated(self, "k")
