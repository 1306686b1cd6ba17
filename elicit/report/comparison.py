"""Several runs side by side: the items that all of them share, every arm once, Holm over all differences.

A row is a baseline, a mechanism, or a control, which stands under its mechanism. Of the net difference to the baseline
both halves are given (arXiv 2507.18178): δc, questions that go from wrong to right, and δo, from right to wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elicit.evaluation.budget import MATCHED
from elicit.evaluation.metrics.format import p_value, share, signed, with_interval
from elicit.evaluation.metrics.gap import CEILING, DIRECT, recovered
from elicit.evaluation.metrics.gap import share as share_of_gap
from elicit.evaluation.run.arms import check_questions
from elicit.evaluation.run.run import Run
from elicit.methods import BASELINES
from elicit.tasks.organism.task import NAME as ORGANISM
from probes.errors import UserError, unknown
from probes.statistics import holm, paired, wilson

HEAD = ("arm", "accuracy [95%]", "difference [95%]", "p (Holm)", "δc", "δo", "tokens", "s", "fit, s")
HOW = (
    "Accuracy in %, with Wilson's interval. Differences are the row minus {baseline}, in points, paired by question, "
    "with a bootstrap interval; p is McNemar's exact test, corrected by Holm over all rows. δc: questions in % that go "
    "from wrong to right, δo: from right to wrong. Tokens a question; seconds of all decoding, and of the fit. Rows "
    "with a dot are controls: the mechanism above them is at work only as far as it is better than they are."
)


@dataclass(frozen=True, eq=False)
class Entry:
    """An arm of a run.

    Args:
        label: its name, told apart from others of that name.
        run, key: whose it is, and its name there.
        of: the mechanism that it is a control of, or "".
    """

    label: str
    run: Run
    key: str
    of: str

    @property
    def scores(self) -> dict[str, float]:
        scores: dict[str, float] = self.run.metrics["arms"][self.key]["scores"]
        return scores

    @property
    def source(self) -> str:
        """Whose traces it reads."""
        return str(self.run.store.config["arms"][self.key]["source"])


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Every arm once: baselines, then each mechanism with its controls.

    An arm that answers as another run's does stands once, and for its own run where it has one; what may spend a
    mechanism's tokens is the mechanism's own.

    Raises:
        UserError: no run, or runs of different tasks or models (which).
    """
    _check_same(runs)
    runs = list({run.folder.resolve(): run for run in runs}.values())
    runs.sort(key=lambda run: run.metrics["method"] not in BASELINES)
    found: list[tuple[Run, str, str]] = []
    seen = {_mark(run, run.metrics["method"]) for run in runs}
    for run in runs:
        method = run.metrics["method"]
        found.append((run, method, ""))
        for key in run.metrics["arms"]:
            if key != method and (mark := _mark(run, key)) not in seen:
                seen.add(mark)
                found.append((run, key, "" if key in BASELINES else method))
    found.sort(key=lambda one: one[1] not in BASELINES)
    out: list[Entry] = []
    for run, key, of in found:
        same = [one for one in found if one[1] == key]
        told = key
        if len({one[2] for one in same}) < len(same):
            told = f"{key} ({run.folder.name})"
        elif len(same) > 1 and of:
            told = f"{of}: {key}"
        out.append(Entry(told, run, key, of))
    return out


def _mark(run: Run, key: str) -> str:
    about = {k: v for k, v in run.store.config["arms"][key].items() if k not in ("source", "options", "method")}
    whose = str(run.folder.resolve()) if MATCHED in key else ""
    return json.dumps([key, about, whose, run.reads], sort_keys=True)


def _check_same(runs: Sequence[Run]) -> None:
    if not runs:
        raise UserError("nothing to compare; give folders of runs, or --methods all")
    for what, of in (
        ("tasks", lambda run: run.metrics["task"]),
        ("models", lambda run: f"{run.metrics['model']['name']} {run.metrics['model']['sha256'][:12]}…"),
    ):
        found = {of(run): run.folder for run in runs}
        if len(found) > 1:
            said = "; ".join(f"{folder}: {value}" for value, folder in found.items())
            raise UserError(f"the runs are of different {what} ({said}); give runs of one")


def shared_items(arms: Sequence[Entry]) -> tuple[list[str], str]:
    """The items that all arms answered, in the first one's order, and a line where they are not all of them.

    Raises:
        UserError: there is none, or one id stands for different questions.
    """
    first, *others = (arm.scores for arm in arms)
    shared = [item for item in first if all(item in other for other in others)]
    counts = {str(arm.run.folder): len(arm.scores) for arm in arms}
    said = ", ".join(f"{folder}: {count}" for folder, count in counts.items())
    if not shared:
        raise UserError(f"the runs have no item in common ({said}); give runs of the same task, split and seed")
    check_questions(arms, shared)
    if set(counts.values()) == {len(shared)}:
        return shared, ""
    return shared, f"The runs are of different items ({said}); {len(shared)} are in all of them, and only these count."


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
        fit_seconds: of each method, where they are known.
        left_out: methods that are not among them, and why.

    Raises:
        UserError: runs of different tasks or models, no item in common, or no arm of the baseline's name.
    """
    arms = entries(runs)
    shared, note = shared_items(arms)
    reference = next((arm for arm in arms if arm.key == baseline), None)
    if reference is None:
        raise unknown("baseline", baseline, [arm.key for arm in arms])
    values = {arm.label: np.array([arm.scores[i] for i in shared]) for arm in arms}
    rows = [_row(arm, values[arm.label]) for arm in arms]
    for row in rows:
        if row["arm"] == reference.label:
            continue
        result = paired(values[row["arm"]], values[reference.label], seed=seed)
        row |= {
            "difference": result.difference,
            "difference_interval": result.interval.pair,
            "wins": result.wins,
            "losses": result.losses,
            "corrected": result.wins / len(shared),
            "harmed": result.losses / len(shared),
            "mcnemar_p": result.mcnemar_p,
        }
    tested = [row for row in rows if "mcnemar_p" in row]
    for row, p in zip(tested, holm([row["mcnemar_p"] for row in tested]), strict=True):
        row["holm_p"] = p
    task, model = runs[0].metrics["task"], runs[0].metrics["model"]
    if task == ORGANISM and {DIRECT, CEILING} <= set(values):  # one organism: its ceiling is known
        for row in rows:
            found = recovered(values[row["arm"]], values[DIRECT], values[CEILING], seed=seed)
            if found.share is not None and found.interval is not None:
                row |= {"recovered": found.share, "recovered_interval": found.interval.pair}
    for row in rows:
        if not row["of"] and row["key"] in (fit_seconds or {}):
            row["fit_seconds"] = (fit_seconds or {})[row["key"]]
    return {
        "task": task, "items": len(shared), "model": model, "baseline": reference.label, "arms": rows,
        "notes": [note] if note else [], "left_out": dict(left_out or {}), "seed": seed,
        "runs": list(dict.fromkeys(str(arm.run.folder) for arm in arms)),
    }  # fmt: skip


def _row(arm: Entry, values: np.ndarray) -> dict[str, Any]:
    metrics = arm.run.metrics["arms"][arm.key]
    return {
        "arm": arm.label,
        "key": arm.key,
        "of": arm.of,
        "accuracy": float(values.mean()),
        "interval": wilson(int(values.sum()), len(values)).pair,
        "tokens_per_item": metrics["tokens_per_item"],
        "seconds": arm.run.metrics["seconds"].get(arm.source),
    }


def head_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """With a column more where the ceiling is known."""
    return (*HEAD, "gap recovered") if any("recovered" in row for row in result["arms"]) else HEAD


def rows_of(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    known = any("recovered" in row for row in result["arms"])
    out: list[tuple[str, ...]] = []
    for row in result["arms"]:
        gain = ("", "", "", "")
        if "difference" in row:
            gain = (
                with_interval(row["difference"], row["difference_interval"], signed), p_value(row["holm_p"]),
                share(row["corrected"]), share(row["harmed"]),
            )  # fmt: skip
        cost = (f"{row['tokens_per_item']:.0f}", _seconds(row["seconds"]), _seconds(row.get("fit_seconds")))
        told = f"· {row['key']}" if row["of"] else row["arm"]
        cells = (told, with_interval(row["accuracy"], row["interval"]), *gain, *cost)
        gap = share_of_gap(row["recovered"], row["recovered_interval"]) if "recovered" in row else ""
        out.append((*cells, gap) if known else cells)
    return out


def remarks(result: Mapping[str, Any]) -> list[str]:
    """How the table is read, and what is not in it."""
    left = [f"{name} is left out: {reason}." for name, reason in result["left_out"].items()]
    return [HOW.format(baseline=result["baseline"]), *result["notes"], *left]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
