"""`Intervention`: what × where × when × strength, as data.

An intervention is frozen, compared and hashed by its content, and saved as JSON and safetensors
(`steering.storage`). Several in a tuple are a *plan*: at one site they act in the tuple's order, each on what the
one before it left. What they do to activations stands in `steering.editor`; the backends only carry it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.clock import Frame
from probes.errors import UserError, unknown
from probes.sae.autoencoder import Feature
from probes.sites import STREAM, Site
from steering.directions import Direction
from steering.storage import digest, register

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


What = Add | SetFeature | ScaleFeature | ProjectOut | Replace


@register
@dataclass(frozen=True, eq=False)
class Gate:
    """Acts only where h · vector + bias > threshold, with h at `site` of the same forward, as it arrives there.

    A linear probe's gate; with `vector` an SAE's encoder column and `bias` its bias, a feature's.
    """

    vector: Float[Tensor, " d_model"]
    site: Site
    bias: float = 0.0
    threshold: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not bool(self.vector.isfinite().all()):
            raise UserError(
                f"gate {self.name!r} has a vector of shape {tuple(self.vector.shape)} or with NaN; "
                "give finite [d_model]"
            )


@register
@dataclass(frozen=True)
class When:
    """At which positions, and with which weight, an intervention acts.

    Steps number positions by the token that they choose: step 0 is the last prompt token (it chooses the first
    generated one), step t is generated token t − 1, negative steps lie in the prompt.

    Args:
        first: the first step; None: from the first prompt token.
        stop: acts before this step; None: to the end.
        positions: prompt positions instead (0 the first, −1 the last).
        decay: the weight is decay ** (step − first).
        program: weights of steps first, first + 1, …, and 0 after the last.
        gate: a condition on activations on top of it all.
    """

    first: int | None = None
    stop: int | None = None
    positions: tuple[int, ...] | None = None
    decay: float = 1.0
    program: tuple[float, ...] | None = None
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.stop is not None and self.stop <= self.first:
            raise UserError(f"steps {self.first} to before {self.stop} were given; that is none, give a later stop")
        if self.positions is not None and (self.first is not None or self.stop is not None):
            raise UserError("prompt positions and steps were given; give one of them")
        if self.positions == ():
            raise UserError("no prompt positions were given; give at least one")
        if (self.decay != 1.0 or self.program is not None) and self.first is None:
            raise UserError("a decay or a program begins at a step; give first")
        if not 0 < self.decay <= 1:
            raise UserError(f"decay = {self.decay} was given; give a factor in (0, 1]")
        if self.program is not None and not any(self.program):
            raise UserError("a program of zeros was given; it would change nothing")

    @staticmethod
    def everywhere() -> When:
        """All prompt positions and all generated tokens."""
        return When()

    @staticmethod
    def prompt(*positions: int) -> When:
        """These prompt positions, or all of them."""
        return When(positions=positions) if positions else When(stop=1)

    @staticmethod
    def last_prompt_token() -> When:
        """Step 0 alone: the position that chooses the first generated token."""
        return When(first=0, stop=1)

    @staticmethod
    def steps(n: int) -> When:
        """The first n generated tokens: steps 0 to n − 1, all of them (not only the n-th)."""
        return When(first=0, stop=n)

    @staticmethod
    def every_step() -> When:
        """Each position that chooses a generated token."""
        return When(first=0)

    @staticmethod
    def decaying(factor: float, n: int | None = None) -> When:
        """Weight 1 at step 0, `factor` at step 1, factor² at step 2, …"""
        return When(first=0, stop=n, decay=factor)

    @staticmethod
    def programmed(weights: Sequence[float], first: int = 0) -> When:
        """A weight for each step."""
        return When(first=first, stop=first + len(weights), program=tuple(float(w) for w in weights))

    @staticmethod
    def parse(text: str) -> When:
        """From a command line: `everywhere`, `prompt`, `last-prompt-token`, `every-step`, `steps:8`, `decaying:0.9`.

        Raises:
            UserError: another name, or no number after the colon.
        """
        name, _, number = text.partition(":")
        plain = {
            "everywhere": When.everywhere,
            "prompt": When.prompt,
            "last-prompt-token": When.last_prompt_token,
            "every-step": When.every_step,
        }
        if name in plain and not number:
            return plain[name]()
        try:
            if name == "steps":
                return When.steps(int(number))
            if name == "decaying":
                return When.decaying(float(number))
        except ValueError as error:
            raise UserError(f"when = {text!r} was given; write a number after the colon, like {name}:8") from error
        raise unknown("when", name, [*plain, "steps", "decaying"], hint="(steps and decaying take a number: steps:8)")

    def gated(self, gate: Gate) -> When:
        """The same where the gate fires."""
        return replace(self, gate=gate)

    @property
    def kind(self) -> str:
        """Its name among `WHENS`: what a backend claims or refuses."""
        if self.gate is not None:
            return "gate"
        if self.program is not None:
            return "program"
        if self.decay != 1.0:
            return "decaying"
        if self.positions is not None or (self.stop is not None and self.stop <= 1 and self.first != 0):
            return "prompt"
        if (self.first, self.stop) == (0, 1):
            return "last prompt token"
        if self.first is None:
            return "everywhere"
        return "every step" if self.stop is None else "steps"

    @property
    def unconditional(self) -> bool:
        """Whether it acts in the forward of every prompt, whatever comes after."""
        if self.gate is not None or self.program is not None:
            return False
        if self.positions is not None:
            return bool({0, -1} & set(self.positions))  # a prompt may be too short for the others
        return (self.first is None or self.first <= 0) and (self.stop is None or self.stop > 0)

    def weight(self, frame: Frame) -> float | Float[Tensor, "rows pos"]:
        """The weight of each position of a forward, gate aside; padding weighs 0."""
        if frame.step is not None:
            return self._at(frame.step)
        if self.positions is not None and frame.lengths is None:
            return 0.0
        if self.positions is not None:
            inside = torch.zeros(frame.steps.shape, dtype=torch.bool, device=frame.steps.device)
            assert frame.lengths is not None
            for position in self.positions:
                counted = 1 - frame.lengths if position >= 0 else 1  # from the first token, or from the last
                target = torch.as_tensor(counted + position, device=frame.steps.device)
                inside |= (frame.steps == target.reshape(-1, 1)) & (frame.steps <= 0)
            weight = inside.float()
        else:
            low = frame.steps >= self.first if self.first is not None else torch.ones_like(frame.steps).bool()
            weight = (low if self.stop is None else low & (frame.steps < self.stop)).float()
            if self.decay != 1.0 and self.first is not None:
                weight = weight * self.decay ** (frame.steps - self.first).clamp(min=0).float()
            if self.program is not None and self.first is not None:
                tables = self.__dict__.setdefault(TABLES, {})  # once a device: a captured step reads no host value
                if weight.device not in tables:
                    tables[weight.device] = torch.tensor([*self.program, 0.0], device=weight.device)
                weight = weight * tables[weight.device][(frame.steps - self.first).clamp(0, len(self.program))]
        return weight if frame.valid is None else weight * frame.valid

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != TABLES}  # what is sent away is data

    def _at(self, step: int) -> float:
        """The weight at a step after the prompt's own forward."""
        if self.positions is not None or (self.first is not None and step < self.first):
            return 0.0
        if self.stop is not None and step >= self.stop:
            return 0.0
        if self.program is not None and self.first is not None:
            return self.program[step - self.first] if step - self.first < len(self.program) else 0.0
        return self.decay ** (step - self.first) if self.first is not None and self.decay != 1.0 else 1.0


TABLES = "_tables"  # of a `When`: its program on each device
WHENS = ("everywhere", "prompt", "last prompt token", "steps", "every step", "decaying", "program", "gate")
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
    when: When = When()
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

    def describe(self) -> dict[str, Any]:
        """In words and numbers, without tensors: for configurations and reports."""
        source = "activations" if isinstance(self.what, Replace) else self.what.source.name
        when = {k: v for k, v in vars(self.when).items() if k != "gate" and v != getattr(When(), k)}
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
