"""What of an answer may be sent while it is decoded: whole characters that are sure to be in its text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from elicit.decoding.trace import Trace, rounded, text_of
from probes.offsets import Growing


class Torn(Exception):
    """What was sent is not the beginning of the answer: it was decoded anew, and in 16 bits came out otherwise."""


class Part(NamedTuple):
    """The next part of an answer.

    Args:
        text: of it.
        pieces, logprobs, starts: of each of its tokens.
        finish: "stop" or "length" with the last part.
    """

    text: str
    pieces: list[str]
    logprobs: list[float]
    starts: list[int]
    finish: str | None


class Flow:
    """One answer, as its tokens come.

    Args:
        tokenizer: of the model.
        eos_ids: tokens that end an answer and are no part of it.
        stop: strings that do.
        limit: of its tokens.
        wants_logprobs: whether nothing may be sent before its tokens' log-probabilities are known.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        eos_ids: frozenset[int],
        stop: tuple[str, ...],
        limit: int,
        wants_logprobs: bool,
    ) -> None:
        self.tokenizer, self.eos_ids, self.stop, self.limit = tokenizer, eos_ids, stop, limit
        self.wants_logprobs = wants_logprobs
        self.growing = Growing(tokenizer)
        self.ends: list[int] = []
        self.logprobs: list[float | None] = []
        self.text = ""  # that is sure
        self.sent, self.sent_tokens = "", 0
        self.finish: str | None = None
        self.over = False  # the last part was taken

    def hear(self, step: int, token: int, logprob: float | None, ended: bool) -> None:
        """A token, as `elicit.decoding.record.Listener` hears it."""
        if self.finish is not None:
            return
        if step < len(self.ends):  # it is decoded anew
            self.growing, self.ends, self.logprobs = Growing(self.tokenizer), [], []
        if not (ended and token in self.eos_ids):
            self.growing.add(token)
            self.ends.append(max(len(self.growing.text), self.ends[-1] if self.ends else 0))
            self.logprobs.append(logprob)
        if ended or len(self.ends) == self.limit:
            self.text, self.ends = text_of(self.tokenizer, self.growing.ids, self.stop)
            self.finish = "stop" if ended else "length"
        elif not self.growing.undecided:
            self.text = self.growing.text[: held_from(self.growing.text, self.stop)]

    def end(self, trace: Trace) -> None:
        """The answer, when it is whole.

        Raises:
            Torn: another was sent.
        """
        if self.over and trace.text != self.sent:
            raise Torn
        self.text, self.ends, self.logprobs = trace.text, trace.ends, list(trace.logprob)
        self.finish = finish_of(trace)

    def take(self) -> Part | None:
        """What can be sent now, or None.

        Raises:
            Torn: what was sent before is no part of the answer any more.
        """
        if self.over or (self.wants_logprobs and None in self.logprobs):
            return None
        if self.finish is None and len(self.text) <= len(self.sent):
            return None
        if not self.text.startswith(self.sent):
            raise Torn
        text, self.sent, self.over = self.text[len(self.sent) :], self.text, self.finish is not None
        return Part(text, *(self._tokens() if self.wants_logprobs else ([], [], [])), self.finish)

    def _tokens(self) -> tuple[list[str], list[float], list[int]]:
        """Pieces, log-probabilities and starts of the tokens that are sent now."""
        first, last = self.sent_tokens, len(self.ends)
        if not self.over:
            last = next((n for n, end in enumerate(self.ends) if end > len(self.text)), last)
        self.sent_tokens = max(first, last)
        starts, values = [0, *self.ends], np.array(self.logprobs[first:last], dtype=np.float64)
        pieces = [self.text[a:b] for a, b in pairwise(starts[first : last + 1])]
        return pieces, rounded(values), starts[first:last]


def finish_of(trace: Trace) -> str:
    """Why an answer ended, in the words of the protocol."""
    return "length" if trace.finish == "length" else "stop"


def held_from(text: str, stop: Sequence[str]) -> int:
    """Where the longest end of a text begins that may be the beginning of a stop string."""
    return min(
        (
            len(text) - size
            for one in stop
            for size in range(min(len(one), len(text)), 0, -1)
            if text.endswith(one[:size])
        ),
        default=len(text),
    )
