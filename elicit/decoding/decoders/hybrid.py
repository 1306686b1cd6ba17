"""Hybrid decoding: a thinking partner decides when a base model is steered (`vector-transfer`, arXiv 2510.07364).

At every token, for all rows of the batch together:

1. The base's forward, unsteered, and the partner's, each on its own cache, after a prompt of its own where the partner
   has one. Where their greedy tokens agree the token is emitted.
2. Where the gate fires (`elicit.decoding.decoders.gates`; for the oracle: where they differ) the position's category c
   chooses a vector. One forward over these rows alone tries all candidates (α, w): α · (bias + v_c) added at the last w
   positions, w = 0: at all, the authors' default (`KVState.peek`). The unsteered token is a candidate as well, and
   costs nothing. With coefficient heads (`steering.categories.coefficient`) α is a multiple of what the category's head
   says of the base's own activation at this position. That costs a hook at the vectors' site in every step and a
   product of d_model numbers a steered position, and one candidate a window is enough where a grid of coefficients
   tries each.
3. The candidate whose greedy token the partner thinks likeliest is emitted: argmax over i of log p_partner(token_i).
   Of equal ones the unsteered, then the smaller coefficient. With `select="none"` it is the first candidate, always.

The base's cache keeps the unsteered keys and values, also of tokens that a steered position chose: steering moves the
choice of one token and is not carried on. The published scheme does the same by recomputing everything at each
token; it has no cache at all. Controls, which keep everything but one thing: `hybrid_controls.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise, product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from elicit.decoding.cache import Candidates, KVState
from elicit.decoding.decoders.gates import GateInputs, placed
from elicit.decoding.decoders.hybrid_controls import (
    CONTROLS,
    DISTRIBUTIONS,
    DRAWN,
    OTHER_VECTORS,
    SHARED,
    as_long_as,
    exchanged,
    steered_candidate,
)
from elicit.decoding.decoders.partner import HybridSteering, Newest, ThinkingModel, Tokens, thinking
from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy, Rows
from elicit.decoding.parts import without
from elicit.models.model import Model
from probes.batching import left_pad
from probes.confidence import Top2, top2
from probes.description import Base, Part, number, one_of
from probes.errors import UserError, unknown
from probes.finite import check_largest

SELECTS = ("likelihood", "none")


@dataclass(frozen=True)
class Hybrid:
    """Args: coefficients (ascending; with heads, of what these say) and windows of the candidates, what selects among
    them, which control this is, the fraction of positions of `SHARED` ones and the largest of `OTHER_VECTORS` (0: any),
    the seed of whatever a control draws, the limit, and how often `random-position` takes each candidate."""

    coefficients: tuple[float, ...] = (0.5, 1.0)
    windows: tuple[int, ...] = (1,)
    select: str = "likelihood"
    control: str = ""
    share: float = 0.0
    seed: int = 0
    max_new_tokens: int = 256
    often: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("select", SELECTS), ("control", CONTROLS)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        object.__setattr__(self, "coefficients", tuple(float(c) for c in self.coefficients))
        object.__setattr__(self, "windows", tuple(int(w) for w in self.windows))
        for name, values in (("coefficients", self.coefficients), ("windows", self.windows)):
            if not values or not all(a < b for a, b in pairwise(values)) or not np.isfinite(values).all():
                raise UserError(f"{name} = {values} were given; give at least one, ascending")
        if self.windows[0] < 0:
            raise UserError(f"a window of {self.windows[0]} tokens was given; give at least 1, or 0 for all positions")
        within = 0 <= self.share <= 1
        if not within or (self.control not in OTHER_VECTORS and (self.control in SHARED) != (self.share > 0)):
            raise UserError(
                f"share = {self.share} was given with control {self.control!r}; "
                f"give {' or '.join(SHARED)} a fraction in (0, 1], {', '.join(OTHER_VECTORS)} one or 0, and others none"
            )
        object.__setattr__(self, "often", tuple(float(one) for one in self.often))
        if self.often:
            fits = len(self.often) == len(self.candidates) and min(self.often) >= 0 < sum(self.often)
            if self.control != "random-position" or not fits:
                raise UserError(
                    f"often = {self.often} was given with control {self.control!r}; give random-position one number "
                    f"for each of its {len(self.candidates)} candidates, and others none"
                )

    @property
    def branches(self) -> int:
        return 1

    @property
    def candidates(self) -> list[tuple[float, int]]:
        """(coefficient, window) of each candidate that is tried; number 1 is the first, 0 the unsteered token."""
        every = list(product(self.coefficients, self.windows))
        return every[:1] if self.select == "none" and self.control != "random-candidate" else every

    def description(self, base: Base) -> list[Part]:
        numbers = sum(number(float(n)) for n in (*self.coefficients, *self.windows, *self.often, self.share))
        return [Part("candidates and control", numbers + one_of(len(SELECTS)) + one_of(len(CONTROLS)))]

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        raise UserError("hybrid decoding needs a partner; give one to Elicited(partner=…)")

    def asks(self, partner: HybridSteering) -> bool:
        """Whether the partner's forward is run at all."""
        return partner.gate.asks or self.select == "likelihood" or self.control in DISTRIBUTIONS

    def check(self, partner: HybridSteering) -> None:
        """Refuse a partner with which this cannot be done.

        Raises:
            UserError: a partner that is asked and not given, a control that lacks what it draws from.
        """
        if self.asks(partner) and partner.model is None:
            raise UserError(
                f"a partner without a model was given; {type(partner.gate).__name__} with select={self.select!r} and "
                f"control {self.control!r} asks one: give a model or an adapter, "
                "or a gate on the base with select='none'"
            )
        if self.control == "bias" and partner.bias is None:
            raise UserError("control 'bias' needs a partner with a bias vector; fit one, or use another control")
        if self.control in ("permuted-category", "random-category") and len(partner.vectors) < 2:
            raise UserError(f"control {self.control!r} needs vectors of at least two categories; one was given")

    def joint(
        self,
        base: Model,
        partner: HybridSteering,
        rng_streams: Sequence[RngStream | str],
        partner_prompts: Sequence[Sequence[int]] | None = None,
    ) -> HybridPolicy:
        """Choose tokens for these questions, in this order.

        Args:
            partner_prompts: the partner's own, where it has any (`HybridSteering.prompt_ids`).
        """
        self.check(partner)
        return HybridPolicy(self, base, partner, rng_streams, partner_prompts)


class HybridPolicy:
    """`TwoModelPolicy` for one batch."""

    def __init__(
        self,
        settings: Hybrid,
        base: Model,
        partner: HybridSteering,
        rng_streams: Sequence[RngStream | str],
        partner_prompts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.settings, self.base, self.partner, self.prompts = settings, base, partner, partner_prompts
        if partner_prompts is None and partner.prompt is not None:
            raise UserError("a partner with a prompt of its own was given token ids alone; ask with items (answers)")
        device = base.lm.device
        tokens = Tokens.between(base, partner.model) if isinstance(partner.model, Model) else None
        self.tokens = None if tokens is None else replace(tokens, theirs=tokens.theirs.to(device))
        self.never = torch.tensor(base.unlisted, dtype=torch.long, device=device)
        self.coefficients = torch.tensor([c for c, _ in settings.candidates], device=device)
        self.windows = tuple(w for _, w in settings.candidates)
        self.whole = 0 in self.windows
        self.index = torch.full((max(partner.vectors) + 1,), -1, device=device)
        self.index[list(partner.vectors)] = torch.arange(len(partner.vectors), device=device)
        bias = 0.0 if partner.bias is None else partner.bias.vector
        self.vectors = torch.stack([d.vector + bias for d in partner.vectors.values()]).to(device)
        self.heads = [placed(head, device) for head in (partner.heads or {}).values()]  # in the order of the vectors
        self.gate = placed(partner.gate, partner.lm(base).device if partner.gate.asks else device)
        bias_alone = None if partner.bias is None else partner.bias.vector
        self.others = exchanged(settings.control, self.vectors, bias_alone, settings.seed)
        self.uniform: Tensor | None = None  # of each row
        if settings.control in DRAWN:
            own = [RngStream.of(given, settings.seed) for given in rng_streams]
            self.uniform = torch.from_numpy(np.stack([one.uniform(settings.max_new_tokens) for one in own])).to(device)
        self.state: KVState | None = None
        self.thinking_model: ThinkingModel | None = None
        self.teacher_logits: Tensor | None = None  # the partner's logits after the prompts
        self.newest = Newest()  # the base's activations that the gate reads
        self.own = Newest()  # those that the heads read
        self.tail = torch.empty(0, dtype=torch.long)  # each row's last tokens; all of them where windows are whole
        self.count = torch.empty(0, dtype=torch.long)  # of the tokens that each row has steered
        self.step = 0
        self._moved = torch.empty(0)
        self._notes = torch.empty(0, dtype=torch.long)

    @contextmanager
    def joined(
        self, state: KVState, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Iterator[None]:
        self.state = state
        longest, limit = ids.shape[1] if self.whole else max(self.windows), self.settings.max_new_tokens
        self.tail = torch.nn.functional.pad(ids, (longest, 0))[:, -longest:]
        self.count = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        with ExitStack() as stack:
            if self.settings.asks(self.partner):
                put, seen = ids, mask
                if self.prompts is not None:
                    put, seen, _ = left_pad(self.prompts, ids.device)
                elif self.tokens is not None:
                    put = self.tokens.prompts(self.base, ids, mask)
                longest = put.shape[1] + limit
                ragged = not bool(seen.all())
                opened = thinking(self.partner, self.base, longest, limit, ragged=ragged)
                self.thinking_model = stack.enter_context(opened)
                self.teacher_logits = self.thinking_model.prefill(put, seen)
            if not self.partner.gate.asks:
                stack.enter_context(self.newest.on(self.base.lm, self.partner.gate.reads))
            stack.enter_context(self.own.on(self.base.lm, self.partner.site if self.heads else None))
            yield

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self._keep(question)
        if self.thinking_model is not None:
            self.thinking_model.state.fork(question.to(self.thinking_model.lm.device))

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        self._keep(rows)
        if self.thinking_model is not None:
            self.thinking_model.state.keep(rows.to(self.thinking_model.lm.device))

    def _keep(self, index: Int[Tensor, " rows"]) -> None:
        self.tail, self.count = self.tail[index], self.count[index]
        self.uniform = None if self.uniform is None else self.uniform[index]

    def moved(self) -> Float[Tensor, "rows 1"]:
        return self._moved[:, None]

    def notes(self) -> Int[Tensor, "rows 5"]:
        return self._notes

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        return self._choose(logits, top2(logits), 0, self.teacher_logits)[:, None]

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Rows, step: int) -> Int[Tensor, " rows"]:
        # What is read of the base comes before the partner's forward, which may run on the same modules.
        residual, own = self.newest.value, self.own.value
        last = self.tail[:, -1]
        last = last if self.tokens is None else self.tokens.to_partner(last).clamp(min=0)  # of rows that ended any
        teacher_logits = None if self.thinking_model is None else self.thinking_model.step(last)
        self.newest.value, self.own.value = residual, own
        return self._choose(logits, top, step, teacher_logits)

    def _choose(self, logits: Tensor, top: Top2, step: int, teacher_logits: Tensor | None) -> Int[Tensor, " rows"]:
        self.step = step
        base = top.argmax if self.tokens is None else top2(self._cut(logits)).argmax
        teacher = differs = None
        if teacher_logits is not None:
            teacher_logits = (
                without(teacher_logits, self.never) if self.tokens is None else self.tokens.base_logits(teacher_logits)
            )
            theirs = top2(teacher_logits)
            dtype = self.partner.lm(self.base).dtype
            check_largest(theirs.values[:, 0], dtype, f"the partner's logits of step {step}")
            teacher = theirs.argmax
            differs = teacher != base
        fires, category = self.gate.decide(GateInputs(logits, top, differs, self._residual()))
        uniform = torch.zeros(len(base), device=base.device) if self.uniform is None else self.uniform[:, step]
        control = self.settings.control
        if control == "random-position":
            fires = uniform < self.settings.share
        emitted, taken, tried = base.clone(), torch.zeros_like(base), torch.zeros_like(base)
        self._moved = torch.zeros(len(base), device=base.device)
        if control in DISTRIBUTIONS:
            assert teacher_logits is not None and teacher is not None and differs is not None
            instead = (
                top2(self._cut(logits).float() + teacher_logits.float()).argmax if control == "mixing" else teacher
            )
            here = differs & (uniform < self.settings.share) if control in SHARED else differs
            emitted = torch.where(here, instead, base)
            taken = -(emitted != base).long()
        else:
            known = (category >= 0) & (category < len(self.index))
            index = torch.where(known, self.index[category.clamp(0, len(self.index) - 1)], -1)
            steered = fires & (index >= 0)
            if self._selects and control not in ("random-position", "random-candidate"):
                assert differs is not None
                steered &= differs  # elsewhere the unsteered token is the partner's own, and nothing can beat it
            if control in OTHER_VECTORS and self.settings.share:
                steered &= self.count < math.ceil(self.settings.share * (step + 1))
            rows = steered.nonzero()[:, 0]
            if len(rows):
                tried[rows] = len(self.coefficients)
                asked = None if teacher_logits is None else teacher_logits[rows]
                emitted[rows], taken[rows], self._moved[rows] = self._steer(
                    rows, base[rows], index[rows], asked, uniform[rows]
                )
            if control in OTHER_VECTORS:
                tried += tried * (taken > 0)  # again with the other vector
        self.count = self.count + (taken > 0)
        none = torch.full_like(base, -1)
        self._notes = torch.stack(
            [
                none if differs is None else differs.long(),
                taken,
                torch.where(fires, category, none),
                none if teacher is None else (emitted == teacher).long(),
                tried + (teacher is not None),
            ],
            dim=1,
        )
        self.tail = torch.cat([self.tail if self.whole else self.tail[:, 1:], emitted[:, None]], dim=1)
        return emitted

    def _residual(self) -> Tensor | None:
        if not self.partner.gate.asks:
            return self.newest.value
        assert self.thinking_model is not None
        return self.thinking_model.newest.value

    @property
    def _selects(self) -> bool:
        return self.settings.select == "likelihood"

    def _cut(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows vocab"]:
        """The base's logits, of the tokens that both models know."""
        return without(logits, self.never) if self.tokens is None else self.tokens.emitted(logits)

    def _steer(
        self,
        rows: Int[Tensor, " rows"],
        base: Int[Tensor, " rows"],
        index: Int[Tensor, " rows"],
        teacher_logits: Float[Tensor, "rows vocab"] | None,
        uniform: Float[Tensor, " rows"],
    ) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"], Float[Tensor, " rows"]]:
        """The token of each of these rows, the number of its candidate, and how far that moved the position."""
        control = self.settings.control
        strength = self._strength(rows, index)
        tokens, moved = self._try(rows, self.vectors[index], strength)
        options = torch.cat([base[:, None], tokens], dim=1)
        if control == "random-candidate":
            taken = (uniform * options.shape[1]).long()
        elif control == "random-position":
            theirs = teacher_logits.gather(1, options[:, 1:]) if self._selects and teacher_logits is not None else None
            taken = steered_candidate(theirs, uniform / self.settings.share, self.settings.often)
        elif self._selects:
            assert teacher_logits is not None
            taken = teacher_logits.gather(1, options).argmax(dim=1)  # of equal ones the first
        else:
            taken = torch.ones_like(base)
        on = (taken > 0).nonzero()[:, 0]
        if control in OTHER_VECTORS and len(on):
            if control == "random-category":
                drawn = self.vectors[(uniform[on] * len(self.vectors)).long()]
                vectors = as_long_as(self.vectors[index[on]], drawn)
            else:
                assert self.others is not None
                vectors = self.others[index[on]]
            options[on, 1:], moved[on] = self._try(rows[on], vectors, strength[on])
        emitted = options.gather(1, taken[:, None])[:, 0]
        share = moved.gather(1, (taken - 1).clamp(min=0)[:, None])[:, 0]
        return emitted, taken, share * (taken > 0)

    def _strength(self, rows: Int[Tensor, " rows"], index: Int[Tensor, " rows"]) -> Float[Tensor, "rows candidates"]:
        """Each candidate's coefficient at these rows. Read before a look ahead, whose forward passes the same hook."""
        given = self.coefficients.expand(len(rows), -1)
        if not self.heads:
            return given
        assert self.own.value is not None
        h = self.own.value[rows]
        said = torch.stack([head(h) for head in self.heads]).gather(0, index[None])[0]
        return given * said[:, None]

    def _try(
        self,
        rows: Int[Tensor, " rows"],
        vectors: Float[Tensor, "rows d_model"],
        strength: Float[Tensor, "rows candidates"],
    ) -> tuple[Int[Tensor, "rows candidates"], Float[Tensor, "rows candidates"]]:
        """Each candidate's greedy token, and how far it moved the newest position: one forward."""
        assert self.state is not None
        delta = vectors[:, None] * strength[..., None]
        windows = tuple(w or self.tail.shape[1] for w in self.windows)
        peeked = self.state.peek(Candidates(rows, self.tail[rows], windows, delta, self.partner.site))
        top = top2(self._cut(peeked.logits).flatten(0, 1))
        met = f"the logits of a steered candidate of step {self.step}"
        check_largest(top.values[:, 0], self.base.lm.dtype, met, "give smaller coefficients")
        return top.argmax.view(peeked.moved.shape), peeked.moved
