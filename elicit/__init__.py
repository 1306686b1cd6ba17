"""elicit: fourteen ways to elicit latent reasoning from a base model, behind one evaluation with matched controls.

>>> import elicit
>>> model = elicit.load_model("smollm2-135m")
>>> task = elicit.load_task("chain-sum", limit=64)
>>> handle = elicit.methods.cot_decoding.fit(model, task.fit)
>>> run = elicit.evaluate(handle, task.test, against="direct")
>>> run.summary(); run.figure("branch-tree")

Heavy libraries are imported when a name is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import probes
import steering

__version__ = "0.1.0"

for _package in (probes, steering):
    if getattr(_package, "PART_OF", "") != "elicit":
        raise ImportError(
            f"the package {_package.__name__!r} that is found first ({next(iter(_package.__path__))}) is not the one "
            "that elicit came with; take it off the path, or install elicit in an environment of its own"
        )

if TYPE_CHECKING:
    from elicit import analysis, hub, methods
    from elicit.decoding.progress import Progress
    from elicit.decoding.trace import Trace
    from elicit.elicited import Elicited
    from elicit.evaluation.run.run import Run
    from elicit.models.model import Model, load_model
    from elicit.models.processes import Processes
    from elicit.tasks.base import Item, Items, Task
    from elicit.tasks.registry import load_task
    from probes.errors import UserError
    from steering.check import check_steering

_HOMES = {
    "Elicited": "elicit.elicited",
    "Item": "elicit.tasks",
    "Model": "elicit.models",
    "Run": "elicit.evaluation",
    "Task": "elicit.tasks",
    "Trace": "elicit.decoding.trace",
    "UserError": "probes.errors",
    "check_steering": "steering.check",
    "load_model": "elicit.models",
    "load_task": "elicit.tasks",
}

_PARTS = ("analysis", "hub", "methods")

__all__ = [
    "Elicited",
    "Item",
    "Model",
    "Run",
    "Task",
    "Trace",
    "UserError",
    "analysis",
    "check_steering",
    "evaluate",
    "hub",
    "load_model",
    "load_task",
    "methods",
]


def evaluate(
    handle: Elicited,
    items: Items,
    *,
    against: str | Sequence[str] | Mapping[str, Elicited] = ("direct",),
    out: Path | str | None = None,
    seed: int = 0,
    batch_rows: int | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    processes: Processes | None = None,
) -> Run:
    """Evaluate a handle against baselines on the same items, with a page that opens offline (`report.html`).

    Args:
        handle: what is evaluated.
        items: the questions, e.g. `task.test`.
        against: names of baselines (`direct`, `cot-prompt`, `self-consistency`, each also `@budget`), or handles by
            name.
        out: the run's folder; derived from the configuration's hash unless given, so that the same call resumes the
            same run.
        seed: of samplers and of the bootstrap.
        batch_rows: branches decoded together.
        fresh: remove what the folder holds of this or another run first.
        progress: what is reported to.
        processes: all that were launched, each of which calls this (`elicit.models.processes.launched`).

    Raises:
        UserError: as `elicit.evaluation.evaluator.evaluate`; an unknown baseline.
    """
    from elicit.elicited import HANDLE
    from elicit.evaluation.evaluator import evaluate as evaluated
    from elicit.methods import beside, named
    from elicit.report.page import render

    if isinstance(against, Mapping):
        others = {name: HANDLE.taken(f"against[{name!r}]", one) for name, one in against.items()}
    else:
        others = beside(handle, items, named(against), seed)
    return evaluated(
        handle, items, against=others, out=out, seed=seed, batch_rows=batch_rows, fresh=fresh, progress=progress,
        page=render, processes=processes,
    )  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"elicit.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'elicit' has no attribute {name!r}")
