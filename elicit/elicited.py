"""`Elicited`: a base model plus everything that was done to it, and how it answers a batch of questions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import Decoder, Greedy, Hybrid, decoder_to_dict
from elicit.decoding.decoders.partner import Partner
from elicit.decoding.loop import NOTES, Generation, Policy, Progress, StopRule, decode
from elicit.decoding.progress import Progress as RunProgress
from elicit.decoding.progress import Silent
from elicit.decoding.selection import SELECTABLE
from elicit.decoding.trace import Trace, filter_path, place, response_text, rounded
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.answers import Answer, Kind, find_answer
from elicit.tasks.base import Item, Items
from probes.errors import UserError, unknown
from probes.finite import NotFiniteError, told_of
from probes.offsets import decoded
from steering.adapters import Adapter, applied
from steering.hooks import Session, attached, check_plan
from steering.interventions import Add, Plan, ProjectOut

ANSWER_PROMPT = "\nSo the answer is"
ANSWER_TOKENS = 24
TOGETHER = 64  # questions of `answers` in one batch
SPANS = ("last", "prompted")


@dataclass(frozen=True)
class Elicited:
    """A model with a prompt, an adapter, interventions, a decoder and a rule that chooses among its branches.

    Args:
        model: the base.
        method: the name of the mechanism or baseline that made this.
        prompt: how questions are put.
        decoder: how tokens are chosen.
        select: one of `elicit.decoding.selection.SELECTABLE`.
        span: where the answer is looked for: `last` on the path itself, or `prompted`: the path is
            continued with "So the answer is", and the answer given there is found back on the path
            (arXiv 2402.10200, section 2.2).
        filters: whether the paper's filters take paths out of the selection.
        adapter: a PEFT adapter on the base.
        interventions: what is done to activations, in this order. The continuation that `span="prompted"` asks for is
            read unsteered: steps would have no meaning in it.
        partner: who decides when the base is steered, and with what; with `Hybrid` decoding, and only with it.
        options: the options of the method that made it, for the record.
        fitted: what that method read when it was fitted, for its controls; it is not saved, and read again without it.
    """

    model: Model
    method: str
    prompt: Prompt = field(default_factory=Prompt)
    decoder: Decoder = field(default_factory=Greedy)
    select: str = "greedy"
    span: str = "last"
    filters: bool = False
    adapter: Adapter | None = None
    interventions: Plan = ()
    partner: Partner | None = None
    options: dict[str, Any] = field(default_factory=dict)
    fitted: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.select not in SELECTABLE:
            raise unknown("selection", self.select, SELECTABLE)
        if self.span not in SPANS:
            raise unknown("span", self.span, SPANS)
        check_plan(self.model.lm, self.interventions)
        self._check_partner()

    def _check_partner(self) -> None:
        if self.partner is None:
            if isinstance(self.decoder, Hybrid):
                raise UserError("hybrid decoding was given without a partner; give Elicited(partner=…) one")
            return
        if not isinstance(self.decoder, Hybrid):
            raise UserError(
                f"a partner was given to {type(self.decoder).__name__} decoding; decode with Hybrid, or leave it out"
            )
        if self.interventions:
            raise UserError("interventions and a partner were given; hybrid decoding steers by its vectors alone")
        if self.adapter is not None and self.partner.model is not None and self.partner.lm(self.model) is self.model.lm:
            raise UserError("base and partner share weights and the base has an adapter on; load the partner by itself")
        self.partner.check(self.model)
        self.decoder.check(self.partner)

    def prompt_ids(self, item: Item) -> list[int]:
        return self.prompt.ids(item.question, self.model.tokenizer)

    def answer(self, items: Items, progress: Progress | None = None) -> list[list[Trace]]:
        """Answer the questions in one batch: for each its branches, graded.

        Raises:
            UserError: interventions that moved nothing. (A gate may be shut for a batch, and answers may end before a
                later step: `elicit.evaluation.delivery` looks at the whole run.)
        """
        (traces,) = answer_together([(self, items)], progress)
        return traces

    def answers(self, items: Items, progress: RunProgress | None = None) -> list[list[Trace]]:
        """Answer any number of questions, batch after batch; told of as an arm of the method's name.

        Raises:
            UserError: as `answer`.
        """
        told = progress or Silent()
        told.arm(self.method, len(items), 0)
        out: list[list[Trace]] = []
        for start in range(0, len(items), TOGETHER):
            some = self.answer(items[start : start + TOGETHER], told.step)
            told.advance(len(some), sum(trace.spent for traces in some for trace in traces))
            out += some
        return out

    def _traces(
        self, items: Items, prompts: Sequence[list[int]], generations: Sequence[list[Generation]]
    ) -> list[list[Trace]]:
        """What was generated, read and graded; the adapter is on."""
        flat = [(q, g) for q, branches in enumerate(generations) for g in branches]
        texts = [response_text(self.model.tokenizer, g, self.prompt.stop) for _, g in flat]
        kinds = [items.task.kind_of(items[q]) for q, _ in flat]
        found: list[Answer | None] = [find_answer(text, kind) for (text, _), kind in zip(texts, kinds, strict=True)]
        extra = [0] * len(flat)
        if self.span == "prompted":
            paths = [prompts[q] + g.tokens.tolist() for q, g in flat]
            found, extra = self._prompted([t for t, _ in texts], paths, kinds)
        traces: list[list[Trace]] = [[] for _ in items]
        for (q, g), (text, ends), answer, more in zip(flat, texts, found, extra, strict=True):
            traces[q].append(self._trace(items, q, len(traces[q]), len(prompts[q]), g, text, ends, answer, more))
        return traces

    def _trace(
        self,
        items: Items,
        question: int,
        branch: int,
        prompt_tokens: int,
        generation: Generation,
        text: str,
        ends: list[int],
        found: Answer | None,
        extra: int,
    ) -> Trace:
        item = items[question]
        span, delta = place(generation, ends, found)
        answer = found.text if found else None
        dropped = filter_path(text, generation.finish, answer)
        grade = items.task.grader.grade(item, answer)
        notes = {} if generation.notes is None else dict(zip(NOTES, generation.notes.T.tolist(), strict=True))
        return Trace(
            item=item.id,
            index=self.decoder.first_sample + branch if hasattr(self.decoder, "first_sample") else branch,
            prompt_tokens=prompt_tokens,
            tokens=generation.tokens.tolist(),
            ends=ends,
            text=text,
            top1=rounded(generation.top1),
            top2=rounded(generation.top2),
            entropy=rounded(generation.entropy),
            logprob=rounded(generation.logprob),
            finish=generation.finish,
            spent=generation.spent + extra,
            answer=answer,
            span=span,
            delta=delta,
            dropped=dropped if self.filters or answer is None else "",
            score=grade.score,
            moved=rounded(generation.moved) if self.interventions or self.partner is not None else [],
            prompt_moved=generation.prompt_moved,
            unjudged=grade.unjudged,
            **notes,
        )

    def _prompted(
        self, texts: Sequence[str], paths: Sequence[list[int]], kinds: Sequence[Kind]
    ) -> tuple[list[Answer | None], list[int]]:
        """Ask every path for its answer, and find what it says back on the path (its last occurrence)."""
        said = ask(self.model, paths, kinds)
        found: list[Answer | None] = []
        for text, (answer, _) in zip(texts, said, strict=True):
            start = text.rfind(answer) if answer is not None else -1
            found.append(Answer(answer, start, start + len(answer)) if answer is not None and start >= 0 else None)
        return found, [spent for _, spent in said]

    @property
    def batch_key(self) -> str:
        """A hash of all that handles must have in common to be decoded together (`answer_together`).

        Prompts and interventions are a row's own. What hybrid decoding does is not: its policy serves one handle.
        """
        adapter = None if self.adapter is None else self.adapter.sha256
        alone = None if self.partner is None else self.decode_key
        shared = [decoder_to_dict(self.decoder), self.prompt.stop, adapter, alone]
        return _hash([shared, self.model.provenance.sha256, self.model.dtype])

    @property
    def decode_key(self) -> str:
        """A hash of all that decides the traces: two handles that differ only in `select` share it."""
        left_out = ("method", "select", "options", "model", "partner")
        data = {k: v for k, v in self.to_dict().items() if k not in left_out}
        if self.partner is not None:
            data["partner"] = self.partner.digest
        return _hash([data, self.model.provenance.sha256, self.model.dtype])

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tensors."""
        data: dict[str, Any] = {
            "method": self.method,
            "model": self.model.describe(),
            "prompt": self.prompt.to_dict(),
            "decoder": decoder_to_dict(self.decoder),
            "select": self.select,
            "span": self.span,
            "filters": self.filters,
            "options": self.options,
        }
        if self.adapter is not None:
            data["adapter"] = self.adapter.sha256
        if self.interventions:
            data["interventions"] = [one.describe() for one in self.interventions]
        if self.partner is not None:
            data["partner"] = self.partner.describe()
        return data

    def save(self, folder: Path | str) -> Path:
        """Write the handle as a bundle; see `elicit.bundle`."""
        from elicit.bundle import save

        return save(self, folder)

    @staticmethod
    def load(folder: Path | str, model: Model | None = None, partner: Model | None = None) -> Elicited:
        """Read a bundle; see `elicit.bundle`."""
        from elicit.bundle import load

        return load(folder, model, partner)


def ask(
    model: Model, paths: Sequence[Sequence[int]], kinds: Sequence[Kind], steering: Session | None = None
) -> list[tuple[str | None, int]]:
    """Ask every path for its answer: what is said after "So the answer is", and the tokens that it took."""
    tokenizer = model.tokenizer
    question = list(tokenizer(ANSWER_PROMPT, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
    continued = decode(
        model.lm,
        [[*path, *question] for path in paths],
        Greedy().policy([""] * len(paths), model.vocab_size),
        max_new_tokens=ANSWER_TOKENS,
        stop=StopRule(model.eos_ids, ("\n",), tokenizer),
        steering=steering,
    )
    out: list[tuple[str | None, int]] = []
    for (generation,), kind in zip(continued, kinds, strict=True):
        reply = decoded(tokenizer, generation.tokens.tolist()).split("\n")[0].split(". ")[0]
        said = find_answer(f"answer is {reply}", kind)
        out.append((said.text if said else None, generation.spent))
    return out


Asked = Sequence[tuple[Elicited, Items]]
"""Handles that share a `batch_key`, each with the questions that it is asked."""


def answer_together(asked: Asked, progress: Progress | None = None) -> list[list[list[Trace]]]:
    """Answer in one batch what several handles are asked, each row with the prompt and the plan of its own handle.

    Rows do not see each other: up to the rounding of the model's dtype every handle answers as it does alone.

    Returns:
        For each handle and question the branches, graded.

    Raises:
        UserError: as `Elicited.answer`, of any of the handles.
        NotFiniteError: logits that are NaN or infinite, with the handle's method.
    """
    if len({handle.batch_key for handle, _ in asked}) != 1:
        raise ValueError("handles with one batch_key are decoded together; give at least one, and no others")
    first, _ = asked[0]
    prompts = [[handle.prompt_ids(item) for item in items] for handle, items in asked]
    with applied(first.model.lm, first.adapter):
        generations = iter(_decode(asked, [ids for some in prompts for ids in some], progress))
        out = []
        for (handle, items), some in zip(asked, prompts, strict=True):
            with told_of(handle.method):
                out.append(handle._traces(items, some, [next(generations) for _ in items]))
        return out


def _decode(asked: Asked, prompts: list[list[int]], progress: Progress | None) -> list[list[Generation]]:
    first, _ = asked[0]
    model, decoder = first.model, first.decoder
    ids = [item.id for _, items in asked for item in items]
    if first.partner is not None:
        assert isinstance(decoder, Hybrid)
        policy: Policy = decoder.joint(model, first.partner, ids)
    else:
        policy = decoder.policy(ids, model.vocab_size)
    limit, stop = decoder.max_new_tokens, StopRule(model.eos_ids, first.prompt.stop, model.tokenizer)
    plans = [handle.interventions for handle, _ in asked]
    of_row = [number for number, (_, items) in enumerate(asked) for _ in items]
    steered = attached(model.lm, plans, of_row=of_row) if any(plans) else nullcontext()
    with steered as session:
        try:
            out = decode(
                model.lm, prompts, policy, max_new_tokens=limit, stop=stop, steering=session, progress=progress
            )
        except NotFiniteError as error:
            number = of_row[error.row]
            raise error.of(asked[number][0].method, _cure(plans[number], session, number)) from None
    for number, plan in enumerate(plans):
        if not plan or session is None:
            continue
        delivery = session.editor.delivery(number)
        # These move every row. A feature that is silent leaves nothing to scale: of that one batch says nothing.
        sure = any(one.when.at_once and isinstance(one.what, Add | ProjectOut) for one in plan)
        if delivery.not_finite or (sure and not delivery.positions):
            delivery.check(_named(plan))
    return out


def _named(plan: Plan) -> str:
    return "the intervention " + " + ".join(f"{one.describe()['source']} × {one.strength:g}" for one in plan)


def _cure(plan: Plan, session: Session | None, number: int) -> str:
    """What helps a steered row, or "" where the dtype is to be told."""
    if not plan or session is None:
        return ""
    if session.editor.delivery(number).not_finite:
        try:
            session.editor.delivery(number).check(_named(plan))
        except UserError as error:
            return str(error)
    return f"lower the strength of {_named(plan)}, or give dtype bfloat16 or float32"


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
