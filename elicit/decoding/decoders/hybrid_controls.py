"""The controls of hybrid decoding (`elicit.decoding.decoders.hybrid`): each keeps everything but one thing.

- `permuted-category`, `random-category`, `random-vector`, `bias`: the true vectors decide *where* the base is steered
  and with which candidate; what is added there, at its coefficient and window, is another category's vector, a random
  category's, a random one of each category, the bias alone; always as long as the true one. Text that other vectors
  spoilt would be steered more often than the method's own: with a `share` a row never steers more than this fraction of
  its positions so far, rounded up. (For controls that may decline to steer, give a `HybridSteering` other vectors and
  no `control`.)
- `random-position`: at a `share` of the positions, drawn by (seed, item, step), with the category that the gate names
  there, and always a steered candidate: each as often as the method took it (`often`), since a choice by likelihood
  would take stronger ones. Without `often`, as runs of before have it, the likeliest.
- `random-candidate`: any candidate, the unsteered among them, whatever the partner thinks.
- `substitution`: the partner's token wherever they differ: all of the gap, by construction.
- `some-substitution`: the partner's token at a `share` of the positions where they differ, drawn likewise: as many
  tokens as the method steers, given away instead.
- `mixing`: where they differ, the likeliest token of the averaged logits.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

OTHER_VECTORS = ("permuted-category", "random-category", "random-vector", "bias")
# The token comes from the partner's logits, not from a steered base.
DISTRIBUTIONS = ("substitution", "some-substitution", "mixing")
SHARED = ("random-position", "some-substitution")  # at a fraction of positions
DRAWN = ("random-category", "random-candidate", *SHARED)  # a number a token decides
CONTROLS = ("", *OTHER_VECTORS, "random-position", "random-candidate", *DISTRIBUTIONS)


def exchanged(
    control: str, vectors: Float[Tensor, "categories d_model"], bias: Float[Tensor, " d_model"] | None, seed: int
) -> Float[Tensor, "categories d_model"] | None:
    """What a control adds in place of each category's vector; `random-category` draws at each position."""
    rng = np.random.default_rng(seed)
    if control == "permuted-category":  # one cycle through all: no category keeps its own
        order = rng.permutation(len(vectors))
        target = np.empty_like(order)
        target[order] = np.roll(order, 1)
        return as_long_as(vectors, vectors[torch.from_numpy(target).to(vectors.device)])
    if control == "random-vector":
        return as_long_as(vectors, torch.from_numpy(rng.standard_normal(vectors.shape)).to(vectors))
    if control == "bias":
        assert bias is not None
        return as_long_as(vectors, bias.to(vectors).expand_as(vectors))
    return None


def as_long_as(wanted: Float[Tensor, "rows d_model"], x: Float[Tensor, "rows d_model"]) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True) * wanted.norm(dim=-1, keepdim=True)


def steered_candidate(
    theirs: Float[Tensor, "rows candidates"] | None, uniform: Float[Tensor, " rows"], often: tuple[float, ...]
) -> Int[Tensor, " rows"]:
    """The number of the steered candidate that `random-position` takes.

    Args:
        theirs: the partner's logits of the candidates' tokens; None where the first is always taken.
        uniform: a number between 0 and 1 a row.
        often: how often each candidate is taken; empty: the one that the partner thinks likeliest.
    """
    if theirs is None:
        return torch.ones_like(uniform, dtype=torch.long)
    if not often:
        return 1 + theirs.argmax(dim=1)
    ends = torch.tensor(often, device=uniform.device).cumsum(0)
    return 1 + torch.searchsorted(ends / ends[-1], uniform, right=True).clamp(max=len(ends) - 1)
