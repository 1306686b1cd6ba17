"""What a decoding loop writes down of each token, where an answer ends, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.confidence import Top2, token_statistics
from probes.finite import NotFiniteError, extremes
from probes.offsets import CUT, decoded

NOTES = ("differs", "taken", "category", "copied")  # what a two-model policy notes of each token


@dataclass(frozen=True)
class Rows:
    """Which rows a step computes: row r is branch `branch[r]` of question `question[r]` of the batch."""

    question: Int[np.ndarray, " rows"]
    branch: Int[np.ndarray, " rows"]


@dataclass(frozen=True)
class StopRule:
    """Where an answer ends: at any of the end tokens, or where one of the strings appears in its text.

    A string ends an answer after something was said, or with `anywhere` also before that. Its thoughts are ended after
    `thought_tokens` tokens of them (`elicit.decoding.thought`); 0: where the model ends them.
    """

    eos_ids: frozenset[int]
    strings: tuple[str, ...] = ()
    tokenizer: PreTrainedTokenizerBase | None = None
    anywhere: bool = False
    thought_tokens: int = 0

    def __post_init__(self) -> None:
        if (self.strings or self.thought_tokens) and self.tokenizer is None:
            raise ValueError("stop strings and thoughts need a tokenizer")


@runtime_checkable
class Listener(Protocol):
    """Somebody who waits for the answer to one prompt; asked and told in the thread that decodes."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more: the prompt's branches end where they are."""
        ...

    def hear(self, branch: int, step: int, token: int, logprob: float | None, ended: bool) -> None:
        """A token was written, the end token included. A prompt that is decoded anew is heard again from step 0.

        Args:
            branch, step: where.
            token: its id.
            logprob: in the model's own distribution; None where the engine says so only with the whole answer.
            ended: whether the branch ended by it, at an end token or a stop string.
        """
        ...


def stop_at(text: str, strings: Sequence[str], anywhere: bool = False) -> int | None:
    """The character at which an answer ends: its first stop string after something was said, or `anywhere`."""
    start = 0 if anywhere else len(text) - len(text.lstrip()) + 1
    return min((i for i in (text.find(s, start) for s in strings) if i >= 0), default=None)


@dataclass(frozen=True)
class Generation:
    """One branch. All arrays have one entry a token; the end token, where there is one, is not among them.

    `moved` is the relative perturbation norm (‖Δh‖ / ‖h‖) of the position that chose each token, and `prompt_moved`
    the number of perturbed prompt positions before it; both 0 without steering.

    `notes` is what a two-model policy says of each token, in the order of `NOTES`: whether the partner's own
    choice differed from the base's (1, 0; −1 where no partner was asked); which candidate was taken (0 the unsteered
    one, −1 a token that came from the partner's distribution); the category of the position (−1: the gate did not
    fire); whether the token is the partner's own choice (1, 0, −1).

    `beside` counts the forward passes that choosing the tokens took beside the model's own, which are one a token: the
    partner's, and one for each steered candidate that was tried.

    `moves` counts the other answers that a Markov chain tried (`elicit.decoding.power`), `accepted` those that it took.

    Of an answer within which tools were called (`elicit.decoding.tools`), `begins` is the number of the first token
    behind the last result, `calls` counts the tools that were called, `unknown_calls` the calls that named none, and
    `refused_calls` those beyond the limit and in what tools said.
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
    moves: int = 0
    accepted: int = 0
    begins: int = 0
    calls: int | None = None
    unknown_calls: int | None = None
    refused_calls: int | None = None
    end_logprob: float | None = None  # of the end token, where there is one and it was measured


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
        self,
        opened: Rows,
        limit: int,
        stop: StopRule,
        model: PreTrainedModel,
        numbers: Sequence[int] | None = None,
        budgets: Sequence[int] | None = None,
        listeners: Sequence[Listener] | None = None,
        said: Sequence[Sequence[int]] | None = None,
    ) -> None:
        rows = len(opened.question)
        self.question, self.branch = opened.question, opened.branch
        self.listeners, self.said = listeners, said
        self.numbers = range(rows) if numbers is None else numbers
        self.dtype = model.dtype
        self.head = _head_zero(model)
        self.budgets = None if budgets is None else np.array(budgets)
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
        return self._within(target[~ended])

    def _within(self, still: Int[np.ndarray, " some"]) -> Int[np.ndarray, " kept"]:
        """Of open rows those that may still be within their prompt's budget, with all branches before them."""
        if self.budgets is None:
            return still
        spent = self.length.reshape(len(self.budgets), -1).cumsum(1)
        return still[(spent <= self.budgets[:, None]).reshape(-1)[still]]

    def write(
        self,
        target: Int[np.ndarray, " some"],
        step: Int[np.ndarray, " some"],
        emitted: Int[np.ndarray, " some"],
        values: Float[np.ndarray, "columns some"],
    ) -> Bool[np.ndarray, " some"]:
        """Write a token each for some rows, and what was `measured`, at a step of their own; which end."""
        self.measure(target, step, values)
        return self.emit(target, step, emitted, values[4])

    def measure(
        self,
        target: Int[np.ndarray, " some"],
        step: Int[np.ndarray, " some"],
        values: Float[np.ndarray, "columns some"],
    ) -> None:
        """Write what was `measured` for some rows, at a step of their own.

        Raises:
            NotFiniteError: some of it is NaN or infinite.
        """
        self._check_finite(values, target, step)
        self.values[: len(values) - 1, target, step] = values[1:]

    def emit(
        self,
        target: Int[np.ndarray, " some"],
        step: Int[np.ndarray, " some"],
        emitted: Int[np.ndarray, " some"],
        logprob: Float[np.ndarray, " some"] | None = None,
    ) -> Bool[np.ndarray, " some"]:
        """Write a token each for some rows, at a step of their own; which end, by it or since nobody waits for them."""
        self.tokens[target, step] = emitted
        self.length[target] = step + 1
        ended = np.isin(emitted, self.eos)
        self.finish[target[ended]] = "eos"
        if self.could_stop is not None:
            could = self.could_stop[np.minimum(emitted, len(self.could_stop) - 1)]
            for i in np.flatnonzero(could & ~ended):
                if self._ends_with_stop(int(target[i]), int(step[i])):
                    self.finish[target[i]] = "stop"
                    ended[i] = True
        return ended if self.listeners is None else self._told(target, step, emitted, logprob, ended)

    def _told(
        self, target: np.ndarray, step: np.ndarray, emitted: np.ndarray, logprob: np.ndarray | None, ended: np.ndarray
    ) -> np.ndarray:
        """Tell who listens what was written; also the rows of those who do so no more end."""
        assert self.listeners is not None
        end = ended.copy()
        for i, row in enumerate(target.tolist()):
            listener = self.listeners[self.question[row]]
            said = None if logprob is None else float(logprob[i])
            listener.hear(int(self.branch[row]), int(step[i]), int(emitted[i]), said, bool(ended[i]))
            end[i] |= listener.gone
        return end

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
        tokenizer, longest = self.stop.tokenizer, max(len(s.encode(errors="replace")) for s in self.stop.strings)
        tokens = self.tokens[row, : step + 1].tolist()
        if self.said is not None:
            tokens = [*self.said[self.question[row]], *tokens]
        # A stop string that the newest token completes begins at most `longest` bytes, so tokens, earlier.
        first = max(0, len(tokens) - 1 - longest)
        while first and CUT in decoded(tokenizer, tokens[first : first + 1]):  # within a character
            first -= 1
        tail = decoded(tokenizer, tokens[first:])
        if not any(s in tail for s in self.stop.strings):
            return False
        text = decoded(tokenizer, tokens)
        return stop_at(text, self.stop.strings, self.stop.anywhere) is not None

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
            ended = None if end is None else float(self.values[3][row, kept])
            generation = Generation(
                tokens, *measured, before, str(finish), int(length), end, notes, beside, end_logprob=ended
            )
            out[self.question[row]].append(generation)
        return out


def _head_zero(model: PreTrainedModel) -> Float[Tensor, ""]:
    """0, or NaN where a weight of the output head is not finite: its token's logits can be −inf, as a masked one's."""
    head: Tensor = model.get_output_embeddings().weight.detach()  # type: ignore[union-attr,assignment]
    plain = type(head) is Tensor and head.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not plain or head.is_meta or not head.numel():
        return torch.zeros(())  # quantised, or held elsewhere
    return (extremes(head) * 0).sum()


TABLES = 32  # of a tokenizer, each with a byte a token
_COULD_END: WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, np.ndarray]] = WeakKeyDictionary()


def _tokens_that_could_end(stop: StopRule) -> np.ndarray:
    """Which tokens hold a stop string's last character: only after these is the text looked at.

    The last entry is that of ids beyond the tokenizer's, which a model with more output rows may emit: they have no
    text and end nothing.
    """
    tokenizer = stop.tokenizer
    assert tokenizer is not None
    tables = _COULD_END.setdefault(tokenizer, {})
    last = frozenset(s[-1] for s in stop.strings)
    key = (last, len(tokenizer))  # tokens may be added to it
    if key not in tables:
        while len(tables) >= TABLES:  # whoever asks a server brings stop strings of their own
            del tables[next(iter(tables))]
        ids = sorted(set(tokenizer.get_vocab().values()))
        # Twice, since the blank before a text's first token may be dropped. A cut character is looked at as well.
        pieces = tokenizer.batch_decode([[i, i] for i in ids], clean_up_tokenization_spaces=False)
        tables[key] = np.zeros(ids[-1] + 2, dtype=bool)
        tables[key][ids] = [bool(last & set(piece)) or CUT in piece for piece in pieces]
    return tables[key]
