"""`HybridSteering`: who decides when a base is steered, and the vectors that it is steered with (arXiv 2510.07364).

The thinking model is a model of its own, or an adapter on the base's weights, which are then in memory once. Two
models can be compared token by token only where their ordinary tokens say the same. Special ones may have other ids, or
be there in one model alone: `Tokens` carries them from one to the other by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.cache import PADDED, KVState, open_state
from elicit.decoding.continuing import continuing_ids
from elicit.decoding.decoders.gates import Gate
from elicit.decoding.packed_weights import packed
from elicit.decoding.ready import check_prompts, check_ready
from elicit.decoding.trial import way_of
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from probes.description import FLOAT_BITS, Base, Part
from probes.errors import UserError
from probes.offsets import decoded
from probes.sites import Site, check_site, on_site
from steering.adapters import Adapter, applied
from steering.categories.coefficient import CoefficientHead
from steering.directions import Direction
from steering.hooks import check_plan
from steering.interventions import Add, Intervention
from steering.storage import digest, numbers_in


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
        prompt: how the thinking model is asked; None: with the base's own prompt.

    Raises:
        UserError: no vectors, several sites, heads that are not one a vector.
    """

    vectors: Mapping[int, Direction]
    gate: Gate
    model: Model | Adapter | None = None
    bias: Direction | None = None
    heads: Mapping[int, CoefficientHead] | None = None
    prompt: Prompt | None = None

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

    def description(self, base: Base) -> list[Part]:
        """Every number of its vectors, gate and heads, and the thinking model itself, whose weights decide as well."""
        kept = self.directions, self.gate, dict(enumerate((self.heads or {}).values()))
        parts = [Part(f"{len(self.vectors)} vectors and their gate", float(FLOAT_BITS * numbers_in(kept)))]
        return parts if self.model is None else [*parts, *self.model.description(base)]

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

    def prompt_ids(self, base: Model, questions: Sequence[str], limit: int) -> list[list[int]] | None:
        """How each question is put to the thinking model; None where it reads the base's own prompts.

        Args:
            base: whose weights an adapter is on.
            questions: one a prompt.
            limit: of the tokens of an answer.

        Raises:
            UserError: a prompt that leaves no room for an answer, or holds a token that the model has no row for.
        """
        if self.prompt is None:
            return None
        tokenizer = (self.model if isinstance(self.model, Model) else base).tokenizer
        prompts = [self.prompt.ids(question, tokenizer) for question in questions]
        check_prompts(self.lm(base), prompts, limit, tokenizer)
        return prompts

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
        return digest([weights, self.data, *([] if self.prompt is None else [self.prompt.to_dict()])])

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
        if self.prompt is not None:
            about["prompt"] = self.prompt.to_dict()
        return about


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of two models, one in terms of the other.

    Args:
        theirs: the partner's id of each of the base's, -1 where it has none. Such a token is never emitted.
        spelled: what the base would say instead of a token that only the partner has, as `</think>` in pieces; tokens
            that end the partner's answers and not the base's are the base's own end token.
        foreign: the base's ids of such end tokens that it has as well: they stand in prompts and are never emitted.
    """

    theirs: Int[Tensor, " base"]
    spelled: Mapping[int, list[int]]
    foreign: tuple[int, ...] = ()

    @staticmethod
    def between(base: Model, partner: Model) -> Tokens | None:
        """Compare two models; None: every id is the same in both, and what ends the partner's answers ends the base's.

        Special tokens are the same where they have the same name, whatever their ids, and so are end tokens.

        Raises:
            UserError: an ordinary token that is another one in the other model.
        """
        ours, theirs = ({i: t for t, i in m.tokenizer.get_vocab().items()} for m in (base, partner))
        if ours == theirs and base.vocab_size == partner.vocab_size and partner.eos_ids <= base.eos_ids:
            return None
        special, other = (
            {*m.tokenizer.get_added_vocab().values(), *m.tokenizer.all_special_ids} for m in (base, partner)
        )
        same = {i for i in ours if theirs.get(i) == ours[i]} | (base.eos_ids & partner.eos_ids)
        clash = sorted((ours.keys() & theirs.keys()) - same - (special & other))
        if clash or not same:
            told = "they share no token"
            if clash:
                first, more = clash[0], len(clash) - 1
                told = f"token {first} is {ours[first]!r} and {theirs[first]!r}, and so with {more} others"
            raise UserError(
                f"{base.name} and {partner.name} read ids otherwise: {told}; use two models of one tokenizer"
            )
        named = {theirs[i]: i for i in sorted(other) if i in theirs}
        found = {i: i for i in same} | {i: named[ours[i]] for i in special - same if ours.get(i) in named}
        end = next(iter(sorted(partner.eos_ids)), None)
        if end is not None:
            found = dict.fromkeys(base.eos_ids, end) | found
        ids = torch.full((base.vocab_size,), -1)
        for i, their in found.items():
            if i < base.vocab_size and their < partner.vocab_size:
                ids[i] = their
        ending = torch.isin(ids, torch.tensor(sorted(partner.eos_ids), dtype=torch.long)).nonzero()[:, 0].tolist()
        foreign = tuple(i for i in ending if base.eos_ids and i not in base.eos_ids)
        special_ids = sorted((other | partner.eos_ids) & theirs.keys())
        return Tokens(ids, _spelled(base, partner, ids, special_ids, foreign), foreign)

    def to_partner(self, ids: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
        """The partner's ids of tokens of the base that it has."""
        return self.theirs.to(ids.device)[ids]

    def prompts(
        self, base: Model, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Int[Tensor, "questions pos"]:
        """The base's prompts in the partner's ids; what lies under the padding does not matter.

        Raises:
            UserError: a token that the partner has not.
        """
        theirs = self.to_partner(ids)
        strange = ids[mask & (theirs < 0)]
        if len(strange):
            word = base.tokenizer.convert_ids_to_tokens(int(strange.min()))
            raise UserError(
                f"the prompt holds the token {word!r}, which means another thing to the partner; "
                "give the partner a prompt of its own, or use one without special tokens that the two do not share"
            )
        return theirs.clamp(min=0)

    def to_base(self, ids: Sequence[int]) -> list[list[int]]:
        """Each of the partner's tokens as the base would say it; nothing where it cannot."""
        ours = {int(their): i for i, their in reversed(list(enumerate(self.theirs.tolist()))) if their >= 0}
        return [[ours[i]] if i in ours else list(self.spelled.get(i, ())) for i in ids]

    def emitted(self, logits: Float[Tensor, "*rows base"]) -> Float[Tensor, "*rows base"]:
        """The logits of the base's tokens that may be emitted."""
        return logits.masked_fill(self._never.to(logits.device), float("-inf"))

    @cached_property
    def _never(self) -> Bool[Tensor, " base"]:
        never = self.theirs < 0
        never[list(self.foreign)] = True
        return never

    def base_logits(self, logits: Float[Tensor, "*rows partner"]) -> Float[Tensor, "*rows base"]:
        """The partner's logits as over the base's tokens. What only the partner has counts for the first piece of it
        that the base would say, as one thing that it may go on with among others."""
        out = self.emitted(logits[..., self.theirs.to(logits.device).clamp(min=0)])
        for their, pieces in self.spelled.items():
            out[..., pieces[0]] = torch.logaddexp(out[..., pieces[0]], logits[..., their])
        return out


def shared_ids(base: Model, partner: Model) -> Bool[Tensor, " base"] | None:
    """Which of the base's tokens the partner has; None: every id is the same in both.

    Raises:
        UserError: as `Tokens.between`.
    """
    tokens = Tokens.between(base, partner)
    return None if tokens is None else tokens.theirs >= 0


def _spelled(
    base: Model, partner: Model, theirs: Int[Tensor, " base"], special: Sequence[int], foreign: Sequence[int]
) -> dict[int, list[int]]:
    """For special tokens that only the partner has, or only it ends by, what the base would say instead: tokens that
    the partner has too."""
    known, out = {their for i, their in enumerate(theirs.tolist()) if i not in foreign}, {}
    ends = [i for i in sorted(base.eos_ids) if i < len(theirs) and theirs[i] >= 0]
    for i in special:
        if i in known or i >= partner.vocab_size:
            continue
        if i in partner.eos_ids:
            pieces = ends[:1]
        else:
            said = str(partner.tokenizer.convert_ids_to_tokens(i))
            pieces = continuing_ids(base.tokenizer, said)
            if decoded(base.tokenizer, pieces).strip() != said.strip():
                continue
        if pieces and all(p < len(theirs) and theirs[p] >= 0 for p in pieces):
            out[i] = pieces
    return out


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
def thinking(
    partner: HybridSteering, base: Model, longest: int, max_new_tokens: int, *, ragged: bool = False
) -> Iterator[ThinkingModel]:
    """Open the partner for one batch, whose longest row will have so many positions."""
    lm = partner.lm(base)
    check_ready(lm, longest)
    # The base's own weights are packed by whoever decodes with it.
    packing = nullcontext() if lm is base.lm else packed(lm)
    way = way_of(lm)
    if ragged and way not in PADDED:
        raise UserError(
            f"{type(lm).__name__} is decoded with prompts of one length together, and a partner is given all of them; "
            "give it prompts of one length, or ask with a batch size of 1"
        )
    with packing, open_state(lm, max_new_tokens, way=way) as state:
        adapter = partner.model if isinstance(partner.model, Adapter) else None
        yield ThinkingModel(lm, adapter, partner.gate.reads if partner.gate.asks else None, state)
