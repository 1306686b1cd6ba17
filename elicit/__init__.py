"""elicit: what a language model can already do, and the keys that show it.

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
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from elicit import methods
    from elicit.decoding.trace import Trace
    from elicit.elicited import Elicited
    from elicit.evaluation.evaluator import evaluate
    from elicit.evaluation.run.run import Run
    from elicit.models.model import Model, load_model
    from elicit.tasks import Item, Task, load_task
    from probes.errors import UserError

_HOMES = {
    "Elicited": "elicit.elicited",
    "Item": "elicit.tasks",
    "Model": "elicit.models",
    "Run": "elicit.evaluation",
    "Task": "elicit.tasks",
    "Trace": "elicit.decoding.trace",
    "UserError": "probes.errors",
    "evaluate": "elicit.evaluation",
    "load_model": "elicit.models",
    "load_task": "elicit.tasks",
}

__all__ = [
    "Elicited",
    "Item",
    "Model",
    "Run",
    "Task",
    "Trace",
    "UserError",
    "evaluate",
    "load_model",
    "load_task",
    "methods",
]


def __getattr__(name: str) -> Any:
    if name == "methods":
        return importlib.import_module("elicit.methods")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'elicit' has no attribute {name!r}")
