"""From traces to numbers: accuracies, paired differences, selection rules over the branches, calibration.

Everything here is a pure function of a run's samples, so that it can be computed again at any time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from elicit.decoding.decoders import Branching, Decoder, Elsewhere
from elicit.decoding.selection import OF_ANSWERS, OF_LOGPROBS, RULES, Answered, Verdict, select, select_all
from elicit.decoding.trace import Outcome
from elicit.evaluation.metrics.bottom_line import bottom_line
from elicit.evaluation.metrics.gap import DIRECT, recovered_by_arm
from elicit.evaluation.metrics.verdicts import not_stated
from elicit.tasks.base import Items
from probes.at_k import NO_ANSWER, coverage_at_k, maj_at_k, pass_at_k
from probes.auroc import auroc, auroc_interval, auroc_within
from probes.statistics import bootstrap_mean, holm, paired, proportion_interval

Traces = Mapping[str, Sequence[Answered]]
START = "start"  # where metrics name the arm from which gains are measured, if that is not `direct`


@runtime_checkable
class Chooses(Protocol):
    """What of a handle the metrics look at."""

    @property
    def select(self) -> str: ...

    @property
    def decoder(self) -> Decoder: ...


def compute(
    arms: Mapping[str, tuple[str, Chooses]],
    traces: Mapping[str, Traces],
    items: Items,
    *,
    seed: int = 0,
    extra: Mapping[str, Any] | None = None,
    start: str = DIRECT,
) -> dict[str, Any]:
    """All metrics of a run. The first arm is the one under test; the others are its baselines, `start` the one from
    which gains are measured."""
    main, *others = arms
    ids = [item.id for item in items]
    verdicts = {name: _verdicts(handle.select, traces[source], items) for name, (source, handle) in arms.items()}
    scores = {name: _right(chosen) for name, chosen in verdicts.items()}
    result: dict[str, Any] = {
        **(extra or {}),
        "task": items.task.name,
        "items": len(ids),
        "splits": dict(Counter(item.split for item in items)),
        "method": main,
        "arms": {
            name: _arm(handle.select, verdicts[name], traces[source], ids) for name, (source, handle) in arms.items()
        },
        "comparisons": _comparisons(main, {n: scores[n] for n in others}, scores[main], seed),
    }
    for name, gap in recovered_by_arm(items.task.name, scores, seed=seed).items():
        result["arms"][name] |= gap
    groups = _groups(scores, items)
    if groups:
        result["groups"] = groups
    main_source, handle = arms[main]
    branches = traces[main_source]
    if handle.decoder.branches > 1:
        reference = scores.get(start)
        known = not isinstance(handle.decoder, Elsewhere)  # of another program's answers no token is
        logged = all(math.isfinite(trace.mean_logprob) for some in branches.values() for trace in some)
        rules = RULES if known else OF_LOGPROBS if logged else OF_ANSWERS
        result["readings"] = _selection_rules(branches, items, reference, seed, rules)
        if known:
            result["calibration"] = _calibration(branches, ids, seed)
        if isinstance(handle.decoder, Branching):
            result["coverage_by_rank"] = _coverage(branches, ids)
        else:
            result["samples"] = _independent(branches, items, seed)
    recovered = result["arms"][main].get("recovered")
    why_not = not_stated(result["arms"], len(ids))
    line = bottom_line(main, scores, start=start, recovered=recovered, seed=seed, not_stated=why_not)
    return {"bottom_line": line.sentence, **result}


def _verdicts(rule: str, traces: Traces, items: Items) -> list[Verdict]:
    return [select(rule, traces[item.id], items.task.grader) for item in items]


def _right(verdicts: Sequence[Verdict]) -> np.ndarray:
    return np.array([float(v.score >= 1.0) for v in verdicts])


def _arm(rule: str, verdicts: Sequence[Verdict], traces: Traces, ids: Sequence[str]) -> dict[str, Any]:
    scores = _right(verdicts)
    every = [t for i in ids for t in traces[i]]
    return {
        "select": rule,
        "accuracy": float(scores.mean()),
        "interval": proportion_interval(int(scores.sum()), len(scores)).pair,
        "right": int(scores.sum()),
        **spent_by(every, len(ids)),
        "prompt_tokens_per_item": _counted([traces[i][0].prompt_tokens for i in ids], len(ids)),
        "branches_per_item": len(every) / len(ids),
        "unanswered": sum(v.answer is None for v in verdicts),
        "fallbacks": sum(v.fallback for v in verdicts),
        "finish": dict(Counter(t.finish for t in every)),
        "dropped": dict(Counter(t.dropped for t in every if t.dropped)),
        "unjudged": dict(Counter(t.unjudged for t in every if t.unjudged)),
        "found_by": dict(Counter(t.found_by or "none" for t in every)),
        "scores": dict(zip(ids, scores.tolist(), strict=True)),
    }


def spent_by(traces: Sequence[Answered], items: int) -> dict[str, float | None]:
    """Tokens a question and, but in runs from before they were counted, forward passes."""
    return {"tokens_per_item": _counted([t.spent for t in traces], items), **_forwards(traces, items)}


def _counted(tokens: Sequence[int], items: int) -> float | None:
    """Tokens a question; None where a log of another program did not count them."""
    return None if min(tokens) < 0 else sum(tokens) / items


def _forwards(traces: Sequence[Answered], items: int) -> dict[str, float]:
    """Forward passes a question; nothing where a run was made before they were counted."""
    each = [t.forwards for t in traces]
    return {} if min(each) < 0 else {"forwards_per_item": sum(each) / items}


GROUPED_BY = ("subject", "level")
MOST_GROUPS = 50  # a field of more values is no group but a name of each item


def _groups(scores: Mapping[str, np.ndarray], items: Items) -> dict[str, list[dict[str, Any]]]:
    """For each field that the items have, a row for each of its values: the items, and each arm's accuracy there."""
    out = {}
    for field in GROUPED_BY:
        values = [item.metadata.get(field) for item in items]
        known = sorted({value for value in values if isinstance(value, str | int)}, key=lambda v: (str(type(v)), v))
        rows = []
        for value in known:
            here = np.array([type(other) is type(value) and other == value for other in values])
            right = {name: float(some[here].mean()) for name, some in scores.items()}
            rows.append({"value": value, "items": int(here.sum()), "accuracy": right})
        if 0 < len(rows) <= MOST_GROUPS:
            out[field] = rows
    return out


def _comparisons(main: str, others: Mapping[str, np.ndarray], scores: np.ndarray, seed: int) -> list[dict[str, Any]]:
    rows = []
    for name, baseline in others.items():
        result = paired(scores, baseline, seed=seed)
        error = None if np.isnan(result.standard_error) else result.standard_error
        row = {**asdict(result), "interval": result.interval.pair, "standard_error": error}
        rows.append({"arm": main, "baseline": name, **row})
    adjusted = holm([row["mcnemar_p"] for row in rows])
    return [{**row, "holm_p": p} for row, p in zip(rows, adjusted, strict=True)]


def _selection_rules(
    traces: Traces, items: Items, reference: np.ndarray | None, seed: int, rules: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Every rule on the same branches; against the reference where there is one, else against the greedy branch."""
    chosen = list(zip(*(select_all(rules, traces[item.id], items.task.grader) for item in items), strict=True))
    by_rule = {
        rule: np.array([v.score for v in verdicts]) if rule == "random" else _right(verdicts)
        for rule, verdicts in zip(rules, chosen, strict=True)
    }
    for reading, name in OTHER_READINGS.items():
        read = {item.id: [_read(t, reading) for t in traces[item.id]] for item in items}
        if any(a is not b for item in items for a, b in zip(read[item.id], traces[item.id], strict=True)):
            for rule in ("max", "sum"):
                chosen_so = [select(rule, read[item.id], items.task.grader) for item in items]
                by_rule[f"{rule} ({name})"] = _right(chosen_so)
    baseline = reference if reference is not None else by_rule["greedy"]
    out = {}
    for rule, scores in by_rule.items():
        gain = paired(scores, baseline, seed=seed)
        interval = (
            bootstrap_mean(scores, bounds=(0.0, 1.0), seed=seed)
            if rule == "random"
            else proportion_interval(int(scores.sum()), len(scores))
        )
        out[rule] = {
            "accuracy": float(scores.mean()),
            "interval": interval.pair,
            "difference": gain.difference,
            "difference_interval": gain.interval.pair,
        }
    return out


# Δ of a branching token that the answer holds, read otherwise (`elicit.decoding.trace.other_deltas`).
OTHER_READINGS = {"delta_greedy": "the greedy token's margin", "delta_zero": "margin 0"}


def _read(trace: Answered, reading: str) -> Answered:
    """The trace with another reading of Δ, or itself where there is none."""
    delta = getattr(trace, reading)
    if delta is None:
        return trace
    return trace._replace(delta=delta) if isinstance(trace, Outcome) else replace(trace, delta=delta)


def _calibration(traces: Traces, ids: Sequence[str], seed: int) -> dict[str, Any]:
    """Does Δ tell right branches from wrong ones? Over all branches, and within each question; a bin's interval
    resamples questions."""
    answered = [(n, t) for n, i in enumerate(ids) for t in traces[i] if t.delta is not None]
    question = np.array([n for n, _ in answered], dtype=int)
    delta = np.array([t.delta for _, t in answered], dtype=float)
    right = np.array([t.correct for _, t in answered], dtype=bool)
    within = auroc_within(delta, right, question)
    edges = np.arange(-5, 6) / 5  # the nearest floats: `linspace` has a 0.2 that a Δ of 0.2 lies below
    bins = []
    for low, high in pairwise(edges):
        inside = (delta >= low) & ((delta < high) | (high == 1.0))
        if inside.any():
            interval = bootstrap_mean(right[inside].astype(float), question[inside], bounds=(0.0, 1.0), seed=seed)
            bins.append(
                {
                    "low": float(low),
                    "high": float(high),
                    "n": int(inside.sum()),
                    "questions": len(set(question[inside].tolist())),
                    "right": float(right[inside].mean()),
                    "interval": interval.pair,
                }
            )
    value = auroc(delta, right)
    found = auroc_interval(delta, right, question, len(ids))
    return {
        "branches": len(answered),
        "right": int(right.sum()),
        "auroc": None if np.isnan(value) else value,
        "auroc_interval": found.pair if found is not None else None,
        "auroc_within": float(within.mean()) if len(within) else None,
        "auroc_within_interval": bootstrap_mean(within, bounds=(0.0, 1.0), seed=seed).pair if len(within) else None,
        "questions_with_both": len(within),
        "bins": bins,
    }


def _coverage(traces: Traces, ids: Sequence[str]) -> dict[str, Any]:
    """Coverage@k by rank, and how often the branch of each rank is right and is chosen by none."""
    right = np.array([[t.correct for t in traces[i]] for i in ids], dtype=float)
    return {"coverage": coverage_at_k(right).tolist(), "right_at_rank": right.mean(axis=0).tolist()}


def _independent(traces: Traces, items: Items, seed: int) -> dict[str, Any]:
    """pass@k, maj@k and avg@k of independent samples.

    avg@k is the share of an item's samples that are right, averaged over items; its interval resamples items, as the
    samples of one item say nothing about others.
    """
    n = np.array([len(traces[item.id]) for item in items])
    correct = np.array([sum(t.correct for t in traces[item.id]) for item in items])
    interval = bootstrap_mean(correct / n, bounds=(0.0, 1.0), seed=seed).pair
    ks = [k for k in (1, 2, 4, 5, 8, 10, 16, 32, 64, 128, 256) if k <= int(n.min())]
    groups = [_classes(traces[item.id], items) for item in items]
    right = [np.array([float(t.correct) for t in traces[item.id]]) for item in items]
    return {
        "avg_at_k": {"k": int(n.min()), "mean": float((correct / n).mean()), "interval": interval},
        "pass_at_k": {str(k): float(pass_at_k(n, correct, k).mean()) for k in ks},
        "maj_at_k": {str(k): float(maj_at_k(groups, right, k, resamples=200).mean()) for k in ks},
    }


def _classes(traces: Sequence[Answered], items: Items) -> np.ndarray:
    """The equivalence class of each sample's answer; one that was dropped has no vote, as under the rule `vote`."""
    kept = [place for place, trace in enumerate(traces) if not trace.dropped]
    out = np.full(len(traces), NO_ANSWER)
    if kept:
        out[kept] = items.task.grader.groups([traces[place].answer or "" for place in kept])
    return out
