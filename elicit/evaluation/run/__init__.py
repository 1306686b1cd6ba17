"""A run as a folder: its store, its table, its arms and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.evaluation.run.run import Run as Run
    from elicit.evaluation.run.store import Store as Store

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Run": "elicit.evaluation.run.run",
        "Store": "elicit.evaluation.run.store",
    },
)
