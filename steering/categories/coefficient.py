"""A coefficient for a category's vector, from the base's own activation (an option of `vector-transfer`).

One strength for all positions is too much at some and too little at others. A ridge regression tells, from the base's
stream at a position, how far the thinking model lies from it along the vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.errors import UserError
from probes.sites import Site
from steering import storage
from steering.directions import Direction


@storage.register
@dataclass(frozen=True, eq=False)
class CoefficientHead:
    """How much of a vector the base lacks at a position, predicted from its own activation there.

    A ridge regression from h, the base's residual stream at `site`, to ⟨partner − h, v⟩/‖v‖²: the multiple of v that
    brings the base to the partner along v. Predictions are clipped at the range of the targets that it was fitted on.
    """

    weight: Float[Tensor, " d_model"]
    intercept: float
    low: float
    high: float
    site: Site
    made: Mapping[str, Any]

    def __call__(self, h: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """The coefficient at each position.

        Raises:
            UserError: activations of another width.
        """
        if h.shape[1] != len(self.weight):
            raise UserError(f"activations of width {h.shape[1]} were given; this head reads {len(self.weight)}")
        weight = self.weight.to(h.device)
        return (h.float() @ weight + self.intercept).clamp(self.low, self.high)


def fit_coefficient(
    base: Float[Tensor, "n d_model"],
    partner: Float[Tensor, "n_partner d_partner"],
    direction: Direction,
    *,
    text: Sequence[int] | Int[np.ndarray, " n"] | None = None,
    ridge: float = 0.1,
    seed: int = 0,
) -> CoefficientHead:
    """Fit the head of one vector; `made` has the R² on a quarter of the texts that was held out, None with one text.

    Args:
        base, partner: both models' streams at the direction's site, at the same positions.
        direction: the vector that the coefficient multiplies.
        text: the text of each position: neighbours of one text are much alike, and none may be on both sides. Each
            position is a text of its own unless given.
        ridge: the penalty, as a fraction of the mean variance of a dimension.
        seed: of the held-out quarter.

    Raises:
        UserError: activations or texts that do not match, or fewer than eight positions.
    """
    if base.shape != partner.shape or base.shape[1] != direction.d_model or len(base) < 8:
        raise UserError(
            f"activations {list(base.shape)} of the base and {list(partner.shape)} of the partner were given for a "
            f"vector of width {direction.d_model}; give both at the same positions, eight at least"
        )
    if text is not None and len(text) != len(base):
        raise UserError(f"the texts of {len(text)} positions were given for {len(base)}; give one a position")
    if ridge <= 0:
        raise UserError(f"ridge {ridge} was given; give a positive penalty")
    x = base.detach().double().cpu()
    v = direction.vector.double()
    y = (partner.detach().double().cpu() - x) @ v / v.square().sum()
    texts = torch.arange(len(x)) if text is None else torch.as_tensor(np.unique(text, return_inverse=True)[1])
    order = torch.randperm(int(texts.max()) + 1, generator=torch.Generator().manual_seed(seed))
    apart = order[: max(len(order) // 4, int(len(order) > 1))]
    held = torch.isin(texts, apart)
    fit = ~held
    mean, level = x[fit].mean(0), y[fit].mean()
    centred = x[fit] - mean
    gram = centred.T @ centred
    penalty = ridge * gram.diagonal().mean().clamp(min=1e-12)
    weight = torch.linalg.solve(gram + penalty * torch.eye(len(v), dtype=torch.float64), centred.T @ (y[fit] - level))
    low, high = float(y[fit].min()), float(y[fit].max())
    said = ((x[held] - mean) @ weight + level).clamp(low, high)
    spread = (y[held] - y[held].mean()).square().sum()
    r2 = float(1 - (y[held] - said).square().sum() / spread) if bool(spread > 0) else None
    made = {
        "method": "ridge regression", "ridge": ridge, "positions": int(fit.sum()), "held_out": int(held.sum()),
        "held_out_r2": r2,
        "direction": direction.name, "seed": seed, "held_out_texts": len(apart),
    }  # fmt: skip
    return CoefficientHead(weight.float(), float(level - mean @ weight), low, high, direction.site, made)
