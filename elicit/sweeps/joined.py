"""What a sweep's results say together: a row for each method, options, model and task, over its seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from elicit.evaluation.run.run import Run
from elicit.evaluation.seeds import runs_over_seeds
from elicit.sweeps.folder import Folder
from probes.csv_table import csv_table

HEAD = ("model", "task", "method", "options", "arm", "seeds", "items", "accuracy", "low", "high")


Groups = Mapping[tuple[str, ...], Mapping[int, Run]]


def groups(folder: Folder) -> Groups:
    """The finished runs, by all but their seed; what follows is given them, since reading them takes time."""
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


def rows(found: Groups) -> Iterator[dict[str, Any]]:
    """The table: each arm of each group, its accuracy over seeds and questions with its 95% interval; empty where
    a run states none."""
    for (model, task, method, options, _), runs in found.items():
        metrics = next(iter(runs.values())).metrics
        for arm in runs_over_seeds(runs)["arms"]:
            low, high = arm.get("interval", ("", ""))
            yield dict(
                zip(
                    HEAD,
                    (model or metrics["model"]["name"], task or metrics["task"], method, options, arm["arm"],
                     " ".join(map(str, runs)), metrics["items"], arm.get("accuracy", ""), low, high),
                    strict=True,
                )
            )  # fmt: skip


def table(some: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV."""
    return csv_table(HEAD, some)


def folders(found: Groups) -> list[Path]:
    """Of all finished runs."""
    return [run.folder for runs in found.values() for run in runs.values()]
