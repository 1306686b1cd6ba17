"""What a next-token distribution says of itself: top-2 probabilities, entropy, log-probability.

The statistics are those of the model's own distribution: softmax of the raw logits in fp32 at
temperature 1, before any sampling filter. They are computed a few rows at a time, so that no
`rows x vocabulary` array in fp32 ever exists.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_ELEMENTS = 1 << 19  # 2 MiB of fp32: stays in a core's cache


class TokenStatistics(NamedTuple):
    """One value a row, fp32, in natural-log units where they are logarithms."""

    top1: Float[Tensor, " rows"]
    top2: Float[Tensor, " rows"]
    entropy: Float[Tensor, " rows"]
    logprob: Float[Tensor, " rows"]


class Top2(NamedTuple):
    """The two largest logits of each row and their ids."""

    values: Float[Tensor, "rows 2"]
    ids: Int[Tensor, "rows 2"]

    @property
    def argmax(self) -> Int[Tensor, " rows"]:
        """The most likely id; of two equal logits the lower id, as in `torch.argmax` (which is slower)."""
        tied = self.values[:, 0] == self.values[:, 1]
        return torch.where(tied, self.ids.min(dim=-1).values, self.ids[:, 0])


def top2(logits: Float[Tensor, "rows vocab"]) -> Top2:
    return Top2(*logits.topk(2))


def token_statistics(
    logits: Float[Tensor, "rows vocab"], top: Top2, tokens: Int[Tensor, " rows"]
) -> TokenStatistics:
    """Statistics of each row's distribution and the log-probability of the token that was emitted.

    Args:
        logits: raw logits, any float dtype.
        top: `top2(logits)`.
        tokens: the emitted ids.
    """
    parts = []
    rows = max(1, CHUNK_ELEMENTS // logits.shape[-1])
    for chunk, values, emitted in zip(
        logits.split(rows), top.values.float().split(rows), tokens.split(rows), strict=True
    ):
        largest = values[:, :1]
        # A masked logit of -inf would give 0 * -inf; exp(-1e4) is an exact 0 in fp32.
        shifted = chunk.float().sub_(largest).clamp_(min=-1e4)
        picked = shifted.gather(1, emitted[:, None])[:, 0]
        weights = shifted.exp()
        total = weights.sum(-1)
        log_total = total.log()
        entropy = log_total - weights.mul_(shifted).sum(-1) / total
        first, second = (values - largest).exp_().div_(total[:, None]).unbind(-1)
        parts.append((first, second, entropy, picked - log_total))
    return TokenStatistics(*(torch.cat(column) for column in zip(*parts, strict=True)))
