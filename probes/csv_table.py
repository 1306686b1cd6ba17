"""Tables as CSV, which a spreadsheet may open."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from probes.inert import inert

FORMULA = ("=", "+", "-", "@", "\t")  # a spreadsheet computes a cell that begins so


def csv_table(head: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows under a head; before a text that a spreadsheet would take for a formula stands an apostrophe.

    Args:
        head: names of the columns.
        rows: cells by column; what is left out is empty. Numbers stay numbers.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_cell(name) for name in head])
    writer.writerows([_cell(row.get(name, "")) for name in head] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = inert(value)
    return f"'{text}" if text.startswith(FORMULA) and not _number(text) else text


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
