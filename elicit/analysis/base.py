"""What an analysis returns, and how its numbers are written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import plotly.graph_objects as go

from probes.statistics import Interval

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Analysis:
    """A result with its picture.

    Args:
        name: of the analysis.
        table: rows, each a dict of column to value.
        figure: the main figure.
        notes: what a reader must know, a sentence each.
        data: all numbers, as JSON can hold them.
        more: further figures: (heading, explanation, figure).
    """

    name: str
    table: list[dict[str, Any]]
    figure: go.Figure
    notes: list[str]
    data: dict[str, Any]
    more: list[tuple[str, str, go.Figure]] = field(default_factory=list)


def plain(value: Any) -> Any:
    """What JSON can hold of a result; NaN is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_turn(what: str, some: Sequence[T], progress: Callable[[str, int, int], None] | None) -> Iterator[T]:
    """Each of them in its turn; `progress` is told of what they are for, how many are done, and of how many."""
    for done, one in enumerate(some):
        if progress is not None:
            progress(what, done, len(some))
        yield one


def shown(value: float, interval: Interval | None = None) -> str:
    """A number with its interval, as a table's cell."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval is not None else "")


def with_left_out(rows: list[dict[str, Any]], left_out: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a table, and a row for each arm to which the analysis does not apply, with the reason.

    The first column names the arm, and the last is its reading.
    """
    first, *_, last = rows[0]
    empty = dict.fromkeys(rows[0], "–")
    return [*rows, *({**empty, first: name, last: f"does not apply: {why}"} for name, why in left_out.items())]


def halves(count: int, seed: int) -> np.ndarray:
    """Which of so many items are for fitting: a random half, [count] of bool."""
    fit = np.zeros(count, dtype=bool)
    fit[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    return fit
