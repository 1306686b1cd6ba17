"""`Direction`: a vector of the residual stream with all that its use depends on.

How directions are found stands in `steering.find`; what is kept here is what must travel with one: the site it was
read at, its norm convention, the residual norm there, the mean that was taken off, and how it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.description import FLOAT_BITS, Base, Part
from probes.errors import UserError, unknown
from probes.sites import STREAM, Site

NORMS = {
    "raw": "as estimated",
    "unit": "length 1",
    "resid": "as long as the residual stream at its site",
}


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction at a site.

    Args:
        vector: [d_model], kept in fp32 on the CPU.
        site: where it was estimated, and where it acts unless an intervention says otherwise.
        name: for tables and figures.
        norm: the convention that gave `vector` its length, one of `NORMS`.
        resid_norm: the median norm of the residual stream at the site, over prompt positions but the first.
        center: the mean taken off the activations before the direction was estimated.
        made: how: method, counts, seed, model hash, window.

    Raises:
        UserError: not a vector, NaN or infinity in it, no length.
    """

    vector: Float[Tensor, " d_model"]
    site: Site
    name: str = ""
    norm: str = "raw"
    resid_norm: float | None = None
    center: Float[Tensor, " d_model"] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown("norm convention", self.norm, NORMS)
        if self.site.point not in STREAM:
            raise UserError(f"a direction at {self.site} was given; directions live at {', '.join(STREAM)}")
        for label, value in (("direction", self.vector), ("centre", self.center)):
            if value is None:
                continue
            if value.ndim != 1:
                raise UserError(f"{label} of shape {tuple(value.shape)} was given; give a vector [d_model]")
            if not bool(value.isfinite().all()):
                raise UserError(f"the {label} {self.name!r} holds NaN or infinity; estimate it again")
        if not bool(self.vector.any()):
            raise UserError(f"the direction {self.name!r} is all zeros and would change nothing; estimate it again")
        object.__setattr__(self, "vector", self.vector.detach().float().cpu())
        if self.center is not None:
            object.__setattr__(self, "center", self.center.detach().float().cpu())

    @property
    def d_model(self) -> int:
        return len(self.vector)

    @property
    def length(self) -> float:
        return float(self.vector.norm())

    @property
    def unit(self) -> Float[Tensor, " d_model"]:
        return self.vector / self.vector.norm()

    def description(self, base: Base) -> list[Part]:
        """All its numbers, as they are kept; what fewer bits do is for who uses it to try."""
        return [Part(f"{self.d_model} numbers of a direction", float(FLOAT_BITS * self.d_model))]

    def normalized(self, norm: str) -> Direction:
        """The same direction under another norm convention.

        Raises:
            UserError: `resid` without a `resid_norm`; `raw`, which cannot be had back.
        """
        if norm == self.norm:
            return self
        if norm == "unit":
            return replace(self, vector=self.unit, norm=norm)
        if norm == "resid":
            return replace(self, vector=self.unit * self.scale_of_stream(), norm=norm)
        raise UserError(f"norm {norm!r} was asked of a direction kept as {self.norm!r}; give unit or resid")

    def scale_of_stream(self) -> float:
        if self.resid_norm is None:
            raise UserError(
                f"the direction {self.name!r} does not know the residual norm at {self.site}; "
                "set resid_norm (steering.find measures it)"
            )
        return self.resid_norm

    def flipped(self) -> Direction:
        """The sign-flip control."""
        return replace(self, vector=-self.vector, name=f"-{self.name}", made={**self.made, "control": "sign flipped"})

    def random_like(self, seed: int) -> Direction:
        """The matched control: the same site and the same length, a direction drawn uniformly from the sphere."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.d_model, generator=generator)
        made = {"control": "random direction", "seed": seed, "matched": self.name}
        return replace(
            self, vector=drawn / drawn.norm() * self.vector.norm(), name=f"random {seed}", center=None, made=made
        )
