"""A task as a Python function: `function(**params)` returns rows, or `(rows, grade)`.

    def sums(terms=2):
        rows = [{"question": "1 + 2 = ?", "answer": "3"}, …]      # also id, split, and whatever a grader reads
        return rows, lambda response, row: row["answer"] in response

It is called with `seed` and `limit` where it takes them. `grade(response, row)` returns a number from 0 to 1, or a
truth value; without one answers are judged as those of a JSON Lines file.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from elicit.tasks.base import SPLITS
from elicit.tasks.outside_base import Outside, Refused

KEPT = ("id", "question", "answer", "split")


class PythonTask:
    """Rows, and a grader of one's own."""

    def __init__(self, rows: list[Mapping[str, Any]], grade: Callable[[str, Mapping[str, Any]], float] | None) -> None:
        self.given, self.grade = rows, grade
        self.own = grade is not None
        self.rows = [_row(row, n) for n, row in enumerate(rows)]

    def score(self, index: int, response: str) -> float:
        assert self.grade is not None
        return float(self.grade(response, self.given[index]))


def opened(function: Any, params: dict[str, Any], seed: int, limit: int | None) -> Outside:
    """Call the function.

    Raises:
        Refused: it is none, takes no such parameter, or returns no rows.
    """
    if not callable(function):
        raise Refused(f"it is a {type(function).__name__}, expected a function")
    takes = inspect.signature(function).parameters
    open_ended = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if wrong := [key for key in params if key not in takes and not open_ended]:
        raise Refused(f"it takes no parameter {wrong[0]!r}; it takes {', '.join(takes) or 'none'}")
    more = {key: value for key, value in (("seed", seed), ("limit", limit)) if key in takes and key not in params}
    found = function(**more, **params)
    rows, grade = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if grade is not None and not callable(grade):
        raise Refused(f"its grader is a {type(grade).__name__}, expected a function of a response and a row")
    if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
        raise Refused(f"it returns a {type(rows).__name__}, expected rows, or rows and a grader")
    return PythonTask(list(rows), grade)


def _row(row: Any, n: int) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise Refused(f"row {n} is a {type(row).__name__}, expected a mapping with question and answer")
    for key in ("question", "answer"):
        value = row.get(key)
        if not isinstance(value, str | int | float) or not str(value).strip():
            raise Refused(f"row {n} has no {key!r}, expected text or a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused(f"row {n} has {key!r} {value}, expected text or a finite number")
        if any("\ud800" <= c <= "\udfff" for c in str(value)):
            raise Refused(f"row {n} has half of a surrogate pair in its {key!r}, expected text that UTF-8 can hold")
    if row.get("split") not in (None, *SPLITS):
        raise Refused(f"row {n} has the split {row['split']!r}, expected one of {', '.join(SPLITS)}")
    answer = str(row["answer"])
    return {
        "question": str(row["question"]), "gold": answer, "answer": answer, "split": row.get("split"),
        "id": None if row.get("id") is None else str(row["id"]),
        "metadata": {str(key): value for key, value in row.items() if key not in KEPT},
    }  # fmt: skip
