"""One handle and its baselines on the same items: a resumable run, its metrics, manipulation check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.evaluation.evaluator import evaluate as evaluate
    from elicit.evaluation.run.run import Run as Run

__getattr__, __dir__ = lazily(
    __name__,
    {
        "evaluate": "elicit.evaluation.evaluator",
        "Run": "elicit.evaluation.run.run",
    },
)
