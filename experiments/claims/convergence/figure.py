"""The figure of the thesis: each pair of mechanisms in a row, beside their nulls: what both solve, where both move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from elicit.analysis.behaviour.convergence import PooledAgreement
from probes.dots import Dot, whiskers
from probes.figures import BLUE, GREEN, MUTED, ORANGE, styled
from probes.inert import label

ALL = "all pairs together"


def drawn(
    pairs: Mapping[tuple[str, str], Mapping[str, Any]],
    together: PooledAgreement,
    moved: Mapping[tuple[str, str], Any],
    names: Sequence[str],
) -> go.Figure:
    """Left: agreement of newly solved items; right: cosine of the mean shifts of the stream; nulls in grey.

    Args:
        pairs: overlaps of each pair, as `convergence.analyse` has them.
        together: of all pairs.
        moved: the shifts of those that move the stream.
        names: of the mechanisms.
    """
    rows = [*(" & ".join(pair) for pair in pairs), ALL]
    nothing = Dot(math.nan)
    agreement = [Dot(one["matched_agreement"][0], *one["matched_agreement"][1].pair) for one in pairs.values()]
    chance = [_null(one) for one in pairs.values()]
    cosines = [moved[pair].cosine if pair in moved else None for pair in pairs]
    left = (
        ("agreement of newly solved items", BLUE, "circle",
         [*agreement, Dot(together.agreement[0], *together.agreement[1].pair)]),
        ("null: difficulty-matched chance, 95%", MUTED, "diamond-open",
         [*chance, Dot(together.null.mean, *together.null.interval.pair)]),
    )  # fmt: skip
    right = (
        ("cosine of the shifts", ORANGE, "circle",
         [nothing if c is None else Dot(c.value, c.low, c.high) for c in cosines]),
        ("null: directions of the stream's covariance, 95%", MUTED, "diamond-open",
         [nothing if c is None else Dot((c.null_low + c.null_high) / 2, c.null_low, c.null_high) for c in cosines]),
        ("ceiling: a mechanism's own halves", GREEN, "line-ns-open",
         [nothing if c is None else Dot(float(np.mean(c.ceiling))) for c in cosines]),
    )  # fmt: skip
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=("Do both solve the same new items?", "Do both move the stream alike?"),
    )  # fmt: skip
    for column, series in enumerate((left, right), 1):
        for place, (name, colour, symbol, dots) in enumerate(series):
            shift = 0.5 * ((place + 0.5) / len(series) - 0.5)
            figure.add_scatter(
                x=[d.value for d in dots], y=[n + shift for n in range(len(dots))], mode="markers", name=name,
                marker={"color": colour, "symbol": symbol, "size": 9}, error_x=whiskers(dots), row=1, col=column,
            )  # fmt: skip
        figure.add_vline(x=0, line={"color": MUTED, "width": 1, "dash": "dot"}, row=1, col=column)
    figure = styled(figure, height=240 + 34 * len(rows))
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[label(row) for row in rows],
        range=[len(rows) - 0.5, -0.5],
        zeroline=False,
        automargin=True,
    )
    figure.update_yaxes(showticklabels=False, col=2)
    figure.update_xaxes(title="0: matched chance, 1: one set holds the other", col=1)
    figure.update_xaxes(title="cosine, at the layer that stands out most", range=[-1.05, 1.05], col=2)
    figure.update_layout(
        title=f"{len(names)} mechanisms, one ability?", legend={"orientation": "h", "y": -0.16, "x": 0}
    )
    return figure


def _null(one: Mapping[str, Any]) -> Dot:
    """The matched null of a number of shared items, as agreement."""
    matched, room = one["matched"], one["room"]
    if math.isnan(matched.mean) or not room > 0:
        return Dot(math.nan)
    return Dot(0.0, *((end - matched.mean) / room for end in matched.interval.pair))
