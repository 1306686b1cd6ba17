"""Choose one answer among the branches of a question: every rule reads the same branches.

| rule | the answer of | source |
| --- | --- | --- |
| `greedy` | the first branch | |
| `max` | the branch with the largest Δ | arXiv 2402.10200, section 2.2 |
| `sum` | the equivalence class with the largest sum of Δ | arXiv 2402.10200, "aggregation" |
| `vote` | the largest equivalence class | arXiv 2203.11171 |
| `mean-logprob` | the branch with the largest log-probability a token | |
| `logprob` | the branch with the largest log-probability | |
| `random` | any branch, on average: what a selection must beat | |
| `oracle` | a right branch, if there is one: what no selection can beat | |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from elicit.decoding.trace import Outcome, Trace
from elicit.tasks.base import Grader

Answered = Trace | Outcome


def with_majority(answers: Sequence[str | None], grader: Grader) -> list[bool | None]:
    """For each answer whether it is of the largest equivalence class; None where there is none."""
    said = [answer for answer in answers if answer is not None]
    if not said:
        return [None] * len(answers)
    groups = iter(kinds := grader.groups(said))
    most = Counter(kinds).most_common(1)[0][0]
    return [None if answer is None else next(groups) == most for answer in answers]


class Verdict(NamedTuple):
    """The chosen answer, the branch that gave it, its score, and whether the filters left
    no branch, so that the greedy one had to stand in."""

    answer: str | None
    branch: int | None
    score: float
    fallback: bool


def _deltas(kept: Sequence[Answered]) -> list[float]:
    """Every path that was kept has an answer, so a Δ."""
    return [t.delta for t in kept]  # type: ignore[misc]


def _by_delta(kept: Sequence[Answered], groups: Sequence[int]) -> int:
    return _largest(_deltas(kept))


def _by_sum(kept: Sequence[Answered], groups: Sequence[int]) -> int:
    totals: dict[int, float] = {}
    for group, delta in zip(groups, _deltas(kept), strict=True):
        totals[group] = totals.get(group, 0.0) + delta
    return _largest_class(totals)


def _by_vote(kept: Sequence[Answered], groups: Sequence[int]) -> int:
    return _largest_class(Counter(groups))


def _largest(values: Sequence[float]) -> int:
    """Where the largest is; of equal ones the first."""
    return values.index(max(values))


def _largest_class(weights: Mapping[int, int] | Mapping[int, float]) -> int:
    """The first member of the heaviest class (that is its number); of equal classes the one that appears first."""
    return max(weights, key=lambda group: weights[group])


def _by_mean_logprob(kept: Sequence[Answered], groups: Sequence[int]) -> int:
    return _largest([t.mean_logprob for t in kept])


def _by_logprob(kept: Sequence[Answered], groups: Sequence[int]) -> int:
    return _largest([t.total_logprob for t in kept])


_CHOICES: dict[str, Callable[[Sequence[Answered], Sequence[int]], int]] = {
    "max": _by_delta,
    "sum": _by_sum,
    "vote": _by_vote,
    "mean-logprob": _by_mean_logprob,
    "logprob": _by_logprob,
}
_GROUPED = ("sum", "vote")
RULES: tuple[str, ...] = ("greedy", *_CHOICES, "random", "oracle")
OF_ANSWERS: tuple[str, ...] = ("greedy", "vote", "random", "oracle")  # those that need no token's probability
OF_LOGPROBS: tuple[str, ...] = (
    "greedy",
    "vote",
    "mean-logprob",
    "logprob",
    "random",
    "oracle",
)  # and of no other token
SELECTABLE: tuple[str, ...] = ("greedy", *_CHOICES)


def select(rule: str, traces: Sequence[Answered], grader: Grader) -> Verdict:
    """Apply one rule to the branches of one question (in rank order).

    Dropped paths (`Trace.dropped`) are out, except for `greedy` and `oracle`, which look at what was
    decoded. Where every path was dropped the greedy path answers, and the verdict says so.
    """
    return select_all((rule,), traces, grader)[0]


def select_all(rules: Sequence[str], traces: Sequence[Answered], grader: Grader) -> list[Verdict]:
    """Apply several rules; which answers are equivalent is found once."""
    first = traces[0]
    kept = [t for t in traces if not t.dropped]
    groups: Sequence[int] | None = None
    out = []
    for rule in rules:
        if rule == "oracle":
            best = max(traces, key=lambda t: t.score)
            out.append(Verdict(best.answer, best.index, best.score, False))
        elif rule == "greedy" or not kept:
            out.append(Verdict(first.answer, first.index, first.score, rule != "greedy"))
        elif rule == "random":
            out.append(Verdict(None, None, sum(t.correct for t in kept) / len(kept), False))
        else:
            if groups is None and rule in _GROUPED:
                groups = grader.groups([t.answer or "" for t in kept])
            chosen = kept[_CHOICES[rule](kept, groups or ())]
            out.append(Verdict(chosen.answer, chosen.index, chosen.score, False))
    return out
