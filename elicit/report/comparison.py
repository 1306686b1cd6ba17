"""Several runs side by side: the items that all of them share, every arm once, Holm over all differences.

A row is a baseline, a mechanism, or a control, which stands under its mechanism. Of the net difference to the baseline
both halves are given (arXiv 2507.18178): δc, questions that go from wrong to right, and δo, from right to wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from elicit.evaluation.description import bits_of
from elicit.evaluation.metrics.bottom_line import BottomLine, bottom_line, several
from elicit.evaluation.metrics.format import (
    FORWARDS,
    count,
    forwards_column,
    not_stated_cell,
    p_value,
    percent,
    signed,
    with_interval,
)
from elicit.evaluation.metrics.gap import DIRECT, format_gap, recovered_by_arm
from elicit.evaluation.metrics.run_metrics import spent_by
from elicit.evaluation.metrics.verdicts import not_stated
from elicit.evaluation.run.arms import Arm, check_together, counted, distinct, folder_names, shared_items
from elicit.evaluation.run.run import Run
from elicit.methods import BASELINES
from probes.errors import unknown
from probes.statistics import holm, paired, proportion_interval

HEAD = ("arm", "accuracy [95%]", "difference [95%]", "p (Holm)", "δc", "δo", "tokens", "s", "fit, s", "bits")
TOKENS = HEAD.index("tokens") + 1  # columns up to there
HOW = (
    "Accuracy in %, with Agresti and Coull's interval. Differences are the row minus {baseline}, in points, paired by "
    "question, with a bootstrap interval; p is McNemar's exact test, corrected by Holm over all rows. δc: questions in "
    "% that go from wrong to right, δo: from right to wrong. Tokens a question; seconds of all decoding, and of the "
    "fit. Bits: what must be said beside the model to have the row: choices, texts as the base codes them, and the "
    "signal of a training, or its weights where that was not counted; –: not known. Rows with a dot are controls: the "
    "mechanism above them is at work only as far as it is better than they are."
)


@dataclass(frozen=True, eq=False)
class Entry(Arm):
    """An arm of a comparison.

    Args:
        of: the mechanism that it is a control of, or "".
    """

    of: str


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Every arm once: baselines, then each mechanism with its controls.

    An arm that answers as another run's does stands once, and for its own run where it has one; what may spend a
    mechanism's tokens is the mechanism's own.

    Raises:
        UserError: no run, or runs of different tasks or models (which).
    """
    check_together(runs, model_by=("name", "sha256"))
    runs = list({run.folder.resolve(): run for run in runs}.values())
    runs.sort(key=lambda run: run.metrics["method"] not in BASELINES)
    out: list[Entry] = []
    for arm in distinct(runs, _mark, keep_main=True):
        method = arm.run.metrics["method"]
        out.append(Entry(arm.key, arm.run, arm.key, of="" if arm.key in (method, *BASELINES) else method))
    out.sort(key=lambda arm: arm.key not in BASELINES)
    folders = folder_names(runs)
    return [replace(arm, name=_label(arm, out, folders)) for arm in out]


def _mark(arm: Arm) -> str:
    about = {k: v for k, v in arm.about.items() if k not in ("source", "options", "method")}
    return json.dumps([arm.key, about, arm.whose, arm.run.reads], sort_keys=True)


def _label(arm: Entry, arms: Sequence[Entry], folders: Mapping[Run, str]) -> str:
    """An arm's name, told apart from others of that name."""
    same = [other for other in arms if other.key == arm.key]
    if len({other.of for other in same}) < len(same):
        return f"{arm.key} ({folders[arm.run]})"
    return f"{arm.of}: {arm.key}" if len(same) > 1 and arm.of else arm.key


def compare_runs(
    runs: Sequence[Run],
    *,
    baseline: str = DIRECT,
    seed: int = 0,
    fit_seconds: Mapping[str, float] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Compare the arms of several runs.

    Args:
        runs: finished ones.
        baseline: the arm that differences are taken to.
        seed: of the bootstrap.
        fit_seconds: of each method, or of each run by its folder, where they are known.
        left_out: methods that are not among them, and why.

    Raises:
        UserError: runs of different tasks or models, no item in common, or no arm of the baseline's name.
    """
    arms = entries(runs)
    shared = shared_items(arms)
    notes = []
    if any(len(arm.scores) != len(shared) for arm in arms):
        only = f"{len(shared)} are in all of them, and only these count."
        notes.append(f"The runs are of different items ({counted(arms)}); {only}")
    reference = next((arm for arm in arms if arm.key == baseline), None)
    if reference is None:
        raise unknown("baseline", baseline, [arm.key for arm in arms])
    values = {arm.name: np.array([arm.scores[i] for i in shared]) for arm in arms}
    rows = [_row(arm, values[arm.name], shared) for arm in arms]
    unstated = {row["arm"] for row in rows if not row["stated"]}
    for row in rows:
        if row["arm"] == reference.name or unstated & {row["arm"], reference.name}:
            continue
        result = paired(values[row["arm"]], values[reference.name], seed=seed)
        row |= {
            "difference": result.difference,
            "difference_interval": result.interval.pair,
            "wins": result.wins,
            "losses": result.losses,
            "corrected": result.wins / len(shared),
            "harmed": result.losses / len(shared),
            "mcnemar_p": result.mcnemar_p,
        }
    correct(rows)
    task, model = runs[0].metrics["task"], runs[0].metrics["model"]
    gaps = recovered_by_arm(task, {name: one for name, one in values.items() if name not in unstated}, seed=seed)
    took = fit_seconds or {}
    for arm, row in zip(arms, rows, strict=True):
        row |= gaps.get(row["arm"], {})
        known = took.get(str(arm.run.folder), took.get(arm.key)) if arm.key == arm.run.metrics["method"] else None
        if known is not None:
            row["fit_seconds"] = known
    lines = _bottom_lines(arms, reference, shared, {row["arm"]: row.get("recovered") for row in rows}, seed)
    return {
        "bottom_line": several(lines), "bottom_lines": {name: line.sentence for name, line in lines.items()},
        "task": task, "items": len(shared), "model": model, "baseline": reference.name, "arms": rows,
        "notes": notes, "left_out": dict(left_out or {}), "seed": seed,
        "runs": list(dict.fromkeys(str(arm.run.folder) for arm in arms)),
    }  # fmt: skip


def correct(rows: Sequence[dict[str, Any]]) -> None:
    """Put into each row that differs from the baseline its p, corrected by Holm over all of them."""
    tested = [row for row in rows if "mcnemar_p" in row]
    for row, p in zip(tested, holm([row["mcnemar_p"] for row in tested]), strict=True):
        row["holm_p"] = p


def _bottom_lines(
    arms: Sequence[Entry], reference: Entry, shared: Sequence[str], recovered: Mapping[str, float | None], seed: int
) -> dict[str, BottomLine]:
    """Of each mechanism beside its own run's arms; where there is none of each baseline, or of the one there is."""
    same = {reference.key}.intersection(BASELINES)  # such as direct answers of another seed
    others = [arm for arm in arms if not arm.of and arm is not reference and arm.key not in same]
    out = {}
    for arm in [one for one in others if one.key not in BASELINES] or others or [reference]:
        beside = {} if arm.key in BASELINES else arm.run.metrics["arms"]
        scores = {key: one["scores"] for key, one in beside.items() if key != arm.key}
        scores |= {reference.name: reference.scores, arm.name: arm.scores}
        values = {name: np.array([one[item] for item in shared]) for name, one in scores.items()}
        why_not = _not_stated(arm.run, *beside, arm.key) or _not_stated(reference.run, reference.key)
        out[arm.name] = bottom_line(
            arm.name, values, start=reference.name, recovered=recovered[arm.name], seed=seed, not_stated=why_not
        )
    return out


def _not_stated(run: Run, *keys: str) -> str:
    """Why a run states no accuracy of some of these arms, or ""."""
    return not_stated({key: run.metrics["arms"][key] for key in keys}, run.metrics["items"])


def _row(arm: Entry, values: np.ndarray, shared: Sequence[str]) -> dict[str, Any]:
    """An arm over the items that all have, its costs too; seconds are those of a whole run or none. Where it lost too
    many verdicts, `accuracy` is the least that it may be and not stated."""
    spent, whole = arm.run.metrics["arms"][arm.key], len(arm.scores) == len(shared)
    if not whole:
        of_item = arm.run.outcomes[arm.source]
        spent = spent_by([one for item in shared for one in of_item[item]], len(shared))
    return {
        "arm": arm.name,
        "key": arm.key,
        "of": arm.of,
        "stated": arm.stated,
        "accuracy": float(values.mean()),
        "interval": proportion_interval(int(values.sum()), len(values)).pair,
        **{key: spent[key] for key in ("tokens_per_item", "forwards_per_item") if key in spent},
        "seconds": arm.run.metrics["seconds"].get(arm.source) if whole else None,
        "bits": bits_of(arm.run.metrics, arm.key),
    }


def each_line(result: Mapping[str, Any]) -> list[str]:
    """The bottom line of each method, where there are several."""
    lines = list(result["bottom_lines"].values())
    return lines if len(lines) > 1 else []


def head_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """With a column more where the ceiling is known, and one where forward passes are not one a token."""
    head = (*HEAD, "gap recovered") if any("recovered" in row for row in result["arms"]) else HEAD
    return head if forwards_column(result["arms"]) is None else (*head[:TOKENS], FORWARDS, *head[TOKENS:])


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    known = any("recovered" in row for row in result["arms"])
    out: list[tuple[str, ...]] = []
    for row in result["arms"]:
        gain = ("", "", "", "")
        if "difference" in row:
            gain = (
                with_interval(row["difference"], row["difference_interval"], signed), p_value(row["holm_p"]),
                percent(row["corrected"]), percent(row["harmed"]),
            )  # fmt: skip
        cost = (
            count(row["tokens_per_item"]), _seconds(row["seconds"]), _seconds(row.get("fit_seconds")),
            "–" if row.get("bits") is None else f"{row['bits']:,.0f}",
        )  # fmt: skip
        told = f"· {row['key']}" if row["of"] else row["arm"]
        accuracy = with_interval(row["accuracy"], row["interval"])
        cells = (told, accuracy if row.get("stated", True) else not_stated_cell(row["accuracy"]), *gain, *cost)
        gap = format_gap(row["recovered"], row["recovered_interval"]) if "recovered" in row else ""
        out.append((*cells, gap) if known else cells)
    forwards = forwards_column(result["arms"])
    if forwards is not None:
        out = [(*row[:TOKENS], cell, *row[TOKENS:]) for row, cell in zip(out, forwards, strict=True)]
    return out


def remarks(result: Mapping[str, Any]) -> list[str]:
    """How the table is read, and what is not in it."""
    left = [f"{name} is left out: {reason}." for name, reason in result["left_out"].items()]
    return [HOW.format(baseline=result["baseline"]), *result["notes"], *left]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
