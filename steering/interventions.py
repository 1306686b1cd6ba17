"""`Intervention`: what × where × when × strength, as data.

An intervention is frozen, compared and hashed by its content, and saved as JSON and safetensors
(`steering.storage`). Several in a tuple are a *plan*: at one site they act in the tuple's order, each on what the
one before it left. What they do to activations stands in `steering.editor`; the backends only carry it there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from probes.description import FLOAT_BITS, Base, Part, number, one_of, whole_number
from probes.errors import UserError, unknown
from probes.sae.autoencoder import Feature
from probes.sites import STREAM, Site
from steering.directions import Direction
from steering.storage import digest, register
from steering.when import WHENS, Gate, When

for _cls in (Direction, Feature, Site):
    register(_cls)

UNITS = {
    "raw": "the direction as it is, times the strength",
    "resid": "multiples of the residual stream's median norm at the site",
    "feature_max": "multiples of the SAE feature's largest activation",
}


@register
@dataclass(frozen=True, eq=False)
class Add:
    """h + strength · v, with a direction or an SAE feature's decoder column."""

    source: Direction | Feature


@register
@dataclass(frozen=True, eq=False)
class SetFeature:
    """h + (strength − z_f) · W_dec[f]: the feature is set, all else and the SAE's error term are kept."""

    source: Feature


@register
@dataclass(frozen=True, eq=False)
class ScaleFeature:
    """h + (strength − 1) · z_f · W_dec[f]; a silent feature stays silent."""

    source: Feature


@register
@dataclass(frozen=True, eq=False)
class ProjectOut:
    """h − strength · ((h − c)·u) u: directional ablation (arXiv 2406.11717, eq. 4), about the direction's centre c."""

    source: Direction


@register
@dataclass(frozen=True, eq=False)
class Replace:
    """Activations of another run in place of these: `values[i]` at step `first + i` (step 0: last prompt token).

    `strength` between 0 and 1 goes only part of the way.
    """

    values: Float[Tensor, "steps d_model"]
    first: int
    site: Site

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not bool(self.values.isfinite().all()):
            raise UserError(
                f"activations of shape {tuple(self.values.shape)} were given to replace; give finite [steps, d_model]"
            )

    @property
    def last(self) -> int:
        return self.first + len(self.values) - 1

    def description(self, base: Base) -> list[Part]:
        return [Part(f"{self.values.numel()} numbers of activations", float(FLOAT_BITS * self.values.numel()))]


What = Add | SetFeature | ScaleFeature | ProjectOut | Replace


WHATS = {"add": Add, "set feature": SetFeature, "scale feature": ScaleFeature, "project out": ProjectOut,
         "replace": Replace}  # fmt: skip


@register
@dataclass(frozen=True, eq=False)
class Intervention:
    """One change to a model's activations.

    Args:
        what: the change.
        strength: its size in `unit`. For `Add` the multiple of the direction; for `SetFeature` the value; for
            `ScaleFeature` the factor; for `ProjectOut` and `Replace` the fraction (1: all of it).
        unit: `raw`, `resid` or `feature_max`.
        when: the positions.
        layers: where it acts; the source's own layer unless given.
        point: hook point; the source's own unless given.

    Raises:
        UserError: a unit that the source does not have, a strength that is not finite or would change nothing.
    """

    what: What
    strength: float = 1.0
    unit: str = "raw"
    when: When = field(default_factory=When)
    layers: tuple[int, ...] = ()
    point: str = ""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("unit of strength", self.unit, UNITS)
        if self.point and self.point not in STREAM:
            raise unknown("hook point to write to", self.point, STREAM)
        if len(set(self.layers)) < len(self.layers):
            raise UserError(f"layers {self.layers} were given; give each once")
        if not self.factor == self.factor or abs(self.factor) == float("inf"):
            raise UserError(f"a strength of {self.strength} {self.unit} was given; give a finite number")
        neutral = 1.0 if isinstance(self.what, ScaleFeature) else 0.0
        if self.factor == neutral and not isinstance(self.what, SetFeature):
            raise UserError(f"a strength of {self.strength} would change nothing; leave the intervention out")
        gate = self.when.gate
        if gate is not None and any(gate.site.order > site.order for site in self.sites):
            raise UserError(
                f"the gate reads {gate.site}, after the intervention at {self.sites[0]}; read it at or before that"
            )

    @property
    def kind(self) -> str:
        """Its name among `WHATS`: what a backend claims or refuses."""
        return next(name for name, cls in WHATS.items() if type(self.what) is cls)

    @property
    def home(self) -> Site:
        """The site of its source."""
        return self.what.site if isinstance(self.what, Replace) else self.what.source.site

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts."""
        point = self.point or self.home.point
        return tuple(Site(layer, point) for layer in self.layers or (self.home.layer,))

    @property
    def d_model(self) -> int:
        return self.what.values.shape[1] if isinstance(self.what, Replace) else self.what.source.d_model

    @cached_property
    def factor(self) -> float:
        """The strength as a raw multiple."""
        source = None if isinstance(self.what, Replace) else self.what.source
        if self.unit == "raw":
            return float(self.strength)
        if self.unit == "resid":
            if not isinstance(self.what, Add):
                raise UserError(f"a strength in residual norms was given to {self.kind!r}; only 'add' takes one")
            assert source is not None
            return self.strength * source.scale_of_stream() / source.length
        if not isinstance(source, Feature) or isinstance(self.what, ScaleFeature):
            raise UserError(f"a strength in feature maxima was given to {self.kind!r}; it needs an SAE feature to set")
        return self.strength * source.largest()

    def description(self, base: Base) -> list[Part]:
        """What, where, when and how much: its source, and the choice of all else."""
        source = self.what if isinstance(self.what, Replace) else self.what.source
        where = whole_number(len(self.sites)) + len(self.sites) * one_of(base.layers) + one_of(len(STREAM))
        return [
            Part(self.kind, one_of(len(WHATS))),
            *source.description(base),
            Part("layer and hook point", where),
            *self.when.description(base),
            Part(f"{self.strength:g} {self.unit}", number(self.strength) + one_of(len(UNITS))),
        ]

    def describe(self) -> dict[str, Any]:
        """In words and numbers, without tensors: for configurations and reports."""
        source = "activations" if isinstance(self.what, Replace) else self.what.source.name
        names = [one.name for one in fields(When) if one.name != "gate"]
        when = {name: value for name in names if (value := getattr(self.when, name)) != getattr(When(), name)}
        return {
            "kind": self.kind,
            "source": source,
            "sites": [str(site) for site in self.sites],
            "strength": self.strength,
            "unit": self.unit,
            "factor": self.factor,
            "when": {"kind": self.when.kind, **when},
            "digest": self.digest,
        }

    def times(self, factor: float) -> Intervention:
        """The same with `factor` times the strength."""
        return replace(self, strength=self.strength * factor)

    @cached_property
    def digest(self) -> str:
        """A hash of the content."""
        return digest(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervention) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


Plan = tuple[Intervention, ...]

__all__ = [
    "UNITS",
    "WHATS",
    "WHENS",
    "Add",
    "Gate",
    "Intervention",
    "Plan",
    "ProjectOut",
    "Replace",
    "ScaleFeature",
    "SetFeature",
    "What",
    "When",
]
