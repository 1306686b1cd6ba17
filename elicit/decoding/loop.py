"""The one decoding loop: prefill once, fork, step all rows together, drop the finished ones.

A `Policy` chooses tokens; the loop does everything else. For each emitted token it keeps the top-2
probabilities, the entropy and the log-probability of the model's own distribution (`probes.confidence`)
and never the logits. Which questions share a batch changes no random number (see `elicit.decoding.decoders.sampling`)
and, up to the rounding of the model's dtype, no token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.cache import PADDED, KVState, open_state
from elicit.decoding.packed_weights import packed
from elicit.decoding.parts import Part, of_one_length, without
from elicit.decoding.ready import check_prompts
from elicit.decoding.trial import way_of
from probes.batching import left_pad
from probes.capture import Recorder
from probes.confidence import Top2, token_statistics, top2
from probes.errors import UserError
from probes.finite import NotFiniteError, extremes
from probes.offsets import decoded
from steering.hooks import Session

# Rows that have finished are computed along until an eighth of the batch is dead: dropping copies the cache.
DEAD_SHARE = 1 / 8
NOTES = ("differs", "taken", "category", "copied")  # what a `TwoModelPolicy` notes of each token


@dataclass(frozen=True)
class Rows:
    """Which rows a step computes: row r is branch `branch[r]` of question `question[r]` of the batch."""

    question: Int[np.ndarray, " rows"]
    branch: Int[np.ndarray, " rows"]


@runtime_checkable
class Policy(Protocol):
    """How tokens are chosen. One instance serves one batch."""

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        """The first token of every branch, from the logits after each prompt."""
        ...

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Rows, step: int) -> Int[Tensor, " rows"]:
        """The next token of every row; `step` counts generated tokens, the first one is step 0."""
        ...


@runtime_checkable
class RowObserver(Protocol):
    """Something that keeps a value for each row, and follows which rows there are."""

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        """Row r continues prompt `question[r]`."""
        ...

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows continue."""
        ...


@runtime_checkable
class TwoModelPolicy(Policy, RowObserver, Protocol):
    """A policy of one branch that looks at the base's cache, and may run a second model beside it.

    The statistics that the loop keeps are the base's own, whatever the policy does.
    """

    def joined(
        self, state: KVState, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> AbstractContextManager[None]:
        """Entered before the base's prefill of these prompts, left when the batch is done."""
        ...

    def moved(self) -> Float[Tensor, "rows 1"]:
        """How far the position that chose each of the last tokens was moved (‖Δh‖ / ‖h‖), 0 where it was not."""
        ...

    def notes(self) -> Int[Tensor, "rows 5"]:
        """What is to be kept of each of the last tokens: `Generation.notes`, and its part of `Generation.beside`."""
        ...


@dataclass(frozen=True)
class StopRule:
    """Where an answer ends: at any of the end tokens, or where one of the strings appears in its text."""

    eos_ids: frozenset[int]
    strings: tuple[str, ...] = ()
    tokenizer: PreTrainedTokenizerBase | None = None

    def __post_init__(self) -> None:
        if self.strings and self.tokenizer is None:
            raise ValueError("stop strings need a tokenizer")


def stop_at(text: str, strings: Sequence[str]) -> int | None:
    """The character at which an answer ends: its first stop string after something was said."""
    said = len(text) - len(text.lstrip())
    return min((i for i in (text.find(s, said + 1) for s in strings) if i >= 0), default=None)


@dataclass(frozen=True)
class Generation:
    """One branch. All arrays have one entry a token; the end token, where there is one, is not among them.

    `moved` is the relative perturbation norm (‖Δh‖ / ‖h‖) of the position that chose each token, and `prompt_moved`
    the number of perturbed prompt positions before it; both 0 without steering.

    `notes` is what a `TwoModelPolicy` says of each token, in the order of `NOTES`: whether the partner's own
    choice differed from the base's (1, 0; −1 where no partner was asked); which candidate was taken (0 the unsteered
    one, −1 a token that came from the partner's distribution); the category of the position (−1: the gate did not
    fire); whether the token is the partner's own choice (1, 0, −1).

    `beside` counts the forward passes that choosing the tokens took beside the model's own, which are one a token: the
    partner's, and one for each steered candidate that was tried.
    """

    tokens: Int[np.ndarray, " tokens"]
    top1: Float[np.ndarray, " tokens"]
    top2: Float[np.ndarray, " tokens"]
    entropy: Float[np.ndarray, " tokens"]
    logprob: Float[np.ndarray, " tokens"]
    moved: Float[np.ndarray, " tokens"]
    prompt_moved: int
    finish: str  # "eos", "stop" (a stop string) or "length" (the limit)
    spent: int  # tokens decoded, the end token included
    end: int | None = None  # the end token, where finish is "eos"
    notes: Int[np.ndarray, "tokens 4"] | None = None
    beside: int = 0


OnStep = Callable[[int, int], None]
"""Called after each step with the step's number and the rows that are still open."""


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
    *,
    max_new_tokens: int,
    stop: StopRule,
    steering: Session | None = None,
    recorder: Recorder | None = None,
    on_step: OnStep | None = None,
    shared: bool = True,
    unlisted: Sequence[int] = (),
) -> list[list[Generation]]:
    """Answer each prompt with the branches that the policy opens.

    Args:
        model: a causal LM of `transformers` in evaluation mode.
        prompts: token ids of each question, ragged.
        policy: chooses first and next tokens.
        max_new_tokens: limit for each branch.
        stop: end tokens and strings.
        steering: what `steering.hooks.attached(model, …)` gave; its plans' rows are the prompts.
        recorder: what `probes.capture.recording(model, …)` gave.
        on_step: called after every step.
        shared: whether branches may share their prompt's cache, for which the attention is exchanged meanwhile.
            Which way is taken, `elicit.decoding.trial` found for this model.
        unlisted: ids that are never chosen and count for nothing (`Model.unlisted`).

    Returns:
        For each prompt its branches, in the policy's order.

    Raises:
        UserError: an empty prompt, a token that the model has no row for, a limit below 1, a prompt and limit beyond
            the model's positions, a policy that steers by itself beside `steering` or a recorder, or a model that can
            be decoded, or steered, in no way.
        NotFiniteError: logits that are NaN or infinite; −inf alone, as of masked tokens, is no error.
    """
    check_prompts(model, prompts, max_new_tokens, stop.tokenizer)
    joint = isinstance(policy, TwoModelPolicy)
    if joint and (steering is not None or recorder is not None):
        raise UserError("this decoder tries steered tokens itself; give it no interventions and no recorder")
    shared = shared and (recorder is None or not recorder.needs_patterns)
    way = way_of(model, steered=steering is not None or joint, shared=shared)
    batch = _Batch(model, len(prompts), way, max_new_tokens, stop, steering, recorder, on_step, tuple(unlisted))
    parts = of_one_length(prompts) if way not in PADDED else [list(range(len(prompts)))]
    if len(parts) == 1:
        return batch.decode(prompts, parts[0], policy)
    if joint:
        raise UserError(
            f"{type(model).__name__} is decoded with prompts of one length together, and this decoder follows all of "
            "them; give it prompts of one length"
        )
    out: list[list[Generation]] = [[] for _ in prompts]
    for part in parts:
        found = batch.decode([prompts[i] for i in part], part, Part(policy, part, len(prompts)))
        for number, branches in zip(part, found, strict=True):
            out[number] = branches
    return out


@dataclass(frozen=True)
class _Batch:
    """What is the same for all prompts of a `decode`."""

    model: PreTrainedModel
    size: int
    way: str
    max_new_tokens: int
    stop: StopRule
    steering: Session | None
    recorder: Recorder | None
    on_step: OnStep | None
    unlisted: tuple[int, ...]

    def decode(
        self, prompts: Sequence[Sequence[int]], numbers: Sequence[int], policy: Policy
    ) -> list[list[Generation]]:
        """The branches of prompts that are computed together; `numbers` are theirs among all."""
        model, steering, on_step, max_new_tokens = self.model, self.steering, self.on_step, self.max_new_tokens
        joint = policy if isinstance(policy, TwoModelPolicy) else None
        ids, mask, _ = left_pad(prompts, model.device)
        never = torch.tensor(self.unlisted, dtype=torch.long, device=model.device)
        observers: list[RowObserver] = [f for f in (steering, self.recorder, joint) if f is not None]
        for follower in (steering, self.recorder):
            if follower is not None:
                follower.expect(None if self.way in PADDED else numbers, of=self.size, whole=self.way == "uncached")
        opened = open_state(model, max_new_tokens, way=self.way, peek=joint is not None)
        with packed(model), opened as state, nullcontext() if joint is None else joint.joined(state, ids, mask):
            logits = without(state.prefill(ids, mask), never)
            moved = steering.moved() if steering is not None else None
            tokens = policy.first(logits)
            questions, branches = tokens.shape
            rows = Rows(np.repeat(np.arange(questions), branches), np.tile(np.arange(branches), questions))
            record = Record(rows, max_new_tokens, self.stop, model, numbers)
            question = torch.from_numpy(rows.question).to(model.device)
            tokens = tokens.reshape(-1)
            live = np.arange(questions * branches)  # the record's row behind each computed row, -1 once finished
            logits = logits[question]
            if moved is not None:
                record.prompt_moved[:] = (moved[:, :-1] > 0).sum(-1)[question].cpu().numpy()
                moved = moved[question, -1:]
            notes: Tensor | None = None
            if joint is not None:
                moved, notes = joint.moved(), joint.notes()
            open_rows = record.append(live, 0, tokens, logits, top2(logits), moved, notes)
            for observer in (state, *observers):
                observer.fork(question)
            del logits
            for step in range(1, max_new_tokens):
                live = np.where(np.isin(live, open_rows), live, -1)
                if on_step is not None:
                    on_step(step, len(open_rows))
                if not len(open_rows):
                    break
                if len(open_rows) <= (1 - DEAD_SHARE) * len(live):
                    kept = np.flatnonzero(live >= 0)
                    index = torch.from_numpy(kept).to(model.device)
                    for observer in (state, *observers):
                        observer.keep(index)
                    tokens, live = tokens[index], live[kept]
                    rows = Rows(rows.question[kept], rows.branch[kept])
                logits = without(state.step(tokens), never)
                top = top2(logits)
                tokens = policy.next(logits, top, rows, step)
                if joint is not None:
                    moved, notes = joint.moved(), joint.notes()
                else:
                    moved = steering.moved() if steering is not None else None
                open_rows = record.append(live, step, tokens, logits, top, moved, notes)
        return record.finished()


def measured(
    logits: Float[Tensor, "rows vocab"],
    top: Top2,
    tokens: Int[Tensor, " rows"],
    head: Float[Tensor, ""],
    moved: Float[Tensor, "rows pos"] | None,
) -> Float[Tensor, "columns rows"]:
    """What is kept of a step: the largest logit plus `head` (see `Record`), the statistics, and what was moved."""
    columns = [top.values[:, 0].float() + head, *token_statistics(logits, top, tokens)]
    return torch.stack(columns if moved is None else [*columns, moved[:, -1]])


class Record:
    """Tokens and statistics of every row, [rows, limit], and which rows are finished."""

    def __init__(
        self, opened: Rows, limit: int, stop: StopRule, model: PreTrainedModel, numbers: Sequence[int] | None = None
    ) -> None:
        rows = len(opened.question)
        self.question = opened.question
        self.numbers = range(rows) if numbers is None else numbers
        self.dtype = model.dtype
        self.head = _head_zero(model)
        self.tokens = np.zeros((rows, limit), dtype=np.int64)
        self.values = np.zeros((5, rows, limit), dtype=np.float32)
        self.notes: np.ndarray | None = None  # [rows, limit, 5]
        self.prompt_moved = np.zeros(rows, dtype=np.int64)
        self.length = np.zeros(rows, dtype=np.int64)
        self.finish = np.full(rows, "length", dtype=object)
        self.limit = limit
        self.stop = stop
        self.eos = np.array(sorted(stop.eos_ids), dtype=np.int64)
        self.could_stop = _tokens_that_could_end(stop) if stop.strings else None  # its last entry: all further ids

    def append(
        self,
        live: np.ndarray,
        step: int,
        tokens: Tensor,
        logits: Tensor,
        top: Top2,
        moved: Tensor | None,
        notes: Tensor | None,
    ) -> np.ndarray:
        """Write one step for the rows that are open; return those that stay open."""
        values = measured(logits, top, tokens, self.head.to(logits.device), moved).cpu().numpy()
        emitted = tokens.cpu().numpy()
        computed = np.flatnonzero(live >= 0)
        target = live[computed]
        if notes is not None:
            if self.notes is None:
                self.notes = np.zeros((*self.tokens.shape, notes.shape[1]), dtype=np.int64)
            self.notes[target, step] = notes.cpu().numpy()[computed]
        ended = self.write(target, np.full(len(target), step), emitted[computed], values[:, computed])
        return target[~ended]

    def write(
        self,
        target: Int[np.ndarray, " some"],
        step: Int[np.ndarray, " some"],
        emitted: Int[np.ndarray, " some"],
        values: Float[np.ndarray, "columns some"],
    ) -> Bool[np.ndarray, " some"]:
        """Write a token each for some rows, and what was `measured`, at a step of their own; which ended by it."""
        self._check_finite(values, target, step)
        self.tokens[target, step] = emitted
        self.values[: len(values) - 1, target, step] = values[1:]
        self.length[target] = step + 1
        ended = np.isin(emitted, self.eos)
        self.finish[target[ended]] = "eos"
        if self.could_stop is not None:
            could = self.could_stop[np.minimum(emitted, len(self.could_stop) - 1)]
            for i in np.flatnonzero(could & ~ended):
                if self._ends_with_stop(int(target[i]), int(step[i])):
                    self.finish[target[i]] = "stop"
                    ended[i] = True
        return ended

    def _check_finite(self, values: np.ndarray, target: np.ndarray, step: np.ndarray) -> None:
        """Refuse a step by what is copied of it anyway: the largest logit, the statistics, and what was moved."""
        finite = np.isfinite(values)
        if not finite.all():
            first = int((~finite).any(0).argmax())
            of_logits = not finite[:5, first].all()
            met = "the logits" if of_logits else "the relative perturbation norms"
            cure = "" if of_logits else "steer less strongly"
            where = f"{met} of step {step[first]}"
            raise NotFiniteError(where, self.dtype, row=self.numbers[int(self.question[target[first]])], cure=cure)

    def _ends_with_stop(self, row: int, step: int) -> bool:
        assert self.stop.tokenizer is not None
        longest = max(len(s) for s in self.stop.strings)
        # A stop string that the newest token completes begins at most `longest` characters, so tokens, earlier.
        tail = decoded(self.stop.tokenizer, self.tokens[row, max(0, step - longest) : step + 1].tolist())
        if not any(s in tail for s in self.stop.strings):
            return False
        text = decoded(self.stop.tokenizer, self.tokens[row, : step + 1].tolist())
        return stop_at(text, self.stop.strings) is not None

    def finished(self) -> list[list[Generation]]:
        """For each question its branches."""
        out: list[list[Generation]] = [[] for _ in range(int(self.question[-1]) + 1)]
        for row, (length, finish) in enumerate(zip(self.length, self.finish, strict=True)):
            kept = length - 1 if finish == "eos" else length
            top1, top2, entropy, logprob, moved = (v[row, :kept].copy() for v in self.values)
            tokens, before = self.tokens[row, :kept].copy(), int(self.prompt_moved[row])
            end = int(self.tokens[row, kept]) if finish == "eos" else None
            notes = None if self.notes is None else self.notes[row, :kept, : len(NOTES)].copy()
            beside = 0 if self.notes is None else int(self.notes[row, :length, len(NOTES)].sum())
            measured = (top1, top2, entropy, logprob, moved)
            generation = Generation(tokens, *measured, before, str(finish), int(length), end, notes, beside)
            out[self.question[row]].append(generation)
        return out


def _head_zero(model: PreTrainedModel) -> Float[Tensor, ""]:
    """0, or NaN where a weight of the output head is not finite: its token's logits can be −inf, as a masked one's."""
    head: Tensor = model.get_output_embeddings().weight.detach()  # type: ignore[union-attr,assignment]
    plain = type(head) is Tensor and head.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not plain or head.is_meta or not head.numel():
        return torch.zeros(())  # quantised, or held elsewhere
    return (extremes(head) * 0).sum()


_COULD_END: WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, np.ndarray]] = WeakKeyDictionary()


def _tokens_that_could_end(stop: StopRule) -> np.ndarray:
    """Which tokens hold a stop string's last character: only after these is the text looked at.

    The last entry is that of ids beyond the tokenizer's, which a model with more output rows may emit: they have no
    text and end nothing.
    """
    tokenizer = stop.tokenizer
    assert tokenizer is not None
    tables = _COULD_END.setdefault(tokenizer, {})
    key = (stop.strings, len(tokenizer))  # tokens may be added to it
    if key not in tables:
        last = {s[-1] for s in stop.strings}
        ids = sorted(set(tokenizer.get_vocab().values()))
        pieces = tokenizer.batch_decode([[i] for i in ids])
        # A character cut by a token boundary decodes to U+FFFD: looked at as well.
        tables[key] = np.zeros(ids[-1] + 2, dtype=bool)
        tables[key][ids] = [bool(last & set(piece)) or "\ufffd" in piece for piece in pieces]
    return tables[key]
