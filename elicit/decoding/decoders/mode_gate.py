"""Greedy answers whose first token, which says whether to think, is chosen by a rule that was not trained for it.

For models that begin each answer with one of two control tokens (arXiv 2505.13379): a coin of a given rate, or the
entropy of the first token with both control tokens left out, by which a threshold decides. All tokens that follow are
the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from elicit.decoding.decoders.greedy import GreedyPolicy
from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.description import Base, Part, one_of, stated
from probes.errors import UserError, unknown

RULES = {"coin": "heads with probability `rate`, by question", "entropy": "entropy of at least `threshold` nats"}


def entropy_without(logits: Float[Tensor, "questions vocab"], ids: Sequence[int]) -> Float[Tensor, " questions"]:
    """The entropy (nats) of each distribution over all other tokens than these."""
    left = logits.float().index_fill(-1, torch.tensor(list(ids), device=logits.device), float("-inf"))
    logp = torch.log_softmax(left, -1)
    p = logp.exp()
    return -torch.where(p > 0, p * logp, torch.zeros_like(p)).sum(-1)


class ModeGatePolicy(GreedyPolicy):
    def __init__(self, settings: ModeGate, rng_streams: Sequence[RngStream | str]) -> None:
        self.settings = settings
        streams = [RngStream.of(given, settings.seed) for given in rng_streams]
        # A stream of its own: a sample of the same question and seed is not drawn with the number of its gate.
        self.heads = torch.tensor(
            [one._replace(sample=f"mode {one.sample}").uniform(1)[0] < settings.rate for one in streams]
        )

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        settings = self.settings
        if settings.by == "coin":
            thinks = self.heads.to(logits.device)
        else:
            thinks = entropy_without(logits, (settings.short, settings.think)) >= settings.threshold
        chosen: Tensor = torch.where(thinks, settings.think, settings.short)
        return chosen[:, None]


@dataclass(frozen=True)
class ModeGate:
    """Args: ids of the control tokens, the rule (one of `RULES`), the coin's probability of thinking and its seed, the
    entropy (nats) from which on is thought, and the limit of tokens, the control token among them."""

    short: int
    think: int
    by: str = "coin"
    rate: float = 0.5
    threshold: float = 0.0
    seed: int = 0
    max_new_tokens: int = 256
    branches: int = 1

    def __post_init__(self) -> None:
        if self.by not in RULES:
            raise unknown("rule of a mode gate", self.by, RULES)
        for name, ok, expected in (
            ("rate", 0 <= self.rate <= 1, "a probability"),
            ("short", self.short >= 0, "a token id"),
            ("think", self.think >= 0 and self.think != self.short, "a token id, another than short"),
            ("branches", self.branches == 1, "1"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)!r} was given to a mode gate; give {expected}")

    def description(self, base: Base) -> list[Part]:
        numbers = stated(self, "short", "think", "rate" if self.by == "coin" else "threshold")
        return [Part(f"by {self.by}", one_of(len(RULES))), *numbers]

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        return ModeGatePolicy(self, rng_streams)
