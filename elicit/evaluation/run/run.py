"""`Run`: a finished evaluation, to be looked at from a notebook or the shell."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from elicit.decoding.trace import Outcome, Trace
from elicit.evaluation.metrics.bottom_line import of_run
from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.store import PARQUET, Store
from elicit.evaluation.run.table import outcomes, readable, traces
from elicit.tasks.base import Items
from probes.errors import UserError, unknown
from probes.given import PATH, takes


class Run:
    """Samples and metrics of one folder.

    Args:
        store: the run's files.
        metrics: its metrics, where they are not yet written.
        found: its outcomes, where they are read already.
    """

    def __init__(
        self,
        store: Store,
        metrics: dict[str, Any] | None = None,
        found: dict[str, dict[str, list[Outcome]]] | None = None,
    ) -> None:
        self.store = store
        self._metrics = metrics
        self._items: Items | None = None
        self._traces: dict[str, dict[str, list[Trace]]] | None = None
        self._outcomes = found

    def __repr__(self) -> str:
        metrics = self.metrics
        first, *others = metrics["arms"]
        beside = f" beside {', '.join(others)}" if others else ""
        return f"<run {str(self.folder)!r}: {first}{beside}; {metrics['items']} items of {metrics['task']}>"

    @staticmethod
    @takes(folder=PATH)
    def load(folder: Path | str) -> Run:
        """Read a run.

        Raises:
            UserError: there is none, it is not finished, or its files are not as it wrote them.
        """
        store = Store.read(Path(folder))
        if store.metrics is None:
            raise UserError(f"the run in {str(folder)!r} is not finished; run its command again to resume it")
        return Run(store)

    @property
    def folder(self) -> Path:
        return self.store.folder

    @property
    def reads(self) -> list[Any]:
        """Hash of its tokenizer with the chat template, and the ends of answers; None where an older run has none."""
        identity = self.store.config["identity"]
        return [identity.get("tokenizer"), identity.get("ends")]

    @property
    def metrics(self) -> dict[str, Any]:
        if self._metrics is None:
            self._metrics = self.store.metrics
        assert self._metrics is not None, "the run is not finished"
        return self._metrics

    @property
    def bottom_line(self) -> str:
        """One sentence on what the method gains, and whether its controls do as much."""
        return str(self.metrics.get("bottom_line") or of_run(self.metrics).sentence)  # an older run has none

    @property
    def traces(self) -> dict[str, dict[str, list[Trace]]]:
        """For each source (arm) and item its traces."""
        if self._traces is None:
            self._traces = self.store.traces()
        return self._traces

    @property
    def outcomes(self) -> dict[str, dict[str, list[Outcome]]]:
        """For each source and item what its traces came to, without their tokens."""
        if self._outcomes is None:
            self._outcomes = outcomes(self.store.file(PARQUET))
        return self._outcomes

    def traces_of(self, source: str, *items: str) -> dict[str, list[Trace]]:
        """The traces of a few items, without reading the others."""
        return traces(self.store.file(PARQUET), source, items)

    @property
    def items(self) -> Items:
        """The questions, with their gold answers and their grader."""
        if self._items is None:
            self._items = self.store.items()
        return self._items

    def samples(self) -> pd.DataFrame:
        """One row a trace."""
        with readable(self.store.file(PARQUET)) as file:
            return pd.read_parquet(file)

    def summary(self) -> pd.DataFrame:
        """One row an arm: accuracy, its interval, tokens, and the paired difference of the first arm to it.

        NaN where too many of an arm's answers have no verdict (`elicit.evaluation.metrics.verdicts`).
        """
        metrics = self.metrics
        against = {row["baseline"]: row for row in metrics["comparisons"]}
        rows = {}
        for name, arm in metrics["arms"].items():
            row = against.get(name, {})
            low, high = row.get("interval", (None, None))
            rows[name] = {
                "accuracy": arm["accuracy"],
                "low": arm["interval"][0],
                "high": arm["interval"][1],
                "tokens/item": arm["tokens_per_item"],
                "difference": row.get("difference"),
                "diff low": low,
                "diff high": high,
                "holm p": row.get("holm_p"),
            }
            first = metrics["arms"][metrics["method"]]
            for column in rows[name]:
                concerned = (arm,) if column in ("accuracy", "low", "high") else (arm, first)
                if column != "tokens/item" and not all(is_accuracy(one, metrics["items"]) for one in concerned):
                    rows[name][column] = math.nan
        return pd.DataFrame.from_dict(rows, orient="index")

    def figure(self, name: str = "branch-tree", **options: Any) -> go.Figure:
        """A Plotly figure by name.

        Raises:
            UserError: an unknown figure, or one that this run has no data for.
        """
        from elicit.evaluation.run.figures import FIGURES

        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
        return FIGURES[name](self, **options)
