"""The figure of a strength sweep on made-up numbers."""

from __future__ import annotations

from typing import Any

from elicit.evaluation.strength_sweep import UNSTEERED
from elicit.report.dose_response import dose_response


def row(series: str, strength: float, *, control: bool = False) -> dict[str, Any]:
    numbers = {"accuracy": None, "tokens": 5.0 + strength, "perplexity": 2.0, "degenerate": 0, "n": 4}
    return {"series": series, "strength": strength, "control": control, **numbers}


def test_every_series_is_drawn() -> None:
    names = ["first", "second", "third"]
    rows = [row(UNSTEERED, 0.0), *(row(name, x) for name in names for x in (1.0, 2.0))]
    lines = dose_response({"rows": rows}).data
    assert [line.name for line in lines[:3]] == names
    assert len({line.line.color for line in lines}) == 3
