"""`Editor`: what plans do to activations, for every backend alike.

A backend hands it the activations at a site with the `Frame` of the forward and puts back what it returns. Rows of one
forward may follow different plans. Interventions of different plans that differ in strength alone are one operation
with a strength a row.

It also keeps the manipulation check: how far each position was moved, plan by plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from probes.clock import Frame
from probes.errors import UserError
from probes.sae.autoencoder import Feature
from probes.sites import Site
from steering.delivery import Delivery
from steering.directions import Direction
from steering.interventions import Add, Gate, Intervention, Plan, ProjectOut, Replace, SetFeature


@dataclass
class _Operation:
    """An intervention at one site, with a factor for each plan; 0 where a plan does not have it."""

    intervention: Intervention
    factors: list[float]
    has: list[bool]
    constants: dict[str, Tensor] = field(default_factory=dict)
    feature: Feature | None = None  # its SAE feature, on the device of the site

    @property
    def same(self) -> bool:
        """Whether all plans have it alike."""
        return all(self.has) and len(set(self.factors)) == 1


class Editor:
    """Applies plans.

    Args:
        plans: one for all rows, or the distinct ones.
        of_row: for each row of the first forward its plan's number; None: all follow plan 0.
        device: of the model's inputs. Activations may be elsewhere, where a model is spread over several.
    """

    def __init__(self, plans: Sequence[Plan], of_row: Sequence[int] | None = None, device: str | torch.device = "cpu"):
        # Plans that no row follows are emptied: of setting or scaling a feature a strength of 0 is something, too.
        self.plans = [tuple(plan) if of_row is not None or number == 0 else () for number, plan in enumerate(plans)]
        self.of_row = None if of_row is None or len(plans) == 1 else torch.tensor(list(of_row), device=device)
        self.device = torch.device(device)
        self.operations = _compile(self.plans)
        self.gates: dict[Site, list[Gate]] = {}
        for one in (one for plan in self.plans for one in plan):
            if one.when.gate is not None:
                self.gates.setdefault(one.when.gate.site, []).append(one.when.gate)
        self.sites = sorted({*self.operations, *self.gates}, key=lambda site: site.order)
        self.fired: dict[int, Bool[Tensor, "rows pos"]] = {}
        self.gate_counts: dict[int, Tensor] = {
            id(gate): torch.zeros(len(self.plans), 2, dtype=torch.float64, device=self.device)
            for gates in self.gates.values()
            for gate in gates
        }
        self.gate_vectors: dict[int, Tensor] = {}  # on the device of their site
        self._frame: Frame | None = None
        self._moved: Tensor | None = None
        self._totals = torch.zeros(len(self.plans), 4, dtype=torch.float64, device=self.device)
        self._largest = torch.zeros(len(self.plans), dtype=torch.float32, device=self.device)

    def edit(self, site: Site, h: Float[Tensor, "rows pos d_model"], frame: Frame) -> Tensor | None:
        """The activations that take the place of `h`, or None where nothing is to be done.

        Raises:
            UserError: plans were given for another number of rows.
        """
        if frame is not self._frame:
            self._frame, self._moved, self.fired = frame, None, {}
            if self.of_row is not None and frame.rows is None and len(self.of_row) != len(h):
                raise UserError(
                    f"plans were given for {len(self.of_row)} rows and a forward has {len(h)} (each beam and each "
                    "returned sequence is a row); give the number of each row's plan"
                )
        for gate in self.gates.get(site, ()):
            if id(gate) not in self.gate_vectors:
                self.gate_vectors[id(gate)] = gate.vector.to(h.device)
            score = h.float() @ self.gate_vectors[id(gate)] + gate.bias
            self.fired[id(gate)] = score > gate.threshold
        new = h
        for operation in self.operations.get(site, ()):
            new = self._apply(operation, new, frame)
        if new is h:
            return None
        self._measure(h, new, frame)
        return new

    def _apply(self, operation: _Operation, h: Tensor, frame: Frame) -> Tensor:
        intervention = operation.intervention
        weight: float | Tensor = intervention.when.weight(frame)
        if isinstance(weight, float):
            if weight == 0.0:
                return h
        else:
            weight = weight[..., None].to(h.device)
        has = self._has(operation, frame, h.device)
        if has is not None:
            weight = weight * has
        gate = intervention.when.gate
        if gate is not None:
            fired = self.fired[id(gate)].to(h.device)
            self._count(gate, fired, weight, frame)
            weight = weight * fired[..., None]
        what = intervention.what
        factor = self._factor(operation, frame, h.device)
        if isinstance(what, Add):
            vector = what.source.vector if isinstance(what.source, Direction) else what.source.decoder
            return h + (weight * factor * self._constant(operation, "vector", vector, h.device)).to(h.dtype)
        if isinstance(what, Replace):
            return torch.lerp(h, self._values(operation, what, frame, h), torch.as_tensor(weight * factor).to(h))
        if isinstance(what, ProjectOut):
            unit = self._constant(operation, "unit", what.source.unit, h.device)
            x = h.float()
            if what.source.center is not None:
                x = x - self._constant(operation, "center", what.source.center, h.device)
            return h - (weight * factor * (x @ unit)[..., None] * unit).to(h.dtype)
        if operation.feature is None:
            operation.feature = what.source.to(h.device)
        decoder = operation.feature.decoder
        z = operation.feature.read(h)[..., None]
        change = factor - z if isinstance(what, SetFeature) else (factor - 1) * z
        return h + (weight * change * decoder).to(h.dtype)

    def _constant(self, operation: _Operation, name: str, value: Tensor, device: torch.device) -> Tensor:
        if name not in operation.constants:
            operation.constants[name] = value.to(device)
        return operation.constants[name]

    def _plan_of_row(self, frame: Frame, device: torch.device) -> Tensor:
        assert self.of_row is not None
        return (self.of_row if frame.rows is None else self.of_row[frame.rows]).to(device)

    def _factor(self, operation: _Operation, frame: Frame, device: torch.device) -> float | Tensor:
        if operation.same or self.of_row is None:
            return operation.factors[0]
        table = self._constant(operation, "factors", torch.tensor(operation.factors), device)
        return table[self._plan_of_row(frame, device)][:, None, None]

    def _has(self, operation: _Operation, frame: Frame, device: torch.device) -> Tensor | None:
        if all(operation.has) or self.of_row is None:
            return None
        table = self._constant(operation, "has", torch.tensor(operation.has, dtype=torch.float32), device)
        return table[self._plan_of_row(frame, device)][:, None, None]

    def _values(self, operation: _Operation, what: Replace, frame: Frame, h: Tensor) -> Tensor:
        """The stored activations of each position; the position's own where none are stored."""
        values = self._constant(operation, "values", what.values, h.device)
        index = frame.steps.to(h.device) - what.first
        inside = (index >= 0) & (index < len(values))
        stored = values[index.clamp(0, len(values) - 1)].to(h.dtype)
        return torch.where(inside[..., None], stored, h)

    def _count(self, gate: Gate, fired: Tensor, weight: float | Tensor, frame: Frame) -> None:
        asked = torch.ones_like(fired) if isinstance(weight, float) else (weight[..., 0] != 0).expand_as(fired)
        seen = torch.stack([(fired & asked).sum(-1), asked.sum(-1)], -1).to(self.device)
        self.gate_counts[id(gate)] += self._by_plan(seen, frame)

    def _measure(self, old: Tensor, new: Tensor, frame: Frame) -> None:
        before = old.detach().float()
        moved = torch.linalg.vector_norm(new.detach().float() - before, dim=-1)
        length = torch.linalg.vector_norm(before, dim=-1)
        share = moved / length.clamp(min=1e-12)
        broken = ~moved.isfinite() & length.isfinite()  # by the plans, not before them
        if frame.counted is not None:
            valid = frame.counted.to(moved.device)
            share, moved = (torch.where(valid, value, 0.0) for value in (share, moved))  # padding may be NaN
            broken = broken & valid
        moved, share, broken = moved.to(self.device), share.to(self.device), broken.to(self.device)
        self._moved = share if self._moved is None else torch.maximum(self._moved, share)
        finite = moved.isfinite()
        zero = torch.zeros_like(moved)
        sums = torch.where(finite, moved, zero).sum(-1), torch.where(finite, share, zero).sum(-1)
        self._totals += self._by_plan(torch.stack([(moved > 0).sum(-1), *sums, broken.sum(-1)], -1), frame)
        self._largest.scatter_reduce_(0, self._numbers(frame, len(share)), share.amax(-1), "amax")

    def _by_plan(self, values: Shaped[Tensor, "rows n"], frame: Frame) -> Float[Tensor, "plans n"]:
        """Sums over the rows of each plan."""
        out = torch.zeros(len(self.plans), values.shape[1], dtype=torch.float64, device=self.device)
        return out.index_add_(0, self._numbers(frame, len(values)), values.double())

    def _numbers(self, frame: Frame, rows: int) -> Int[Tensor, " rows"]:
        """The number of each row's plan."""
        if self.of_row is None:
            return torch.zeros(rows, dtype=torch.long, device=self.device)
        return self._plan_of_row(frame, self.device)

    def moved(self, frame: Frame | None) -> Float[Tensor, "rows pos"] | None:
        """How far a forward's positions were moved, if it was the last: ‖Δh‖ / ‖h‖, the largest over sites.

        None: nothing acted in it.
        """
        return self._moved if frame is self._frame else None

    def delivery(self, plan: int | None = None) -> Delivery:
        """What was done so far, by the plan of this number or by all."""
        which = slice(None) if plan is None else slice(plan, plan + 1)
        positions, moved, share, broken = self._totals[which].sum(0).tolist()
        counts = [seen[which].sum(0) for seen in self.gate_counts.values()]
        fired, asked = torch.stack(counts).sum(0).tolist() if counts else (0, 0)
        return Delivery(
            positions=int(positions),
            mean_move=moved / positions if positions else 0.0,
            mean_share=share / positions if positions else 0.0,
            max_share=float(self._largest[which].max()),
            not_finite=int(broken),
            gate_fired=int(fired),
            gate_asked=int(asked),
        )


def _compile(plans: Sequence[Plan]) -> dict[Site, list[_Operation]]:
    """The operations at each site, in the plans' order; equal but for the strength, they are one."""
    out: dict[Site, list[_Operation]] = {}
    skeletons: dict[Site, list[str]] = {}
    for number, plan in enumerate(plans):
        next_place: dict[Site, int] = {}
        for intervention in plan:
            bare = replace(intervention, strength=2.0, unit="raw").digest  # 2 is neutral to no kind
            for site in intervention.sites:
                known, place = skeletons.setdefault(site, []), next_place.get(site, 0)
                operations = out.setdefault(site, [])
                if bare in known[place:]:
                    at = known.index(bare, place)
                else:
                    at = place
                    known.insert(at, bare)
                    operations.insert(at, _Operation(intervention, [0.0] * len(plans), [False] * len(plans)))
                operations[at].factors[number] = intervention.factor
                operations[at].has[number] = True
                next_place[site] = at + 1
    return out


def check_reach(plan: Plan) -> None:
    """Refuse a `Replace` that is to act where it holds no values.

    Raises:
        UserError: its `when` asks for steps outside its values.
    """
    for one in plan:
        if not isinstance(one.what, Replace):
            continue
        when = one.when
        if when.positions is None and (when.stop is None or when.stop - 1 > one.what.last):
            raise UserError(
                f"activations for steps {one.what.first} to {one.what.last} were given to replace, and a when without "
                "an end or with a later one; give When(first, stop) within them"
            )
