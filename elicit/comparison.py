"""Several runs side by side: the items that all of them share, every arm once, Holm over all differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from elicit.errors import UserError, unknown
from elicit.organisms.score import CEILING, DIRECT, recovered, share
from elicit.report import p_value, signed, with_interval
from elicit.run import Run
from elicit.statistics import holm, paired, wilson
from elicit.tasks.organism import NAME as ORGANISM

HEAD = ("arm", "model", "accuracy [95%]", "tokens", "difference [95%]", "p (Holm)")


def compare_runs(runs: Sequence[Run], *, baseline: str = "direct", seed: int = 0) -> dict[str, Any]:
    """Compare the arms of several runs.

    Raises:
        UserError: runs of different tasks, no item in common, or no arm of the baseline's name.
    """
    tasks = {run.metrics["task"] for run in runs}
    if len(tasks) > 1:
        raise UserError(f"the runs are of different tasks ({', '.join(sorted(tasks))}); give runs of one task")
    arms: dict[str, tuple[Run, str]] = {}
    for run in runs:
        for name in run.metrics["arms"]:
            label = (
                name
                if len({r.metrics["model"]["name"] for r in runs}) == 1
                else f"{name} ({run.metrics['model']['name']})"
            )
            if label not in arms or name == run.metrics["method"]:
                arms[label] = (run, name)
    scores = {label: run.metrics["arms"][name]["scores"] for label, (run, name) in arms.items()}
    shared = [i for i in next(iter(scores.values())) if all(i in s for s in scores.values())]
    if not shared:
        raise UserError("the runs have no item in common; give runs of the same task and split")
    reference = next((label for label in arms if label.split(" (")[0] == baseline), None)
    if reference is None:
        raise unknown("baseline", baseline, arms)
    values = {label: np.array([s[i] for i in shared]) for label, s in scores.items()}
    rows = []
    for label, (run, name) in arms.items():
        arm = run.metrics["arms"][name]
        interval = wilson(int(values[label].sum()), len(shared))
        row: dict[str, Any] = {
            "arm": label,
            "model": run.metrics["model"]["name"],
            "accuracy": float(values[label].mean()),
            "interval": interval.pair,
            "tokens_per_item": arm["tokens_per_item"],
        }
        if label != reference:
            result = paired(values[label], values[reference], seed=seed)
            row["difference"] = result.difference
            row["difference_interval"] = result.interval.pair
            row["wins"], row["losses"] = result.wins, result.losses
            row["mcnemar_p"] = result.mcnemar_p
        rows.append(row)
    if tasks == {ORGANISM} and {DIRECT, CEILING} <= set(values):  # one organism: its ceiling is known
        for row in rows:
            found = recovered(values[row["arm"]], values[DIRECT], values[CEILING], seed=seed)
            if found.share is not None and found.interval is not None:
                row |= {"recovered": found.share, "recovered_interval": found.interval.pair}
    tested = [row for row in rows if "mcnemar_p" in row]
    for row, p in zip(tested, holm([row["mcnemar_p"] for row in tested]), strict=True):
        row["holm_p"] = p
    return {"task": tasks.pop(), "items": len(shared), "baseline": reference, "arms": rows}


def head_of(result: dict[str, Any]) -> tuple[str, ...]:
    """With a column more where the ceiling is known."""
    return (*HEAD, "gap recovered") if any("recovered" in row for row in result["arms"]) else HEAD


def rows_of(result: dict[str, Any]) -> list[tuple[str, ...]]:
    out: list[tuple[str, ...]] = []
    for row in result["arms"]:
        gain = ("", "")
        if "difference" in row:
            gain = with_interval(row["difference"], row["difference_interval"], signed), p_value(row["holm_p"])
        tokens = f"{row['tokens_per_item']:.0f}"
        shares = (share(row["recovered"], row["recovered_interval"]),) if "recovered" in row else ()
        out.append((row["arm"], row["model"], with_interval(row["accuracy"], row["interval"]), tokens, *gain, *shares))
    return out
