"""What a sweep's results say together: a row for each method, options, model and task, over its seeds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from elicit.evaluation.run.run import Run
from elicit.evaluation.seeds import pooled, scores_by_arm
from elicit.sweeps.folder import Folder

HEAD = ("model", "task", "method", "options", "arm", "seeds", "items", "accuracy", "low", "high")


def groups(folder: Folder) -> dict[tuple[str, ...], dict[int, Run]]:
    """The finished runs, by all but their seed."""
    found: dict[tuple[str, ...], dict[int, Run]] = {}
    for key in folder.results():
        job = folder.by_key[key]
        if job.kind == "run":
            given = job.given
            rest = {k: v for k, v in given.items() if k not in ("method", "model", "task", "seed", "options")}
            said = json.dumps(given["options"], sort_keys=True), json.dumps(rest, sort_keys=True)
            run = Run.load(folder.run_folder(key))
            found.setdefault((given["model"], given["task"], given["method"], *said), {})[given["seed"]] = run
    return found


def rows(folder: Folder) -> Iterator[dict[str, Any]]:
    """The table: each arm of each group, its accuracy over seeds and questions with its 95% interval."""
    for (model, task, method, options, _), runs in groups(folder).items():
        metrics = next(iter(runs.values())).metrics
        arms = pooled([scores_by_arm(run) for run in runs.values()], metrics["method"], lead=True)
        for arm in arms:
            low, high = arm["interval"]
            yield dict(
                zip(
                    HEAD,
                    (model or metrics["model"]["name"], task or metrics["task"], method, options, arm["arm"],
                     " ".join(map(str, runs)), metrics["items"], arm["accuracy"], low, high),
                    strict=True,
                )
            )  # fmt: skip


def table(folder: Folder) -> str:
    """As CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, HEAD)
    writer.writeheader()
    writer.writerows(rows(folder))
    return out.getvalue()


def folders(folder: Folder) -> list[Path]:
    """Of all finished runs."""
    return [run.folder for runs in groups(folder).values() for run in runs.values()]
