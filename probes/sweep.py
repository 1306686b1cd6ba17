"""A quantity layer by layer, with bands and what it must be held against: one figure for lens, patching, steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from probes.errors import UserError
from probes.figures import BLUE, GREEN, MUTED, ORANGE, RED, styled
from probes.inert import label

COLOURS = (BLUE, ORANGE, GREEN, RED, "#6b46c1", "#0f766e")


@dataclass(frozen=True)
class Band:
    """Values along the layers, with an interval where there is one."""

    value: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise UserError("one end of an interval was given; give low and high, or neither")
        lengths = {len(v) for v in (self.value, self.low, self.high) if v is not None}
        if len(lengths) > 1:
            raise UserError(f"a band of {sorted(lengths)} layers was given; give as many limits as values")


def layer_sweep(
    values: Mapping[str, Band],
    *,
    nulls: Mapping[str, Band] | None = None,
    references: Mapping[str, float] | None = None,
    layers: Sequence[str] | None = None,
    title: str = "",
    x: str = "",
    y: str = "",
    log: bool = False,
    height: int = 420,
) -> go.Figure:
    """Series over layers with their bands.

    Args:
        values: the series; all of one length.
        nulls: what each would be if there were nothing to find, at most one a series; dashed, in the series' colour
            where each has its own, else grey.
        references: levels that do not depend on the layer.
        layers: names of the layers; 0, 1, … unless given.
        x: what stands in the place of layers, if anything.
        title, y: what is shown and its unit.
        log: a logarithmic y axis.

    Raises:
        UserError: nothing to draw, series of different lengths.
    """
    nulls, references = nulls or {}, references or {}
    lengths = {len(band.value) for band in (*values.values(), *nulls.values())}
    if len(nulls) > len(values):
        raise UserError(f"{len(nulls)} nulls were given for {len(values)} series; give at most one each")
    if not values or len(lengths) != 1:
        raise UserError(f"series of {sorted(lengths)} layers were given; give at least one, all of one length")
    count = lengths.pop()
    names = [label(one) for one in layers] if layers is not None else [str(n) for n in range(count)]
    if len(names) != count:
        raise UserError(f"{len(names)} names were given for {count} layers; give one each")
    places = [f"{name} ({label(x)})" if x else f"layer {name}" for name in names]
    figure = go.Figure()
    at = list(range(count))
    tones = [COLOURS[i % len(COLOURS)] for i in range(len(values))]
    own = len(values) > 1 and len(nulls) == len(values)
    drawn = [(n, b, tone if own else MUTED, "dash") for (n, b), tone in zip(nulls.items(), tones, strict=False)]
    drawn += [(n, b, tone, "solid") for (n, b), tone in zip(values.items(), tones, strict=True)]
    for name, band, colour, _ in drawn:
        if band.low is not None and band.high is not None:
            figure.add_scatter(
                x=[*at, *reversed(at)],
                y=[*band.high, *reversed(band.low)],
                fill="toself",
                fillcolor=_faint(colour),
                line={"width": 0},
                hoverinfo="skip",
                legendgroup=name,
                showlegend=False,
            )
    for name, band, colour, dash in drawn:
        limits = [f" [{low:.3g}, {high:.3g}]" for low, high in zip(band.low or (), band.high or (), strict=True)] or [
            ""
        ] * count
        figure.add_scatter(
            x=at,
            y=list(band.value),
            name=label(name),
            legendgroup=name,
            mode="lines+markers",
            line={"color": colour, "width": 2 if dash == "solid" else 1.3, "dash": dash},
            marker={"size": 5 if dash == "solid" else 1},
            hovertext=[
                f"{label(name)}<br>{place}: {v:.3g}{i}" for place, v, i in zip(places, band.value, limits, strict=True)
            ],
            hoverinfo="text",
        )
    for name, level in references.items():
        figure.add_scatter(
            x=[0, count - 1],
            y=[level, level],
            mode="lines",
            name=label(name),
            line={"color": MUTED, "width": 1.5, "dash": "dot"},
            hovertext=f"{label(name)}: {level:.3g}",
            hoverinfo="text",
        )
    step = max(1, -(-count // 16))
    ticks = [n for n in at if n % step == 0 or n == 0]
    figure = styled(figure, height=height)
    figure.update_xaxes(
        title=label(x) or "layer",
        tickvals=ticks,
        ticktext=[names[n] for n in ticks],
        range=[-0.5, count - 0.5],
        zeroline=False,
    )
    figure.update_yaxes(title=y, type="log" if log else "linear")
    figure.update_layout(title=label(title), legend={"orientation": "h", "y": -0.22, "x": 0})
    return figure


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
