"""The score of an elicitation: the fraction of a known gap it recovers, and what it 'recovers' where there is nothing.

    recovered = (mechanism − direct) / (ceiling − direct)

on the same questions. Its interval is Fieller's, of two paired means (`probes.statistics.ratio_interval`), with four
questions more that were not asked: half a question of each of the eight ways in which three arms may be right or wrong.
They leave the fraction as it is, give each mean the two observations that Bonett and Price (2012) add to paired
proportions, and keep an interval that few questions could have moved from being too narrow. Where the gap's own
interval reaches 0, or the gap is below `LEAST_GAP`, the fraction is not defined: of what may not be there no fraction
can be given, and the gain stands for itself. On the twin without the skill there is no gap; what a mechanism gains
there is measured against the gap of the organism that has one, so that both stand in the same unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.tasks.organism.task import NAME as ORGANISM
from probes.errors import UserError
from probes.statistics import RESAMPLES, Interval, bootstrap_mean, ratio_interval

CEILING, DIRECT = "cot-prompt", "direct"
UNASKED = 4  # questions
LEAST_GAP = 0.05  # below it, in the fraction of right answers, no fraction of the gap is given


@dataclass(frozen=True)
class Recovered:
    """A fraction of the gap with its 95% interval; 1 is the ceiling, 0 is no gain. None where no gap is certain."""

    share: float | None  # the fraction, by the name that claims have stored it under
    interval: Interval | None
    gap: float
    gain: float
    gain_interval: Interval
    n: int
    gap_interval: Interval


def recovered(
    mechanism: Float[np.ndarray, " n"],
    direct: Float[np.ndarray, " n"],
    ceiling: Float[np.ndarray, " n"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Recovered:
    """The fraction of the gap that a mechanism recovers.

    Args:
        mechanism, direct, ceiling: scores of the same questions in the same order.

    Raises:
        UserError: lengths that differ, or nothing to score.
    """
    m, d, c = (np.asarray(x, dtype=float) for x in (mechanism, direct, ceiling))
    if not len(m) or not len(m) == len(d) == len(c):
        raise UserError(
            f"scores of {len(m)}, {len(d)} and {len(c)} questions were given; give the same questions to all"
        )
    gap, gain = c - d, m - d
    gap_interval, gain_interval = (bootstrap_mean(one, seed=seed, resamples=resamples) for one in (gap, gain))
    interval = _of_gap(gain, gap) if float(gap.mean()) >= LEAST_GAP and gap_interval.low > 0 else None
    fraction = None if interval is None else float(gain.mean() / gap.mean())
    return Recovered(fraction, interval, float(gap.mean()), float(gain.mean()), gain_interval, len(m), gap_interval)


def _of_gap(gain: Float[np.ndarray, " n"], gap: Float[np.ndarray, " n"]) -> Interval | None:
    """The interval of the fraction, where both are of the same questions; None where the gap may be 0."""
    n = len(gap) + UNASKED
    means = float(gain.sum() / n), float(gap.sum() / n)
    # Of the eight ways two raise and two lower the gain, as many the gap, and one each both at once: half a question of
    # each adds 2, 2 and 1 to the sums of squares and products.
    gain_square, product, gap_square = float(gain @ gain) + 2, float(gain @ gap) + 1, float(gap @ gap) + 2

    def error(total: float, one: float, other: float) -> float:
        return (total / n - one * other) / (n - 1)

    errors = error(gain_square, means[0], means[0]), error(product, *means), error(gap_square, means[1], means[1])
    return ratio_interval(means, errors, len(gap) - 1)


def is_gap(gap: Float[np.ndarray, " n"], *, seed: int = 0, resamples: int = RESAMPLES) -> bool:
    """Whether there is a gap of which a fraction can be given: at least `LEAST_GAP`, its interval above 0.

    Args:
        gap: ceiling − direct, question by question.
    """
    return float(gap.mean()) >= LEAST_GAP and bootstrap_mean(gap, seed=seed, resamples=resamples).low > 0


def recovered_by_arm(task: str, scores: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """What a table has of the gap for each arm: `recovered` and `recovered_interval`.

    Args:
        task: the arms' task; on the organisms' alone the ceiling is known.
        scores: of the same questions in the same order, by arm.

    Returns:
        By arm, of those that recover a fraction; of none without `direct`, the ceiling or a gap between them.
    """
    if task != ORGANISM or not {DIRECT, CEILING} <= set(scores):
        return {}
    return {
        arm: {"recovered": found.share, "recovered_interval": found.interval.pair}
        for arm, found in of_arms(scores, seed=seed).items()
        if found.share is not None and found.interval is not None
    }


def of_arms(
    scores: Mapping[str, np.ndarray], *, direct: str = DIRECT, ceiling: str = CEILING, seed: int = 0
) -> dict[str, Recovered]:
    """For each arm as `recovered`; the two that span the gap are 0 and 1 of it whatever the questions.

    Args:
        scores: of the same questions in the same order, by arm.
        direct, ceiling: names of the two arms.
    """
    out = {}
    for arm, values in scores.items():
        found = recovered(values, scores[direct], scores[ceiling], seed=seed)
        if found.share is not None and arm in (direct, ceiling):
            found = replace(found, interval=Interval(found.share, found.share))
        out[arm] = found
    return out


def false_positive(
    mechanism: Float[np.ndarray, " n"],
    direct: Float[np.ndarray, " n"],
    gap: Float[np.ndarray, " m"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval]:
    """What a mechanism gains on the twin without the skill, in fractions of the gap of the one that has it.

    Args:
        mechanism, direct: scores on the twin, question by question.
        gap: ceiling − direct on the organism with the skill, question by question, on questions of its own.

    Raises:
        UserError: no gap to measure with.
    """
    gain, whole = np.asarray(mechanism, dtype=float) - np.asarray(direct, dtype=float), float(gap.mean())
    each = [np.r_[one, -1.0, 1.0] for one in (gain, gap)]  # two questions that were not asked, as in `bootstrap_mean`
    means, errors = zip(*((float(one.mean()), float(one.var()) / len(one)) for one in each), strict=True)
    interval = None
    if is_gap(gap, seed=seed, resamples=resamples):
        interval = ratio_interval(means, (errors[0], 0.0, errors[1]), len(gap) - 1)
    if interval is None:
        raise UserError(
            f"a gap of {whole:.2f} on {len(gap)} questions was given; measure with an organism whose ceiling is above "
            "its direct answers, on more questions"
        )
    return float(gain.mean()) / whole, interval


def score_run(metrics: Mapping[str, Any], *, seed: int = 0) -> dict[str, Recovered]:
    """For each arm of a run the fraction of the gap from `direct` (0) to `cot-prompt` (1) that it recovers.

    Raises:
        UserError: a run without these two.
    """
    _check_arms(metrics, DIRECT, CEILING)
    return of_arms({name: scores_of(metrics, name) for name in metrics["arms"]}, seed=seed)


def _check_arms(metrics: Mapping[str, Any], *needed: str) -> None:
    for name in needed:
        if name not in metrics["arms"]:
            raise UserError(f"the run has no arm {name!r}; evaluate against {','.join(needed)}")


def score_runs(
    runs: Sequence[Mapping[str, Any]], twins: Sequence[Mapping[str, Any]] = (), *, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a model and arm, with what each twin that ran the same arm gained there in fractions of the model's gap.

    Where a run states no accuracy of an arm (`elicit.evaluation.metrics.verdicts`), what would follow from it is None:
    `recovered`, `gain` and `on_twin`; `stated` says it of the accuracy, `gap_stated` of what is recovered.

    Args:
        twins: of one twin, runs of several methods; a row's is that of its own method's run, else the first with its
            arm.

    Raises:
        UserError: a run without the arms that span the gap, or of another task than the organisms'; two of one method
            on one twin.
    """
    for metrics in (*runs, *twins):
        if metrics["task"] != ORGANISM:
            raise UserError(
                f"a run on {metrics['task']!r} was given, whose ceiling is unknown; give runs on task organism"
            )
    given: set[tuple[str, str]] = set()
    for twin in twins:
        _check_arms(twin, DIRECT)
        key = twin["model"]["name"], twin.get("method", "")
        if key in given:
            raise UserError(f"two runs of {key[1]!r} on the twin {key[0]!r} were given; give one")
        given.add(key)
    rows: list[dict[str, Any]] = []
    for metrics in runs:
        spanned = score_run(metrics, seed=seed)
        gap = scores_of(metrics, CEILING) - scores_of(metrics, DIRECT)
        others = [twin for twin in twins if twin is not metrics] if is_gap(gap, seed=seed) else []
        others.sort(key=lambda twin: twin.get("method") != metrics.get("method"))
        for name, one in spanned.items():
            arm = metrics["arms"][name]
            known, gained = _are_stated(metrics, DIRECT, CEILING, name), _are_stated(metrics, DIRECT, name)
            rows.append({
                "model": metrics["model"]["name"], "sha256": metrics["model"]["sha256"], "arm": name, "n": one.n,
                "accuracy": arm["accuracy"], "interval": arm["interval"], "tokens_per_item": arm["tokens_per_item"],
                "stated": _are_stated(metrics, name), "gap_stated": known,
                "recovered": one.share if known else None,
                "recovered_interval": one.interval.pair if known and one.interval else None,
                "gain": one.gain if gained else None, "gain_interval": one.gain_interval.pair if gained else None,
                "twins": _on_twins(name, gap, _are_stated(metrics, DIRECT, CEILING), others, seed),
            })  # fmt: skip
    names = list(dict.fromkeys(twin["model"]["name"] for twin in twins))
    for row in rows:
        row["twins"].sort(key=lambda one: names.index(one["twin"]))
    return rows


def _are_stated(metrics: Mapping[str, Any], *names: str) -> bool:
    """Whether a run states an accuracy of all of these arms."""
    return all(is_accuracy(metrics["arms"][name], len(metrics["arms"][name]["scores"])) for name in names)


def _on_twins(
    name: str, gap: Float[np.ndarray, " m"], known: bool, twins: Sequence[Mapping[str, Any]], seed: int
) -> list[dict[str, Any]]:
    """What an arm gained on each twin that ran it: on one that several runs are of, in the first of them.

    Args:
        known: whether the run states the gap.
    """
    found: dict[str, dict[str, Any]] = {}
    for twin in twins:
        where = twin["model"]["name"]
        if name not in twin["arms"] or where in found:
            continue
        found[where] = {"twin": where, "on_twin": None, "on_twin_interval": None}
        if known and _are_stated(twin, DIRECT, name):
            value, interval = false_positive(scores_of(twin, name), scores_of(twin, DIRECT), gap, seed=seed)
            found[where] |= {"on_twin": value, "on_twin_interval": interval.pair}
    return list(found.values())


SCORE_HEAD = ("arm", "right [95%]", "tokens", "gap recovered", "on the twin")
NOT_STATED = "not stated"


def score_head(scored: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """`SCORE_HEAD`; where there are several twins, a column each."""
    twins = _twins_of(scored)
    return (*SCORE_HEAD[:-1], *(f"on {Path(name).name}" for name in twins)) if len(twins) > 1 else SCORE_HEAD


def _twins_of(scored: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one["twin"] for row in scored for one in row["twins"]))


def format_gap(value: float, interval: Sequence[float]) -> str:
    """A fraction of the gap with its interval, as tables show it."""
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def gap_cell(value: float | None, interval: Sequence[float] | None, gain: float, gain_interval: Sequence[float]) -> str:
    """The fraction of the gap; where none is defined, the gain in points."""
    from elicit.evaluation.metrics.format import signed, with_interval

    if value is None or interval is None:
        return f"no gap: {with_interval(gain, gain_interval, signed)} points"
    return format_gap(value, interval)


def score_rows(scored: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of one model's table: accuracies in %, fractions of the gap, each with its interval."""
    from elicit.evaluation.metrics.format import count, not_stated_cell, with_interval

    twins = _twins_of(scored) or [""]
    rows: list[tuple[str, ...]] = []
    for row in scored:
        right = with_interval(row["accuracy"], row["interval"]) if row["stated"] else not_stated_cell(row["accuracy"])
        of_gap = NOT_STATED
        if row["gap_stated"]:
            of_gap = gap_cell(row["recovered"], row["recovered_interval"], row["gain"], row["gain_interval"])
        on = {
            one["twin"]: NOT_STATED if one["on_twin"] is None else format_gap(one["on_twin"], one["on_twin_interval"])
            for one in row["twins"]
        }
        rows.append((row["arm"], right, count(row["tokens_per_item"]), of_gap, *(on.get(name, "") for name in twins)))
    return rows


def scores_of(metrics: Mapping[str, Any], arm: str) -> Float[np.ndarray, " items"]:
    """The scores of an arm, in the order of the items."""
    return np.array(list(metrics["arms"][arm]["scores"].values()))


def by_family(scores: Mapping[str, float], families: Mapping[str, str]) -> dict[str, list[float]]:
    """The scores of each family, from scores by item and the family of each item."""
    out: dict[str, list[float]] = {}
    for item, score in scores.items():
        out.setdefault(families[item], []).append(score)
    return out
