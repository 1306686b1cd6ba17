"""`Trace`: one answer of a model, with the statistics of each of its tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from elicit.decoding.loop import Generation, stop_at
from elicit.tasks.answers import Answer, token_span
from probes.offsets import decoded, token_ends

DIGITS = 6
# Fields that older samples lack.
_LATER = (
    "unjudged", "found_by", "begun", "delta_greedy", "delta_zero", "moves", "accepted", "calls", "unknown_calls",
    "refused_calls", "begins", "logged", "end_logprob",
)  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """One branch or sample.

    `top1`, `top2`, `entropy` and `logprob` have one value for each of `tokens`; `ends` is the character of
    the decoded tokens at which each ends (`text` may end sooner, at a stop string). `span` is the answer's
    tokens [first, last). `delta` is the answer's confidence margin, `None` without an answer on the path.
    `dropped` is the filter reason: which filter took the path out of the selection, or empty.
    `spent` counts completion tokens, the end token and an answer prompt's continuation included. `moved` is the
    relative perturbation norm (‖Δh‖ / ‖h‖) of the position that chose each token, empty without interventions;
    `prompt_moved` counts the perturbed prompt positions before it. `differs`, `taken`, `category` and `copied` are what
    hybrid decoding notes of each token (see `elicit.decoding.Generation`), empty elsewhere. `unjudged` says why the
    answer has no verdict and so scores 0 (see `elicit.tasks.base.Grade`), and `found_by` how the answer was found in
    the text (see `elicit.tasks.answers`). `begun` is the mark of the chain of thought that the text begins within,
    where the prompt ended in one (`<think>`). `forwards` counts the forward passes of one sequence that it took: one a
    token, the first branch's prefill among them; in hybrid decoding the thinking model's as well, and one for each
    steered candidate that was tried; −1 in runs that were made before they were counted. `delta_greedy` and
    `delta_zero` are Δ by the other readings of a branching token that the answer holds (`other_deltas`). `moves` and
    `accepted` count the answers that a chain tried and took, and `spent` the tokens of them all
    (`elicit.decoding.power`). `calls`, `unknown_calls` and `refused_calls` count calls of tools (see
    `elicit.decoding.Generation`), whose tokens `spent` counts too; `tokens` then hold what they said as well, and the
    answer is looked for from token `begins` on. What may be empty from `unjudged` on is written only where it says
    something. Of an answer that another program decoded no token is known, and `spent` and `prompt_tokens` are −1 where
    its log did not count them; `logged` is the log-probability of each of its tokens, by whatever tokenizer, where its
    log has them. `end_logprob` is that of the end token, which is none of `tokens`, where it was measured.
    """

    item: str
    index: int
    prompt_tokens: int
    tokens: list[int]
    ends: list[int]
    text: str
    top1: list[float]
    top2: list[float]
    entropy: list[float]
    logprob: list[float]
    finish: str
    spent: int
    answer: str | None
    span: tuple[int, int] | None
    delta: float | None
    dropped: str
    score: float
    moved: list[float] = field(default_factory=list)
    prompt_moved: int = 0
    differs: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    category: list[int] = field(default_factory=list)
    copied: list[int] = field(default_factory=list)
    unjudged: str = ""
    found_by: str = ""
    begun: str = ""
    forwards: int = -1
    delta_greedy: float | None = None
    delta_zero: float | None = None
    moves: int | None = None
    accepted: int | None = None
    calls: int | None = None
    unknown_calls: int | None = None
    refused_calls: int | None = None
    begins: int | None = None
    logged: list[float] = field(default_factory=list)
    end_logprob: float | None = None

    @property
    def correct(self) -> bool:
        return self.score >= 1.0

    @property
    def chain_of_thought(self) -> list[int]:
        """The tokens before the answer (all of them where none was found)."""
        return self.tokens if self.span is None else self.tokens[: self.span[0]]

    @property
    def start(self) -> int:
        """The character from which on the answer is looked for: behind the last result of a tool."""
        return self.ends[self.begins - 1] if self.begins else 0

    @property
    def pieces(self) -> list[str]:
        """The text of each token."""
        return [self.text[a:b] for a, b in pairwise([0, *self.ends])]

    @property
    def mean_logprob(self) -> float:
        logprob = self.logprob or self.logged
        return float(np.mean(logprob)) if logprob else float("-inf")

    @property
    def total_logprob(self) -> float:
        """Of the whole answer, with its end where that was measured: older runs and others' samples lack it."""
        return float(sum(self.logprob or self.logged)) + (self.end_logprob or 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if k not in _LATER or v not in ("", None, [])}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Trace:
        return Trace(**{**data, "span": None if data["span"] is None else (data["span"][0], data["span"][1])})


def token_margins(
    top1: Float[np.ndarray, " tokens"], top2: Float[np.ndarray, " tokens"], logprob: Float[np.ndarray, " tokens"]
) -> Float[np.ndarray, " tokens"]:
    """p(emitted token) − p(best other token), at each step.

    For every greedily chosen token this is p(top-1) − p(top-2), the margin of arXiv 2402.10200. It differs
    only for the branching token, which ranks below the first: there the paper's reading would credit each
    branch with the margin of the *greedy* token; ours is negative, since the model prefers another token.
    """
    emitted = np.exp(logprob)
    return np.where(emitted >= top1 * (1 - 1e-5), top1 - top2, emitted - top1)


def answer_delta(generation: Generation, span: tuple[int, int]) -> float:
    """Δ of arXiv 2402.10200, section 2.2: the mean margin over the answer's own tokens."""
    margins = token_margins(generation.top1, generation.top2, generation.logprob)
    return float(margins[span[0] : span[1]].mean())


def other_deltas(
    top1: Float[np.ndarray, " tokens"],
    top2: Float[np.ndarray, " tokens"],
    delta: float | None,
    logprob: Float[np.ndarray, " tokens"],
    span: tuple[int, int] | None,
) -> tuple[float, float] | tuple[None, None]:
    """Δ by two other readings of the branching token, where the answer holds it; else None.

    Returns:
        `delta_greedy`: its margin is p(top-1) − p(top-2) of its step, as arXiv 2402.10200 (eq. 1) reads to the letter;
        every branch has the greedy one's. `delta_zero`: its margin is 0, in the greedy branch too, as in reproductions
        that give the first step a uniform distribution (shirley-wu/cot_decoding).
    """
    if span is None or delta is None or span[0] > 0 or span[1] == 0:
        return None, None
    own = token_margins(top1[:1], top2[:1], logprob[:1])[0]
    greedy, zero = (delta + (margin - own) / span[1] for margin in (top1[0] - top2[0], 0.0))
    return round(float(greedy), DIGITS), round(float(zero), DIGITS)


def text_of(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], stop: tuple[str, ...], anywhere: bool = False, begins: int = 0
) -> tuple[str, list[int]]:
    """The text of token ids up to a stop string, and for each token the character at which it ends.

    With `begins` the stop string is looked for from that token on.
    """
    text = decoded(tokenizer, ids)
    ends = token_ends(tokenizer, ids, text)
    before = ends[begins - 1] if begins else 0
    return text[:before] + text[before:][: stop_at(text[before:], stop, anywhere or begins > 0)], ends


def place(generation: Generation, ends: list[int], found: Answer | None) -> tuple[tuple[int, int] | None, float | None]:
    """The answer's token span and Δ."""
    if found is None:
        return None, None
    span = token_span(ends, found)
    return span, round(answer_delta(generation, span), DIGITS)


def filter_path(text: str, finish: str, answer: str | None) -> str:
    """The filters of arXiv 2402.10200, appendix: the reason why a path cannot be selected, or "".

    A path without an answer has no Δ, so it cannot be selected either.
    """
    if not text.strip():
        return "empty"
    if finish == "length":
        return "cut at the limit"
    if text.rstrip().endswith("?"):
        return "ends with ?"
    return "" if answer is not None else "no answer"


def rounded(values: Float[np.ndarray, " tokens"]) -> list[float]:
    return [float(f"{v:.{DIGITS}g}") for v in values]


def rounded_one(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


class Outcome(NamedTuple):
    """A trace without its tokens; the fields are `Trace`'s own."""

    item: str
    index: int  # type: ignore[assignment]  # a tuple's own method of this name is not needed
    prompt_tokens: int
    finish: str
    spent: int
    answer: str | None
    delta: float | None
    dropped: str
    score: float
    total_logprob: float
    mean_logprob: float
    unjudged: str
    found_by: str
    forwards: int
    delta_greedy: float | None = None
    delta_zero: float | None = None

    @property
    def correct(self) -> bool:
        return self.score >= 1.0
