"""Accuracy as task, length and format leave what an arm was trained (or tuned) on (arXiv 2508.01191).

Takes runs of one model and one family of tasks: one where the arm is at home, others a step away. The axes of each step
are read from the runs: *task* (another data set or other families), *parameters* (size, number of terms: the length of
a solution), *format* (another prompt).

Longer problems are harder for everybody, so a fall in accuracy alone says nothing of the mechanism. What is held
against a null is the fall of its *gain* over the baseline on the same questions. Null: questions exchanged between home
and away, or, where both ask the same questions, home and away exchanged within a question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from elicit.analysis.base import Analysis, shown, with_left_out
from elicit.evaluation.run.arms import folder_names, known_model
from elicit.evaluation.run.run import Run
from probes.dots import Dot, dot_plot
from probes.errors import UserError, unknown
from probes.statistics import Interval, Null, against_null, bootstrap_mean, holm

NAME = "distribution-shift"
SUMMARY = "accuracy, and the gain over a baseline, as task, length and format leave what was trained on"
PAPER = "2508.01191"
DRAWS = 2000
ONLY_ITEMS = ("family", "seed", "params", "size", "sha256")  # of a task's source: which items, or looked at apart


class Fall(NamedTuple):
    """Home − away, of the accuracy and of the gain over the baseline; the null is of the latter."""

    accuracy: tuple[float, Interval]
    gain: tuple[float, Interval]
    null: Null


def fall(
    home: tuple[Mapping[str, float], Mapping[str, float]],
    away: tuple[Mapping[str, float], Mapping[str, float]],
    *,
    seed: int = 0,
) -> Fall:
    """How far an arm falls from home to away.

    Args:
        home, away: scores by question of the arm and of the baseline.
    """
    (arm, base), (there, base_there) = home, away
    paired = list(arm) if set(arm) == set(there) else []
    here_ids, there_ids = (paired, paired) if paired else (list(arm), list(there))
    accuracy = np.array([arm[i] for i in here_ids]), np.array([there[i] for i in there_ids])
    gain = (
        np.array([arm[i] - base[i] for i in here_ids]),
        np.array([there[i] - base_there[i] for i in there_ids]),
    )
    rng = np.random.default_rng(seed)
    if paired:
        change = gain[0] - gain[1]
        draws = (rng.choice([-1.0, 1.0], size=(DRAWS, len(change))) * change).mean(1)
    else:
        pooled, n = np.concatenate(gain), len(here_ids)
        dealt = pooled[np.argsort(rng.random((DRAWS, len(pooled))), axis=1)]
        draws = dealt[:, :n].mean(1) - dealt[:, n:].mean(1)
    found = _difference(*gain, bool(paired), (-1.0, 1.0), seed)
    return Fall(_difference(*accuracy, bool(paired), (0.0, 1.0), seed), found, against_null(found[0], draws))


def _difference(
    a: Float[np.ndarray, " home"],
    b: Float[np.ndarray, " away"],
    paired: bool,
    bounds: tuple[float, float],
    seed: int,
) -> tuple[float, Interval]:
    """Mean of a − mean of b, whose values lie within bounds; of different questions two intervals are joined by squares
    (Newcombe 1998, method 10)."""
    if paired:
        reach = bounds[1] - bounds[0]
        return float((a - b).mean()), bootstrap_mean(a - b, bounds=(-reach, reach), seed=seed)
    value = float(a.mean() - b.mean())
    one, other = (bootstrap_mean(x, bounds=bounds, seed=seed + n) for n, x in enumerate((a, b)))
    low = value - float(np.hypot(a.mean() - one.low, other.high - b.mean()))
    high = value + float(np.hypot(one.high - a.mean(), b.mean() - other.low))
    return value, Interval(low, high)


def axes(home: Run, away: Run) -> list[str]:
    """Along which axes a run leaves another, in words; none where only the items differ."""
    out = []
    here, there = (run.store.config["task"] for run in (home, away))
    named = [{k: v for k, v in source.items() if k not in ONLY_ITEMS} for source in (here, there)]
    named[0]["name"], named[1]["name"] = home.metrics["task"], away.metrics["task"]
    params = [{k: v for k, v in source.get("params", {}).items() if k != "families"} for source in (here, there)]
    prompts = [run.store.config["arms"][run.metrics["method"]]["prompt"] for run in (home, away)]
    for axis, (one, other) in (("task", named), ("parameters", params), ("format", prompts)):
        changed = [k for k in dict.fromkeys((*one, *other)) if one.get(k) != other.get(k)]
        if changed:
            said = ", ".join(f"{k} {_short(one.get(k))} → {_short(other.get(k))}" for k in changed)
            out.append(f"{axis} ({said})")
    return out


def _short(value: Any) -> str:
    text = "default" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else text[:23] + "…"


def analyse(runs: Sequence[Run], *, home: str = "", baseline: str = "direct", seed: int = 0) -> Analysis:
    """Falls from one run to each other, of every arm that all runs have.

    Args:
        home: the folder's name of the run on what was trained on, with those above it where two are named alike; the
            first run unless given.
        baseline: the arm over which gains are measured.
        seed: of the bootstrap and of the exchanges.

    Raises:
        UserError: fewer than two runs, different models or families, no shift, no baseline or no common arm.
    """
    if len(runs) < 2:
        raise UserError(f"{len(runs)} run was given; give one on what was trained on and at least one away from it")
    folders = folder_names(runs)
    by_name = {name: run for run, name in folders.items()}
    if home and home not in by_name:
        raise unknown("run to start from", home, by_name)
    start = by_name[home] if home else runs[0]
    _check(runs, start)
    arms = [name for name in start.metrics["arms"] if all(name in run.metrics["arms"] for run in runs)]
    if baseline not in arms:
        raise UserError(f"not every run has the arm {baseline!r}; run each with --against {baseline}")
    others = [name for name in arms if name != baseline]
    if not others:
        raise UserError(f"the runs have no arm in common but {baseline!r}; give runs of one method")
    found: list[tuple[Run, list[str], str, Fall]] = []
    left_out: dict[str, str] = {}
    for run in (run for run in runs if run is not start):
        along = axes(start, run)
        if not along:
            left_out[folders[run]] = "it differs from home in its items alone: no shift"
            continue
        for name in others:
            pair = [(_scores(one, name), _scores(one, baseline)) for one in (start, run)]
            found.append((run, along, name, fall(pair[0], pair[1], seed=seed)))
    if not found:
        raise UserError(
            "all runs have the same task, parameters and prompt; give one with another size, task or prompt"
        )
    adjusted = holm([one.null.p for *_, one in found])
    rows = [
        _row(start, run, folders[run], along, name, baseline, one, p)
        for (run, along, name, one), p in zip(found, adjusted, strict=True)
    ]
    notes = [
        f"Home: {folders[start]}. Fall: home − away, of the accuracy and of the gain over {baseline}; intervals are "
        "paired where both ask the same questions.",
        "Null of the fall of the gain: questions exchanged between home and away (where they are the same, within "
        "each question); p is Holm's. A fall of the accuracy without one of the gain is the questions' difficulty.",
        "Not shown: gains where the baseline stands at 0 or 1 have less room, and fall for that alone. What a model "
        "saw in pretraining is not known: only what was trained on here is home.",
    ]
    names = [f"{name}, {folders[run]}" for run, _, name, _ in found]
    figure = dot_plot(
        names,
        {
            "fall of the accuracy": [Dot(one.accuracy[0], *one.accuracy[1].pair) for *_, one in found],
            f"fall of the gain over {baseline}": [Dot(one.gain[0], *one.gain[1].pair) for *_, one in found],
        },
        nulls={"null: home and away exchanged": [Dot(one.null.mean, *one.null.interval.pair) for *_, one in found]},
        title="What is lost away from home",
        x="home − away, fraction of the questions",
    )
    data = {
        "home": folders[start],
        "baseline": baseline,
        "shifts": [
            {"run": folders[run], "axes": along, "arm": name, **one._asdict(), "holm p": p}
            for (run, along, name, one), p in zip(found, adjusted, strict=True)
        ],
        "accuracy": {folders[run]: {name: run.metrics["arms"][name]["accuracy"] for name in arms} for run in runs},
    }
    return Analysis(NAME, with_left_out(rows, left_out), figure, notes, data)


def _check(runs: Sequence[Run], start: Run) -> None:
    for run in runs:
        if known_model(run) != known_model(start):
            raise UserError(
                f"{run.folder} is a run of {run.metrics['model']['name']} and {start.folder} of "
                f"{start.metrics['model']['name']}; give runs of one model"
            )
        family, wanted = (one.store.config["task"]["family"] for one in (run, start))
        if family != wanted:
            raise UserError(
                f"{run.folder} is on a task of {family!r} and {start.folder} of {wanted!r}; give one family"
            )


def _scores(run: Run, arm: str) -> dict[str, float]:
    """By question: an id that a file gave may stand for another one in another task. (The oldest runs keep none.)"""
    asked = {item.id: item.question for item in run.items} if run.store.keeps_items else {}
    return {json.dumps([item, asked.get(item)]): score for item, score in run.metrics["arms"][arm]["scores"].items()}


def _row(
    start: Run, run: Run, folder: str, along: list[str], name: str, baseline: str, one: Fall, p: float
) -> dict[str, Any]:
    def accuracy(where: Run, arm: str) -> str:
        return shown(where.metrics["arms"][arm]["accuracy"])

    if one.gain[0] == 0:
        reading = "the gain is the same"
    elif p >= 0.05:
        reading = "no fall of the gain beyond chance"
    else:
        reading = "the gain falls" if one.gain[0] > 0 else "the gain grows"
    return {
        "away": folder,
        "arm": name,
        "axes": "; ".join(along),
        "accuracy": f"{accuracy(start, name)} → {accuracy(run, name)}",
        baseline: f"{accuracy(start, baseline)} → {accuracy(run, baseline)}",
        "fall of accuracy [95%]": shown(*one.accuracy),
        "fall of gain [95%]": shown(*one.gain),
        "null [95%]": shown(one.null.mean, one.null.interval),
        "p (Holm)": p,
        "reading": reading,
    }
