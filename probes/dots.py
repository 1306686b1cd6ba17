"""Values with intervals in rows, beside what each would be if there were nothing to find."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from probes.errors import UserError
from probes.figures import MUTED, styled
from probes.inert import label
from probes.sweep import COLOURS


class Dot(NamedTuple):
    """A value, and its interval where there is one; NaN is left out of the figure."""

    value: float
    low: float = math.nan
    high: float = math.nan


def whiskers(dots: Sequence[Dot]) -> dict[str, Any]:
    """Plotly's error bars for these values."""
    ends = [(d.value, d.value) if math.isnan(d.low) or math.isnan(d.high) else (d.low, d.high) for d in dots]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - d.value for d, (_, high) in zip(dots, ends, strict=True)],
        "arrayminus": [d.value - low for d, (low, _) in zip(dots, ends, strict=True)],
        "thickness": 1.2,
    }


def dot_plot(
    names: Sequence[str],
    series: Mapping[str, Sequence[Dot]],
    *,
    nulls: Mapping[str, Sequence[Dot]] | None = None,
    reference: float | None = 0.0,
    title: str = "",
    x: str = "",
) -> go.Figure:
    """One row a name, one dot a series.

    Args:
        names: of the rows.
        series: values of each row, with their intervals.
        nulls: what they would be without an effect; open grey diamonds.
        reference: a vertical line, if any.
        title, x: what is shown and its unit.

    Raises:
        UserError: a series that has not one value a row.
    """
    drawn = [(n, d, COLOURS[i % len(COLOURS)], "circle") for i, (n, d) in enumerate(series.items())]
    drawn += [(n, d, MUTED, "diamond-open") for n, d in (nulls or {}).items()]
    figure = go.Figure()
    for place, (name, dots, colour, symbol) in enumerate(drawn):
        if len(dots) != len(names):
            raise UserError(f"{len(dots)} values of {name!r} were given for {len(names)} rows; give one each")
        shift = 0.5 * ((place + 0.5) / len(drawn) - 0.5)
        figure.add_scatter(
            x=[d.value for d in dots],
            y=[row + shift for row in range(len(names))],
            mode="markers",
            name=label(name),
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_x=whiskers(dots),
            hovertext=[
                f"{label(row)}<br>{label(name)}: {d.value:.3g}"
                + ("" if math.isnan(d.low) else f" [{d.low:.3g}, {d.high:.3g}]")
                for row, d in zip(names, dots, strict=True)
            ],
            hoverinfo="text",
        )
    if reference is not None:
        figure.add_vline(x=reference, line={"color": MUTED, "width": 1, "dash": "dot"})
    rows = 34 * max(1, len(names))
    figure = styled(figure, height=190 + rows)
    figure.update_xaxes(title=label(x), zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[label(name) for name in names], autorange="reversed", zeroline=False
    )
    below = -90 / (70 + rows)  # 90 pixels below the axis
    figure.update_layout(title=label(title), legend={"orientation": "h", "y": below, "x": 0}, margin={"l": 190})
    return figure
