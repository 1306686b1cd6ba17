"""Greedy decoding: the most likely token at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy, Rows
from probes.confidence import Top2, top2
from probes.description import Base, Part


class GreedyPolicy:
    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        return top2(logits).argmax[:, None]

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Rows, step: int) -> Int[Tensor, " rows"]:
        return top.argmax


@dataclass(frozen=True)
class Greedy:
    max_new_tokens: int = 256
    branches: int = 1

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        return GreedyPolicy()

    def description(self, base: Base) -> list[Part]:
        return []
