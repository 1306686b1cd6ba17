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
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.cache import PADDED, KVState, open_state
from elicit.decoding.packed_weights import packed
from elicit.decoding.parts import Part, of_one_length, without
from elicit.decoding.ready import check_prompts
from elicit.decoding.record import NOTES as NOTES
from elicit.decoding.record import Generation as Generation
from elicit.decoding.record import Listener as Listener
from elicit.decoding.record import Record as Record
from elicit.decoding.record import Rows as Rows
from elicit.decoding.record import StopRule as StopRule
from elicit.decoding.record import stop_at as stop_at
from elicit.decoding.trial import way_of
from elicit.decoding.trunk import Trunk, TrunkState, can_leave
from probes.batching import left_pad
from probes.capture import Recorder
from probes.confidence import Top2, top2
from probes.errors import UserError
from steering.hooks import Session

# Rows that have finished are computed along until an eighth of the batch is dead: dropping copies the cache.
DEAD_SHARE = 1 / 8


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
    budgets: Sequence[int] | None = None,
    listeners: Sequence[Listener] | None = None,
    said: Sequence[Sequence[int]] | None = None,
    trunk: Trunk | None = None,
    opened: Callable[[Sequence[Sequence[int]]], KVState] | None = None,
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
        budgets: of each prompt the tokens that its branches may spend, in their order: a branch ends when it and those
            before it have spent more.
        listeners: who waits for the answer to each prompt.
        said: the tokens at the end of each prompt that belong to the answer: a stop string may begin in them.
        trunk: texts that prompts share the beginnings of; it is used where nothing is steered or recorded.
        opened: what makes another state of the way `shared-prefix`, of a model that is decoded so.

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
    batch = _Batch(
        model, len(prompts), way, max_new_tokens, stop, steering, recorder, on_step, tuple(unlisted), budgets,
        listeners, said, None if joint or steering is not None or recorder is not None else trunk,
        opened,
    )  # fmt: skip
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
    budgets: Sequence[int] | None
    listeners: Sequence[Listener] | None
    said: Sequence[Sequence[int]] | None
    trunk: Trunk | None
    opened: Callable[[Sequence[Sequence[int]]], KVState] | None

    def state(self, prompts: Sequence[Sequence[int]], peek: bool) -> AbstractContextManager[KVState]:
        """What holds the prompts' keys and values."""
        made = None if self.opened is None else self.opened(prompts)
        if self.trunk is not None and self.way == "shared-prefix":
            after = self.trunk.after(prompts)
            if can_leave(self.model, max(map(len, self.trunk.texts)) + after + self.max_new_tokens):
                made = TrunkState(self.model, self.max_new_tokens, self.trunk, after)
        return open_state(self.model, self.max_new_tokens, way=self.way, peek=peek, made=made)

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
        opened = self.state(prompts, joint is not None)
        with packed(model), opened as state, nullcontext() if joint is None else joint.joined(state, ids, mask):
            logits = without(state.prefill(ids, mask), never)
            moved = steering.moved() if steering is not None else None
            tokens = policy.first(logits)
            questions, branches = tokens.shape
            rows = Rows(np.repeat(np.arange(questions), branches), np.tile(np.arange(branches), questions))
            budgets = None if self.budgets is None else [self.budgets[n] for n in numbers]
            listeners = None if self.listeners is None else [self.listeners[n] for n in numbers]
            said = None if self.said is None else [self.said[n] for n in numbers]
            record = Record(rows, max_new_tokens, self.stop, model, numbers, budgets, listeners, said)
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
