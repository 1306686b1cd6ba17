"""Gates of hybrid decoding: at which positions a base is steered, and with which category's vector.

A gate is data. It is asked once a token for all rows together, and knows what was computed for that position anyway:
the base's distribution, whether the partner's own choice differs, and the activations at one site that the gate
names, of the partner or of the base. A gate that does not need the partner does not cause its forward.

- `OracleGate`: the method itself (arXiv 2510.07364): the models disagree, and a taxonomy of the partner's activations
  names the category.
- `ProbeGate`: what was distilled from it: logistic weights on the base's own activations.
- `EntropyGate`, `AlwaysGate`: one vector, where the base is unsure, or everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.confidence import Top2, token_statistics
from probes.errors import UserError
from probes.sites import Site
from steering.storage import register

T = TypeVar("T")


def placed(data: T, device: torch.device) -> T:
    """A dataclass with its tensors, and those of dataclasses in it, on a device: no step has to copy them there."""
    if not is_dataclass(data) or isinstance(data, type):
        return data
    moved = {}
    for one in (one for one in fields(data) if one.init):
        before = getattr(data, one.name)
        after = before.to(device) if isinstance(before, Tensor) else placed(before, device)
        if after is not before:
            moved[one.name] = after
    return replace(data, **moved) if moved else data  # type: ignore[return-value,type-var]


@runtime_checkable
class Taxonomy(Protocol):
    """Anything that names the category of an activation."""

    def labels(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """The category of each row."""
        ...


@register
@dataclass(frozen=True, eq=False)
class TokenLabels:
    """The category of the sentence to which the next token belongs: argmax of W (x − mean) + b.

    Args:
        weight: [categories, d], bias: [categories]; of a multinomial logistic regression.
        center: the mean that is taken off.
        categories: the number of each row's category.
    """

    weight: Float[Tensor, "categories d"]
    bias: Float[Tensor, " categories"]
    center: Float[Tensor, " d"]
    categories: tuple[int, ...]

    def labels(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        scores = (x.float() - self.center.to(x.device)) @ self.weight.to(x.device).T + self.bias.to(x.device)
        return self._names.to(x.device)[scores.argmax(1)]

    @cached_property
    def _names(self) -> Int[Tensor, " categories"]:
        return torch.tensor(self.categories, device=self.weight.device)


class GateInputs(NamedTuple):
    """What is known of the position that chooses the next token, one row a row of the batch.

    `differs` is None where the partner was not asked, `residual` where the gate reads nothing.
    """

    logits: Float[Tensor, "rows vocab"]
    top: Top2
    differs: Bool[Tensor, " rows"] | None
    residual: Float[Tensor, "rows d"] | None


class Decision(NamedTuple):
    """Whether to steer, and the category of the position whether it is steered or not."""

    fires: Bool[Tensor, " rows"]
    category: Int[Tensor, " rows"]


@runtime_checkable
class Gate(Protocol):
    """When, and with what."""

    @property
    def asks(self) -> bool:
        """Whether it needs the partner's forward."""
        ...

    @property
    def reads(self) -> Site | None:
        """Where it reads activations: of the partner if it asks it, else of the base."""
        ...

    def decide(self, inputs: GateInputs) -> Decision:
        """For all rows at once."""
        ...


@register
@dataclass(frozen=True, eq=False)
class OracleGate:
    """Fires where the two models' greedy tokens differ.

    Args:
        taxonomy: names the category of the partner's activation; registered with `steering.storage` if it is to be
            saved.
        site: where in the partner its activations were found.
    """

    taxonomy: Taxonomy
    site: Site
    asks = True

    @property
    def reads(self) -> Site:
        return self.site

    def decide(self, inputs: GateInputs) -> Decision:
        assert inputs.differs is not None and inputs.residual is not None
        labels = self.taxonomy.labels(inputs.residual.float())
        return Decision(inputs.differs, labels.to(inputs.differs.device))


@register
@dataclass(frozen=True, eq=False)
class ProbeGate:
    """Fires where the likeliest category's probability, σ(w_c · h + b_c), is above the threshold.

    Args:
        weight: [categories, d_model], on the base's activations at `site`.
        bias: [categories].
        site: of the base.
        categories: the number of each row's category; 0, 1, … unless given.
        threshold: a probability.
    """

    weight: Float[Tensor, "categories d_model"]
    bias: Float[Tensor, " categories"]
    site: Site
    categories: tuple[int, ...] = ()
    threshold: float = 0.5
    asks = False

    def __post_init__(self) -> None:
        names = self.categories or tuple(range(len(self.weight)))
        if len(names) != len(self.weight) or len(self.bias) != len(self.weight):
            raise UserError(
                f"a probe with {len(self.weight)} rows of weights, {len(self.bias)} biases and {len(names)} categories "
                "was given; give one of each a category"
            )
        if not bool(self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise UserError("a probe with NaN or infinity in its weights was given; fit it again")
        object.__setattr__(self, "categories", names)

    @property
    def reads(self) -> Site:
        return self.site

    def probability(self, h: Float[Tensor, "n d_model"]) -> Float[Tensor, "n categories"]:
        """Of each category, from the base's activations."""
        return torch.sigmoid(h.float() @ self.weight.to(h.device).T + self.bias.to(h.device))

    def decide(self, inputs: GateInputs) -> Decision:
        assert inputs.residual is not None
        best = self.probability(inputs.residual).max(dim=-1)
        return Decision(best.values > self.threshold, self._names.to(best.indices.device)[best.indices])

    @cached_property
    def _names(self) -> Int[Tensor, " categories"]:
        return torch.tensor(self.categories, device=self.weight.device)


@register
@dataclass(frozen=True)
class EntropyGate:
    """Fires where the base's next-token entropy (nats) is above the threshold; one category."""

    threshold: float
    category: int = 0
    asks = False
    reads = None

    def decide(self, inputs: GateInputs) -> Decision:
        entropy = token_statistics(inputs.logits, inputs.top, inputs.top.ids[:, 0]).entropy
        return Decision(entropy > self.threshold, torch.full_like(inputs.top.ids[:, 0], self.category))


@register
@dataclass(frozen=True)
class AlwaysGate:
    """Fires everywhere; one category."""

    category: int = 0
    asks = False
    reads = None

    def decide(self, inputs: GateInputs) -> Decision:
        first = inputs.top.ids[:, 0]
        return Decision(torch.ones_like(first, dtype=torch.bool), torch.full_like(first, self.category))
