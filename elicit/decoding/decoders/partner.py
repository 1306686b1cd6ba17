"""`HybridSteering`: who decides when a base is steered, and the vectors that it is steered with (arXiv 2510.07364).

The thinking model is a model of its own, or an adapter on the base's weights, which are then in memory once. Two
models can be compared token by token only where their vocabularies say the same: `shared_ids` looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.cache import KVState, open_state
from elicit.decoding.decoders.gates import Gate
from elicit.decoding.loop import check_ready
from elicit.decoding.packed_weights import packed
from elicit.models.model import Model
from probes.errors import UserError
from probes.sites import Site, check_site, on_site
from steering.adapters import Adapter, applied
from steering.categories.coefficient import CoefficientHead
from steering.directions import Direction
from steering.hooks import check_plan
from steering.interventions import Add, Intervention
from steering.storage import digest


@dataclass(frozen=True, eq=False)
class HybridSteering:
    """What hybrid decoding needs beside the base.

    Args:
        vectors: a direction for each category, all at one site of the base. A position whose category has none is
            never steered.
        gate: decides when, and names the category.
        model: the thinking model, or an adapter on the base's own weights; None where nothing asks it.
        bias: added to every category's vector; the vectors were found with it in place.
        heads: for each category what predicts its coefficient from the base's own activation at the vectors' site; the
            coefficients of `Hybrid` are then multiples of what it says.

    Raises:
        UserError: no vectors, several sites, heads that are not one a vector.
    """

    vectors: Mapping[int, Direction]
    gate: Gate
    model: Model | Adapter | None = None
    bias: Direction | None = None
    heads: Mapping[int, CoefficientHead] | None = None

    def __post_init__(self) -> None:
        vectors = {int(category): self.vectors[category] for category in self.vectors}
        object.__setattr__(self, "vectors", dict(sorted(vectors.items())))
        if not vectors or min(vectors) < 0:
            raise UserError(f"vectors of categories {sorted(vectors)} were given; number at least one category from 0")
        sites = sorted({str(d.site) for d in self.directions})
        if len(sites) > 1:
            raise UserError(f"vectors at {', '.join(sites)} were given; give vectors of one site")
        if self.heads is not None:
            heads = {int(category): head for category, head in self.heads.items()}
            object.__setattr__(self, "heads", dict(sorted(heads.items())))
            if heads.keys() != vectors.keys() or any(head.site != self.site for head in heads.values()):
                raise UserError(
                    f"coefficient heads of categories {sorted(heads)} were given for vectors of {sorted(vectors)} at "
                    f"{self.site}; give one of that site for each"
                )

    @property
    def directions(self) -> list[Direction]:
        return [*self.vectors.values(), *([] if self.bias is None else [self.bias])]

    @property
    def site(self) -> Site:
        return self.directions[0].site

    def lm(self, base: Model) -> PreTrainedModel:
        """The module that its forwards run on."""
        return self.model.lm if isinstance(self.model, Model) else base.lm

    def check(self, base: Model) -> None:
        """Refuse what does not fit a base.

        Raises:
            UserError: a site or width that the base lacks, a gate's site that its model lacks, another vocabulary.
        """
        check_plan(base.lm, tuple(Intervention(Add(d)) for d in self.directions))
        if self.gate.reads is not None:
            check_site(self.lm(base) if self.gate.asks else base.lm, self.gate.reads)
        if isinstance(self.model, Model):
            shared_ids(base, self.model)

    @property
    def data(self) -> dict[str, Any]:
        """All but the model, for `steering.storage`."""
        vectors = {str(category): d for category, d in self.vectors.items()}
        data: dict[str, Any] = {"vectors": vectors, "gate": self.gate, "bias": self.bias}
        if self.heads is not None:
            data["heads"] = {str(category): head for category, head in self.heads.items()}
        return data

    @cached_property
    def digest(self) -> str:
        """Over all that decides what it does."""
        model = self.model
        weights = [model.provenance.sha256, model.dtype] if isinstance(model, Model) else getattr(model, "sha256", "")
        return digest([weights, self.data])

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {
            "digest": self.digest,
            "gate": type(self.gate).__name__,
            "site": str(self.site),
            "categories": {str(category): d.name for category, d in self.vectors.items()},
        }
        if isinstance(self.model, Model):
            about["model"] = self.model.describe()
        elif self.model is not None:
            about["adapter"] = self.model.sha256
        return about


def shared_ids(base: Model, partner: Model) -> Bool[Tensor, " vocab"] | None:
    """Which token ids say the same in both models; None: all do.

    Ids that one of them lacks, and special tokens of different names, are not shared, and neither may emit them. Two
    end tokens are the same, whatever their names.

    Raises:
        UserError: an ordinary token that is another one in the other model.
    """
    ours, theirs = ({i: t for t, i in m.tokenizer.get_vocab().items()} for m in (base, partner))
    if ours == theirs and base.vocab_size == partner.vocab_size:
        return None
    special, other = ({*m.tokenizer.get_added_vocab().values(), *m.tokenizer.all_special_ids} for m in (base, partner))
    same = {i for i in ours if theirs.get(i) == ours[i]} | (base.eos_ids & partner.eos_ids)
    clash = sorted((ours.keys() & theirs.keys()) - same - (special & other))
    if clash or not same:
        told = "they share no token"
        if clash:
            first, more = clash[0], len(clash) - 1
            told = f"token {first} is {ours[first]!r} and {theirs[first]!r}, and so with {more} others"
        raise UserError(f"{base.name} and {partner.name} read ids otherwise: {told}; use two models of one tokenizer")
    shared = torch.zeros(min(base.vocab_size, partner.vocab_size), dtype=torch.bool)
    shared[[i for i in same if i < len(shared)]] = True
    return shared


class Newest:
    """A hook that keeps what each forward computes for its newest position at a site, [rows, d_model]."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __call__(self, h: Float[Tensor, "rows pos d_model"]) -> None:
        self.value = h[:, -1].clone()

    @contextmanager
    def on(self, lm: PreTrainedModel, site: Site | None) -> Iterator[None]:
        """Record inside the context; without a site nothing is recorded."""
        if site is None:
            yield
            return
        handle = on_site(lm, site, self)
        try:
            yield
        finally:
            handle.remove()


class ThinkingModel:
    """The partner's own forwards beside the base's: with its own cache, and its adapter on while they run."""

    def __init__(self, lm: PreTrainedModel, adapter: Adapter | None, site: Site | None, state: KVState) -> None:
        self.lm, self.adapter, self.site, self.state = lm, adapter, site, state
        self.newest = Newest()

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        return self._run(lambda: self.state.prefill(ids.to(self.lm.device), mask.to(self.lm.device)), ids.device)

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        return self._run(lambda: self.state.step(tokens.to(self.lm.device)), tokens.device)

    def _run(self, forward: Callable[[], Tensor], device: torch.device) -> Tensor:
        with applied(self.lm, self.adapter), self.newest.on(self.lm, self.site):
            return forward().to(device)


@contextmanager
def thinking(partner: HybridSteering, base: Model, longest: int, max_new_tokens: int) -> Iterator[ThinkingModel]:
    """Open the partner for one batch, whose longest row will have so many positions."""
    lm = partner.lm(base)
    check_ready(lm, longest)
    # The base's own weights are packed by whoever decodes with it.
    packing = nullcontext() if lm is base.lm else packed(lm)
    with packing, open_state(lm, max_new_tokens) as state:
        adapter = partner.model if isinstance(partner.model, Adapter) else None
        yield ThinkingModel(lm, adapter, partner.gate.reads if partner.gate.asks else None, state)
