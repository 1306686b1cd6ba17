"""What a next-token distribution says of itself: top-2 probabilities, entropy, log-probability.

The statistics are those of the model's own distribution: softmax of the raw logits in fp32 at
temperature 1, before any sampling filter. They are computed some rows at a time (`rows_at_once`), and nothing of
them is copied to the host.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

CORE_CACHE = 1 << 20  # bytes of fp32 that stay in a core's cache
DEVICE_FRACTION = 64  # of a device's memory one of these holds each of the fp32 arrays, of which there are three


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
    """The two largest logits of each row: by the maxima of blocks, a third of the time of a plain top-k."""
    block = math.gcd(logits.shape[-1], 512)
    if block < 64 or logits.shape[-1] == block:
        return Top2(*logits.topk(2))
    blocks = logits.reshape(len(logits), -1, block)
    best = blocks.amax(dim=-1).topk(2).indices  # the two largest lie in the two blocks with the largest maxima
    values, place = blocks.gather(1, best[:, :, None].expand(-1, -1, block)).flatten(1).topk(2)
    return Top2(values, best.gather(1, place // block) * block + place % block)


def rows_at_once(logits: Float[Tensor, "rows vocab"]) -> int:
    """How many rows are computed together, at least one.

    On a CPU so many that their fp32 copy stays in a core's cache. On another device each further chunk is further
    kernels to start, so all rows are one piece, unless the copy would take more than 1/64 of the device's memory.
    """
    size = 4 * logits.shape[-1]
    if logits.device.type == "cpu":
        return max(1, CORE_CACHE // size)
    return max(1, _memory(logits.device) // DEVICE_FRACTION // size)


@cache
def _memory(device: torch.device) -> int:
    """Bytes of a device; of one that does not say, what small ones have."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "get_device_properties"):
        return 8 << 30
    return int(module.get_device_properties(device).total_memory)


def token_statistics(logits: Float[Tensor, "rows vocab"], top: Top2, tokens: Int[Tensor, " rows"]) -> TokenStatistics:
    """Statistics of each row's distribution and the log-probability of the token that was emitted.

    Args:
        logits: raw logits, any float dtype.
        top: `top2(logits)`.
        tokens: the emitted ids.
    """
    rows = rows_at_once(logits)
    asked = torch.cat([top.ids, tokens[:, None]], dim=1)
    parts = []
    for chunk, ids in zip(logits.split(rows), asked.split(rows), strict=True):
        # A masked logit of -inf would give 0 * -inf; the caller's own logits stay as they are.
        z = chunk.clamp(min=-1e30) if chunk.dtype == torch.float32 else chunk.float().clamp_(min=-1e30)
        p = torch.softmax(z, dim=-1)
        picked = p.gather(1, ids[:, :2])
        # log Z from the largest logit, whose probability is far from underflow
        log_z = z.gather(1, ids[:, :1])[:, 0] - picked[:, 0].log()
        entropy = (log_z - torch.linalg.vecdot(p, z)).clamp_(min=0)
        parts.append((picked[:, 0], picked[:, 1], entropy, z.gather(1, ids[:, 2:])[:, 0] - log_z))
    return TokenStatistics(*(torch.cat(column) for column in zip(*parts, strict=True)))
