"""The figure of a strength sweep: accuracy, tokens, perplexity and degeneration against strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from elicit.evaluation.strength_sweep import UNSTEERED
from probes.figures import MUTED, styled
from probes.inert import label
from probes.sweep import COLOURS

PANELS = (
    ("accuracy", "accuracy", ".0%"),
    ("tokens", "tokens an answer", None),
    ("perplexity", "perplexity, unsteered model", None),
    ("degenerate", "degenerate answers", ".0%"),
)


def dose_response(result: Mapping[str, Any]) -> go.Figure:
    """Four panels against strength; the grey band is what the random directions do, from least to most."""
    rows = list(result["rows"])
    graded = any(row["accuracy"] is not None for row in rows)
    panels = PANELS if graded else PANELS[1:]
    columns = 2 if graded else 3
    figure = make_subplots(
        rows=-(-len(panels) // columns),
        cols=columns,
        subplot_titles=[title for _, title, _ in panels],
        horizontal_spacing=0.1,
        vertical_spacing=0.16,
    )
    origin = next(row for row in rows if row["series"] == UNSTEERED)
    for place, (key, _, form) in enumerate(panels):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        controls = _by_strength([r for r in rows if r["control"]], key)
        if controls:
            unsteered = {} if _value(origin, key) is None else {0.0: [_value(origin, key)]}
            xs = [*unsteered, *controls]
            low, high = ([of(v) for v in [*unsteered.values(), *controls.values()]] for of in (min, max))
            order = sorted(range(len(xs)), key=lambda i: xs[i])
            figure.add_scatter(
                x=[xs[i] for i in order] + [xs[i] for i in reversed(order)],
                y=[high[i] for i in order] + [low[i] for i in reversed(order)],
                mode="lines",
                fill="toself",
                fillcolor="rgba(123,135,148,0.22)",
                line={"width": 0},
                name=f"{len({r['series'] for r in rows if r['control']})} random directions",
                legendgroup="random",
                showlegend=place == 0,
                hoverinfo="skip",
                **where,
            )
        names = list(dict.fromkeys(r["series"] for r in rows if not r["control"] and r["series"] != UNSTEERED))
        for colour, name in zip(cycle(COLOURS), names, strict=False):
            some = sorted([origin, *(r for r in rows if r["series"] == name)], key=lambda r: r["strength"])
            some = [r for r in some if _value(r, key) is not None]
            error = None
            if key == "accuracy":
                error = {
                    "type": "data",
                    "symmetric": False,
                    "array": [r["interval"][1] - r["accuracy"] for r in some],
                    "arrayminus": [r["accuracy"] - r["interval"][0] for r in some],
                    "color": colour,
                    "thickness": 1,
                }
            figure.add_scatter(
                x=[r["strength"] for r in some],
                y=[_value(r, key) for r in some],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                error_y=error,
                name=label(name),
                legendgroup=name,
                showlegend=place == 0,
                **where,
            )
        if _value(origin, key) is not None:
            figure.add_hline(y=_value(origin, key), line={"color": MUTED, "dash": "dot", "width": 1}, **where)
        figure.update_yaxes(tickformat=form, rangemode="tozero", **where)
        figure.update_xaxes(title="strength", **where)
    figure.update_layout(legend={"orientation": "h", "y": -0.15})
    return styled(figure, height=680 if graded else 400)


def _by_strength(rows: Sequence[Mapping[str, Any]], key: str) -> dict[float, list[float]]:
    out: dict[float, list[float]] = {}
    for row in rows:
        value = _value(row, key)
        if value is not None:
            out.setdefault(row["strength"], []).append(value)
    return out


def _value(row: Mapping[str, Any], key: str) -> Any:
    return row["degenerate"] / row["n"] if key == "degenerate" else row[key]
