"""`Elicited`: a base model plus everything that was done to it, how it answers questions, and its bundle on disk.

    elicited.json             method, prompt, decoder, selection; the base with its hash, its tokenizer's, its shape;
                              the hashes of all that follows, and its own
    interventions.json        what × where × when × strength, with norm conventions, centring means, gates
    interventions.safetensors their tensors
    adapter/                  as PEFT saves it
    model/                    instead of it all weights, where a training changed them all, as safetensors
    mixing.json, .safetensors  quiet decoding's learned tokens and mixing head
    partner.json, .safetensors, partner/   hybrid decoding's vectors and gate; its adapter, where it is one

The base is named, not copied, and so is a partner that is a model. Given another base, a bundle works only where it
fits: interventions and vectors need the same tokenizer, width and depth; what was trained needs its own base.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from elicit.decoding.answering import Draft, asked_again, graded, respond
from elicit.decoding.decoders import (
    Branching,
    Decoder,
    Greedy,
    Hybrid,
    Quiet,
    RngStream,
    decoder_from_dict,
    decoder_to_dict,
)  # fmt: skip
from elicit.decoding.decoders.partner import HybridSteering
from elicit.decoding.engine import STATISTICS, Batch, check_engine
from elicit.decoding.loop import Listener, OnStep, StopRule
from elicit.decoding.mixing import Mixing
from elicit.decoding.progress import Progress, Silent
from elicit.decoding.selection import SELECTABLE, Verdict, select
from elicit.decoding.trace import Trace
from elicit.models.model import MODEL, Model, load_same
from elicit.models.prompts import Prompt
from elicit.tasks.answers import Kind
from elicit.tasks.base import Grader, Item, Items, Task
from elicit.tasks.free_text import Ungraded
from elicit.tasks.grading import grader_for
from probes.errors import UserError, as_expected, unknown
from probes.files import inner_folder, make_folder, sha256_of, whole
from probes.finite import errors_of
from probes.given import PATH, Meant, described, takes
from probes.sealed import read_sealed, write_sealed
from probes.sites import depth, width
from steering import storage
from steering.adapters import CONFIG, WEIGHTS, WHOLE_FILES, Adapter, Tuned, Weights
from steering.hooks import check_plan
from steering.interventions import Plan

TOGETHER = 64  # questions of `answers` in one batch
SPANS = ("last", "prompted")
FILE, PLAN, ADAPTER, PARTNER, MIXING = "elicited.json", "interventions", "adapter", "partner", "mixing"
WHOLE = "model"


ITEMS = Meant((Items,), "items of a task, like task.test[:4]; chosen ones are elicit.tasks.Items(task, (item, …))")


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
        adapter: what a training made of the base: a PEFT adapter on it, or all of its weights.
        interventions: what is done to activations, in this order. The continuation that `span="prompted"` asks for is
            read unsteered: steps would have no meaning in it.
        partner: who decides when the base is steered, and with what; with `Hybrid` decoding, and only with it.
        mixing: what mixes the predictions after thoughts with those without; with `Quiet` decoding, and only with it.
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
    adapter: Tuned | None = None
    interventions: Plan = ()
    partner: HybridSteering | None = None
    mixing: Mixing | None = None
    options: dict[str, Any] = field(default_factory=dict)
    fitted: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        MODEL.taken("model", self.model)
        Meant((Prompt,), "a Prompt of elicit.models, e.g. handle.prompt").taken("prompt", self.prompt)
        if isinstance(self.decoder, str) or not hasattr(self.decoder, "max_new_tokens"):
            given = described(self.decoder)
            raise UserError(f"{given} was given as decoder; give one of elicit.decoding.decoders, e.g. Greedy()")
        if not isinstance(self.interventions, Sequence) or isinstance(self.interventions, str):
            given = described(self.interventions)
            raise UserError(f"{given} was given as interventions; give a list of steering.interventions.Intervention")
        if self.select not in SELECTABLE:
            raise unknown("selection", self.select, SELECTABLE)
        if self.span not in SPANS:
            raise unknown("span", self.span, SPANS)
        check_engine(self.model.engine)
        check_plan(self.model.lm, self.interventions)
        if isinstance(self.adapter, Adapter):
            self.adapter.warn_of_base(self.model.name)
        self._check_partner()
        if (self.mixing is None) == isinstance(self.decoder, Quiet):
            raise UserError("quiet decoding and a mixing head were not given together; give both, or none")
        if self.mixing is not None:
            self.mixing.check(self.model.lm)

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

    def partner_prompts(self, items: Items) -> list[list[int]] | None:
        """How the questions are put to a partner that has a prompt of its own."""
        asked = [item.question for item in items]
        return self.partner.prompt_ids(self.model, asked, self.decoder.max_new_tokens) if self.partner else None

    def begun(self, items: Items) -> list[str]:
        """For each question the mark of the thought that its prompt ends in, or ""."""
        return [self.prompt.begun(item.question, self.model.tokenizer) for item in items]

    @takes(items=ITEMS)
    def answer(self, items: Items, on_step: OnStep | None = None) -> list[list[Trace]]:
        """Answer the questions in one batch: for each its branches, graded.

        Raises:
            UserError: interventions that moved nothing. (A gate may be shut for a batch, and answers may end before a
                later step: `elicit.evaluation.delivery` looks at the whole run.)
        """
        (traces,) = answer_together([(self, items)], on_step)
        return traces

    @takes(items=ITEMS)
    def answers(self, items: Items, progress: Progress | None = None) -> list[list[Trace]]:
        """Answer any number of questions, batch after batch; progress is reported under the method's name.

        Raises:
            UserError: as `answer`.
        """
        progress = progress or Silent()
        progress.arm(self.method, len(items), 0)
        out: list[list[Trace]] = []
        for start in range(0, len(items), TOGETHER):
            some = self.answer(items[start : start + TOGETHER], progress.step)
            progress.advance(len(some), sum(trace.spent for traces in some for trace in traces))
            out += some
        return out

    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        kinds: Sequence[Kind],
        rng_streams: Sequence[RngStream | str],
        *,
        limit: int | None = None,
        stop: Sequence[str] | StopRule | None = None,
        begun: Sequence[str] | None = None,
        on_step: OnStep | None = None,
        partner_prompts: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Draft]]:
        """Answer prompts in one batch: for each its branches, ungraded.

        Args:
            prompts: token ids of each.
            kinds: of the answer that is looked for in what is said, one a prompt.
            rng_streams: where each prompt's random numbers come from, or an id (see
                `elicit.decoding.decoders.RngStream`).
            limit: of new tokens; the decoder's own unless given.
            stop: strings at which an answer ends, or all that ends one; the prompt's own unless given.
            begun: for each prompt the mark of the thought that it ends in, or "" (`Prompt.begun`).
            on_step: called after every step.
            partner_prompts: token ids of each as a partner with a prompt of its own is asked.

        Raises:
            UserError: as `answer`; a partner with a prompt of its own that is not asked by it.
        """
        (drafts,) = respond_together(
            [(self, prompts, rng_streams)], [kinds], limit=limit, stop=stop, begun=begun, on_step=on_step,
            partner_prompts=partner_prompts,
        )  # fmt: skip
        return drafts

    @property
    def has_forward(self) -> bool:
        """Whether one forward over a given text says what it would have done with it."""
        return self.partner is None and self.mixing is None

    @property
    def _needs(self) -> frozenset[str]:
        """The statistics that its traces hold; how far tokens were moved only where anything moves them."""
        unmoved = not self.interventions and self.partner is None
        return frozenset(STATISTICS) - ({"moved"} if unmoved else set())

    def _found(
        self, prompts: Sequence[Sequence[int]], kinds: Sequence[Kind], drafts: Sequence[list[Draft]]
    ) -> list[list[Draft]]:
        """The drafts with the answers that it looks for."""
        with errors_of(self.method):
            if self.span == "prompted":
                return asked_again(self.model, prompts, drafts, kinds, self.adapter)
            return list(drafts)

    def _graded(self, items: Items, drafts: Sequence[list[Draft]]) -> list[list[Trace]]:
        branching = isinstance(self.decoder, Branching)
        how = {"filters": self.filters, "steered": "moved" in self._needs, "branching": branching}
        pairs = zip(items, drafts, strict=True)
        return [[graded(one, items.task, item, **how) for one in some] for item, some in pairs]

    def chosen(
        self, drafts: Sequence[Draft], kind: Kind, *, item: str = "", grader: Grader | None = None
    ) -> tuple[list[Trace], Verdict]:
        """The branches of one question that nobody grades here, and what the handle's selection takes among them.

        Args:
            drafts: in their order.
            kind: of the answer that was looked for.
            item: the question's id.
            grader: says which answers are equivalent; that of the kind unless given.
        """
        asked = Item(item, "", None, "test", kind=kind)
        (traces,) = self._graded(Items(Task("", (asked,), Ungraded(), kind, {}), (asked,)), [list(drafts)])
        return traces, select(self.select, traces, grader or grader_for(kind))

    @property
    def batch_key(self) -> str:
        """A hash of all that handles must have in common to be decoded together (`answer_together`).

        Prompts and interventions are a row's own. What hybrid decoding does is not: its policy serves one handle.
        """
        adapter = None if self.adapter is None else self.adapter.sha256
        alone = None if self.partner is None else self.decode_key
        shared: list[Any] = [decoder_to_dict(self.decoder), self.prompt.stop, adapter, alone]
        if self.mixing is not None:
            shared.append(self.mixing.digest)
        if self.prompt.thought_tokens:
            shared.append(self.prompt.thought_tokens)
        return _hash([shared, *self._model_key])

    @property
    def _model_key(self) -> list[str]:
        """What of the model decides the traces; its engine where it is not the reference."""
        model = self.model
        return [model.provenance.sha256, model.dtype, *([] if model.engine == "hf" else [model.engine])]

    @property
    def decode_key(self) -> str:
        """A hash of all that decides the traces: two handles that differ only in `select` share it."""
        left_out = ("method", "select", "options", "model", "partner")
        data = {k: v for k, v in self.to_dict().items() if k not in left_out}
        if self.partner is not None:
            data["partner"] = self.partner.digest
        return _hash([data, *self._model_key])

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
            data["adapter" if isinstance(self.adapter, Adapter) else "weights"] = self.adapter.sha256
        if self.interventions:
            data["interventions"] = [one.describe() for one in self.interventions]
        if self.partner is not None:
            data["partner"] = self.partner.describe()
        if self.mixing is not None:
            data["mixing"] = self.mixing.digest
        return data

    @takes(folder=PATH)
    def save(self, folder: Path | str) -> Path:
        """Write the handle as a bundle; `elicited.json` comes last and makes it one.

        Raises:
            UserError: the folder cannot be made, or holds another training than a bundle's; a link where a folder goes.
        """
        folder = make_folder(Path(folder))
        if self.interventions:
            storage.write(folder, PLAN, self.interventions)
        if self.adapter is not None:
            _copy(self.adapter, folder / (ADAPTER if isinstance(self.adapter, Adapter) else WHOLE))
        if self.partner is not None:
            storage.write(folder, PARTNER, self.partner.data)
            if isinstance(self.partner.model, Adapter):
                _copy(self.partner.model, folder / PARTNER)
        if self.mixing is not None:
            storage.write(folder, MIXING, self.mixing)
        lm = self.model.lm
        fits = {"tokenizer": self.model.tokenizer_sha256, "d_model": width(lm), "n_layers": depth(lm)}
        write_sealed(folder / FILE, {**self.to_dict(), "fits": fits})
        return folder

    @staticmethod
    @takes(folder=PATH, model=MODEL, partner=MODEL)
    def load(folder: Path | str, model: Model | None = None, partner: Model | None = None) -> Elicited:
        """Read a bundle; its base, and a partner that is a model, are loaded by name unless they are given.

        Raises:
            UserError: no bundle there, a file of it cut, changed or mixed with another's, a model that it does not fit.
        """
        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise UserError(f"{str(folder)!r} holds no {FILE}; give the elicited/ folder of a run")
        data, sealed = read_sealed(folder / FILE, "save the bundle again")
        if not sealed:
            warnings.warn(f"bundles of older versions, as {str(folder)!r}, keep no hash of their {FILE}", stacklevel=2)
        broken = repr(str(folder / FILE)), "save the bundle again"
        with as_expected(*broken):
            about = {key: str(data["model"][key]) for key in ("name", "sha256")}
        model = _named({**data["model"], **about}, model)
        with as_expected(*broken):
            return Elicited._of(folder, data, model, partner)

    @staticmethod
    def _of(folder: Path, data: dict[str, Any], model: Model, partner: Model | None) -> Elicited:
        plan, adapter, mixing = parts_of(folder, data)
        steering = _partner(folder, data["partner"], partner) if "partner" in data else None
        adapted = (
            adapter is not None or mixing is not None or (steering is not None and isinstance(steering.model, Adapter))
        )
        _check_fit(data, model, bool(plan) or steering is not None, adapted)
        return Elicited(
            model=model,
            method=data["method"],
            prompt=Prompt.from_dict(data["prompt"]),
            decoder=decoder_from_dict(data["decoder"]),
            select=data["select"],
            span=data["span"],
            filters=data["filters"],
            adapter=adapter,
            interventions=tuple(plan),
            partner=steering,
            mixing=mixing,
            options=data["options"],
        )


Put = Sequence[tuple[Elicited, Sequence[Sequence[int]], Sequence[RngStream | str]]]
"""Handles that share a `batch_key`, each with prompts and their random streams."""
Asked = Sequence[tuple[Elicited, Items]]
"""Handles that share a `batch_key`, each with the questions that it is asked."""


def answer_together(
    asked: Asked,
    on_step: OnStep | None = None,
    rows_at_once: int | None = None,
    *,
    rng_streams: Sequence[Sequence[RngStream]] | None = None,
    budgets: Sequence[int] | None = None,
) -> list[list[list[Trace]]]:
    """Answer in one batch what several handles are asked, each row with the prompt and the plan of its own handle.

    Rows do not see each other: up to the rounding of the model's dtype every handle answers as it does alone.

    Args:
        asked: handles with their items.
        on_step: called after every step.
        rows_at_once: see `Batch`.
        rng_streams: for each handle and question where its random numbers come from; the decoder's own unless given.
        budgets: see `Batch`; of all questions of the first handle, then of the next.

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
    kinds = [[items.task.kind_of(item) for item in items] for _, items in asked]
    streams: Sequence[Sequence[RngStream | str]] = rng_streams or [[item.id for item in items] for _, items in asked]
    rows = [(h, some, own) for (h, _), some, own in zip(asked, prompts, streams, strict=True)]
    # With a partner it shares its batch with no other.
    batch = _batch(rows, partner_prompts=first.partner_prompts(asked[0][1]))
    questions = [(item.question, handle.prompt) for handle, items in asked for item in items]
    batch = replace(batch, rows_at_once=rows_at_once, budgets=budgets, questions=questions)
    begun = [mark for handle, items in asked for mark in handle.begun(items)]
    drafts = iter(respond(first.model, batch, [kind for some in kinds for kind in some], on_step, begun))
    return [
        handle._graded(items, handle._found(put, some, [next(drafts) for _ in items]))
        for (handle, items), put, some in zip(asked, prompts, kinds, strict=True)
    ]


def respond_together(
    put: Put,
    kinds: Sequence[Sequence[Kind]],
    *,
    limit: int | None = None,
    stop: Sequence[str] | StopRule | None = None,
    begun: Sequence[str] | None = None,
    on_step: OnStep | None = None,
    partner_prompts: Sequence[Sequence[int]] | None = None,
    listeners: Sequence[Listener] | None = None,
) -> list[list[list[Draft]]]:
    """Answer in one batch prompts that are put to several handles: for each handle and prompt the branches, ungraded.

    Args:
        put: handles that share a `batch_key`, each with the token ids of its prompts and their streams.
        kinds: of the answer that is looked for, for each handle one a prompt.
        limit, stop, begun, on_step, partner_prompts: as `Elicited.respond`; of all prompts, in their order.
        listeners: who waits for the answer to each prompt, and is told what is written.

    Raises:
        UserError: as `Elicited.respond`, of any of the handles.
    """
    batch = replace(_batch(put, limit, stop, partner_prompts), listeners=listeners)
    drafts = iter(respond(put[0][0].model, batch, [kind for some in kinds for kind in some], on_step, begun))
    return [
        handle._found(prompts, some, [next(drafts) for _ in prompts])
        for (handle, prompts, _), some in zip(put, kinds, strict=True)
    ]


def _batch(
    put: Put,
    limit: int | None = None,
    stop: Sequence[str] | StopRule | None = None,
    partner_prompts: Sequence[Sequence[int]] | None = None,
) -> Batch:
    """Handles that share a `batch_key`, each with its prompts and their streams."""
    first, *_ = (handle for handle, _, _ in put)
    model = first.model
    if not isinstance(stop, StopRule):
        ends = first.prompt.stop if stop is None else tuple(stop)
        stop = StopRule(model.eos_ids, ends, model.tokenizer, thought_tokens=first.prompt.thought_tokens)
    return Batch(
        prompts=[ids for _, prompts, _ in put for ids in prompts],
        rng_streams=[one for _, _, rng_streams in put for one in rng_streams],
        decoder=first.decoder if limit is None else replace(first.decoder, max_new_tokens=limit),  # type: ignore[type-var]
        stop=stop,
        arms=[(handle.method, handle.interventions) for handle, _, _ in put],
        arm_of=[number for number, (_, prompts, _) in enumerate(put) for _ in prompts],
        adapter=first.adapter,
        partner=first.partner,
        mixing=first.mixing,
        partner_prompts=partner_prompts,
        needs=frozenset(name for handle, _, _ in put for name in handle._needs),
    )


def _copy(tuned: Tuned, folder: Path) -> None:
    if tuned.folder.resolve() == folder.resolve():
        return
    inner_folder(folder)
    names = (WEIGHTS, CONFIG) if isinstance(tuned, Adapter) else WHOLE_FILES
    files = {folder / name: tuned.folder / name for name in names}
    if not (folder.parent / FILE).is_file():
        for path, source in files.items():  # what an interrupted call left is the same
            if path.exists() and sha256_of(path) != sha256_of(source):
                raise UserError(
                    f"{str(folder)!r} holds another adapter or model and is of no bundle; give another folder"
                )
    for path, source in files.items():
        with whole(path) as part:
            shutil.copyfile(source, part)


def parts_of(folder: Path, data: Mapping[str, Any]) -> tuple[Plan, Tuned | None, Any]:
    """The plan, what was trained and the mixing head of a bundle, as its `FILE` names them; no model is needed.

    Raises:
        UserError: a file that is missing, cut, changed or another's.
    """
    plan = storage.read(folder, PLAN) if data.get("interventions") else ()
    if [one.digest for one in plan] != [one["digest"] for one in data.get("interventions", [])]:
        raise UserError(f"the interventions in {str(folder)!r} are not those that {FILE} names; save the bundle again")
    tuned: Tuned | None = _adapter(folder / ADAPTER, data["adapter"]) if "adapter" in data else None
    if "weights" in data:
        tuned = _same(Weights(folder / WHOLE), data["weights"])
    mixing = storage.read(folder, MIXING) if "mixing" in data else None
    if mixing is not None and getattr(mixing, "digest", None) != data["mixing"]:
        raise UserError(f"the mixing head in {str(folder)!r} is not the one that {FILE} names; save the bundle again")
    return plan, tuned, mixing


def _adapter(folder: Path, sha256: str) -> Adapter:
    adapter = Adapter(folder)
    _same(adapter, sha256)
    return adapter


def _same(tuned: Tuned, sha256: str) -> Tuned:
    """What a bundle names.

    Raises:
        UserError: another training lies there.
    """
    if tuned.sha256 != sha256:
        what = "adapter" if isinstance(tuned, Adapter) else "model"
        raise UserError(f"the {what} in {str(tuned.folder)!r} is not the one that {FILE} names; save the bundle again")
    return tuned


def _named(wanted: dict[str, Any], model: Model | None) -> Model:
    """The model given, or the one of this name, if it is still the same."""
    if model is not None:
        return model
    return load_same(wanted, "the bundle", "give the model to load it on")


def _partner(folder: Path, about: dict[str, Any], model: Model | None) -> HybridSteering:
    data = storage.read(folder, PARTNER)
    thinking: Model | Adapter | None = None
    if "model" in about:
        thinking = _named(about["model"], model)
    elif "adapter" in about:
        thinking = _adapter(folder / PARTNER, about["adapter"])
    vectors, heads = ({int(c): one for c, one in (data.get(name) or {}).items()} for name in ("vectors", "heads"))
    prompt = Prompt.from_dict(about["prompt"]) if "prompt" in about else None
    partner = HybridSteering(vectors, data["gate"], thinking, data["bias"], heads or None, prompt)
    if partner.digest != about["digest"]:
        raise UserError(f"the partner in {str(folder)!r} is not the one that {FILE} names; give the model it had")
    return partner


def _check_fit(data: dict[str, Any], model: Model, steered: bool, adapted: bool) -> None:
    wanted = data["model"]
    made_for = f"the bundle was made for {wanted['name']} {wanted['sha256'][:12]}…"
    if model.provenance.sha256 == wanted["sha256"]:
        return
    if adapted:
        raise UserError(f"{made_for} and holds a training of it, which fits no other weights; load that model")
    if not steered:
        return
    fits = data["fits"]
    for name, here in (("d_model", width(model.lm)), ("n_layers", depth(model.lm))):
        if fits[name] != here:
            raise UserError(f"{made_for} with {name} {fits[name]}, {model.name} has {here}; load a model of its shape")
    if fits["tokenizer"] != model.tokenizer_sha256:
        raise UserError(f"{made_for} with another tokenizer than {model.name}'s; load a model of the same family")


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


HANDLE = Meant((Elicited,), "what the fit of a method returns")
