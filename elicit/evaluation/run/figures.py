"""Figures of a run, by name: the tree of branches with margins, calibration of Δ, coverage, selection rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import plotly.graph_objects as go

from elicit.decoding.trace import Outcome, Trace, token_margins
from elicit.evaluation.metrics.verdicts import is_accuracy, not_stated
from probes.errors import UserError
from probes.figures import BLUE, CONFIDENCE_SCALE, GREEN, INK, MUTED, ORANGE, RED, styled
from probes.inert import label


@runtime_checkable
class Drawn(Protocol):
    """What a figure needs of a finished run."""

    @property
    def metrics(self) -> dict[str, Any]: ...

    @property
    def outcomes(self) -> dict[str, dict[str, list[Outcome]]]: ...

    def traces_of(self, source: str, *items: str) -> dict[str, list[Trace]]: ...


def branch_tree(run: Drawn, item: str | None = None, tokens: int = 60) -> go.Figure:
    """The branches of one question: a lane each, its tokens coloured by margin, the answer outlined.

    Args:
        item: an item id; unless given, a question where the selection mattered most.
        tokens: so many tokens of each branch are drawn.
    """
    source = run.metrics["method"]
    by_item = run.outcomes[source]
    chosen = item or _telling_item(by_item)
    if chosen not in by_item:
        raise UserError(f"the run has no item {chosen!r}; give one of its item ids")
    traces = run.traces_of(source, chosen)[chosen]
    if len(traces) < 2:
        raise UserError(f"{source} opens no branches; a branch tree needs at least two")
    figure = go.Figure()
    best = max((t for t in traces if not t.dropped), key=lambda t: t.delta or 0, default=None)
    root = (len(traces) - 1) / 2
    longest = min(tokens, max((len(t.tokens) for t in traces), default=1))
    x, y, margin, hover = [], [], [], []
    outline: tuple[list[float], list[float]] = ([], [])
    for lane, trace in enumerate(traces):
        figure.add_scatter(
            x=[-4, -2, 0],
            y=[root, lane, lane],
            mode="lines",
            line={"color": "#cbd2d9", "width": 1, "shape": "spline"},
            hoverinfo="skip",
            showlegend=False,
        )
        pieces = trace.pieces
        margins = _margins(trace)
        for place in range(min(tokens, len(trace.tokens))):
            x.append(place)
            y.append(lane)
            margin.append(margins[place])
            hover.append(
                f"{_escaped(pieces[place])}<br>margin {margins[place]:+.3f}"
                f"<br>p {np.exp(trace.logprob[place]):.3f}<br>entropy {trace.entropy[place]:.2f} nats"
                f"<br>branch {trace.index}, token {place}"
            )
            if trace.span and trace.span[0] <= place < trace.span[1]:
                outline[0].append(place)
                outline[1].append(lane)
        figure.add_annotation(
            x=longest + 0.6,
            y=lane,
            xanchor="left",
            showarrow=False,
            text=_verdict(trace, trace is best),
            font={"size": 13, "color": GREEN if trace.correct else MUTED if trace.dropped else INK},
        )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        showlegend=False,
        hovertext=hover,
        hoverinfo="text",
        marker={
            "symbol": "square",
            "size": 11,
            "color": margin,
            "cmin": 0,
            "cmax": 1,
            "colorscale": CONFIDENCE_SCALE,
            "colorbar": {"title": {"text": "margin"}, "thickness": 12, "x": 1.02, "len": 0.8},
        },
    )
    figure.add_scatter(
        x=outline[0],
        y=outline[1],
        mode="markers",
        name="answer tokens",
        hoverinfo="skip",
        marker={"symbol": "square-open", "size": 14, "color": INK, "line": {"width": 2}},
    )
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(range(len(traces))),
        showgrid=False,
        zeroline=False,
        ticktext=[_escaped((t.pieces or ["(end)"])[0]) for t in traces],
        side="left",
    )
    figure.update_xaxes(title="token", showgrid=False, zeroline=False, range=[-5, longest * 1.5 + 8])
    figure.update_layout(
        title=f"{label(chosen)}: {len(traces)} branches", legend={"orientation": "h", "y": 1.08, "x": 0.7}
    )
    return styled(figure, height=130 + 34 * len(traces))


def _telling_item(by_item: dict[str, list[Outcome]]) -> str:
    """A question whose greedy path is wrong and whose most confident path is right; else the first."""
    for item, traces in by_item.items():
        kept = [t for t in traces if not t.dropped]
        if kept and not traces[0].correct and max(kept, key=lambda t: t.delta or 0).correct:
            return item
    return next(iter(by_item))


def _margins(trace: Trace) -> list[float]:
    return [float(m) for m in token_margins(np.array(trace.top1), np.array(trace.top2), np.array(trace.logprob))]


def _verdict(trace: Trace, best: bool) -> str:
    if trace.answer is None:
        return label(f"— ({trace.dropped or 'no answer'})")
    mark = "✓" if trace.correct else "✗"
    why = label(f" ({trace.dropped})") if trace.dropped else ""
    line = f"{_escaped(trace.answer)} {mark}  Δ {trace.delta:+.2f}{why}"
    return f"{line}  ← max" if best else line


def _escaped(text: str) -> str:
    shown = label(text)
    return shown.replace(" ", "␣") if not shown.strip() else shown


def calibration(run: Drawn) -> go.Figure:
    """How often branches are right, by their Δ, with intervals over questions; AUROC in the title."""
    data = _need(run, "calibration")
    bins = data["bins"]
    share = [b["right"] for b in bins]
    figure = go.Figure(
        go.Scatter(
            x=[(b["low"] + b["high"]) / 2 for b in bins],
            y=share,
            mode="markers+lines",
            marker={"size": [8 + 3 * np.log10(b["n"]) for b in bins], "color": BLUE},
            line={"color": BLUE, "width": 1},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [b["interval"][1] - b["right"] for b in bins],
                "arrayminus": [b["right"] - b["interval"][0] for b in bins],
                "color": MUTED,
                "thickness": 1,
            },
            hovertext=[
                f"{b['n']} branches"
                + (f" of {b['questions']} questions" if "questions" in b else "")  # earlier runs did not count them
                + f", {b['right']:.0%} right"
                for b in bins
            ],
            hoverinfo="text",
            showlegend=False,
        )
    )
    title = f"Δ against right: AUROC {_number(data['auroc'])} over {data['branches']} branches"
    title += f", {_number(data['auroc_within'])} within a question"
    figure.update_layout(title=title)
    figure.update_xaxes(title="Δ of the answer", range=[-1.05, 1.05])
    highest = max((b["interval"][1] for b in bins), default=1.0)
    figure.update_yaxes(title="fraction right", range=[-0.02, min(1.02, highest + 0.05)], tickformat=".0%")
    return styled(figure)


def coverage(run: Drawn) -> go.Figure:
    """Coverage@k by rank, beside how often the branch of each rank alone is right."""
    data = _need(run, "coverage_by_rank")
    ranks = list(range(1, len(data["coverage"]) + 1))
    figure = go.Figure()
    figure.add_bar(x=ranks, y=data["right_at_rank"], name="this branch is right", marker={"color": "#cbd2d9"})
    figure.add_scatter(
        x=ranks,
        y=data["coverage"],
        name="one of the first k is right",
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
    )
    rules = run.metrics["readings"]
    for rule, colour in (("max", ORANGE), ("vote", MUTED)):
        level = rules[rule]["accuracy"]
        figure.add_scatter(
            x=[ranks[0], ranks[-1]],
            y=[level, level],
            name=f"{label(rule)}: {level:.0%}",
            mode="lines",
            line={"color": colour, "dash": "dash"},
        )
    figure.update_layout(title="Coverage by rank of the first token", legend={"orientation": "h", "y": -0.25})
    figure.update_xaxes(title="k", dtick=1 if len(ranks) <= 15 else 5)
    figure.update_yaxes(title="fraction of questions", tickformat=".0%", rangemode="tozero")
    return styled(figure, height=420)


def selection_rules(run: Drawn) -> go.Figure:
    """Accuracy of every way to choose among the same branches, and of the baselines that have one, with intervals."""
    method = run.metrics["method"]
    _check_stated(run)
    rows = [
        (f"{method}: {rule}", r["accuracy"], r["interval"], BLUE) for rule, r in run.metrics.get("readings", {}).items()
    ]
    rows += [
        (n, a["accuracy"], a["interval"], ORANGE)
        for n, a in run.metrics["arms"].items()
        if (n != method or not rows) and is_accuracy(a, run.metrics["items"])
    ]
    rows.reverse()
    figure = go.Figure(
        go.Scatter(
            x=[r[1] for r in rows],
            y=[label(r[0]) for r in rows],
            mode="markers",
            marker={"size": 10, "color": [r[3] for r in rows]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [r[2][1] - r[1] for r in rows],
                "arrayminus": [r[1] - r[2][0] for r in rows],
                "color": MUTED,
                "thickness": 1.2,
            },
            showlegend=False,
        )
    )
    figure.update_layout(title="Accuracy, with 95% intervals")
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(automargin=True)
    return styled(figure, height=120 + 30 * len(rows))


def tokens(run: Drawn, item: str | None = None, branch: int = 0) -> go.Figure:
    """Margin, probability and entropy along one answer."""
    source = run.metrics["method"]
    chosen = item or next(iter(run.outcomes[source]))
    found = run.traces_of(source, chosen).get(chosen, [])
    if branch >= len(found):
        raise UserError(f"{source} has {len(found)} branches of item {chosen!r}; give one of its items and branches")
    trace = found[branch]
    place = list(range(len(trace.tokens)))
    pieces = [_escaped(p) for p in trace.pieces]
    figure = go.Figure()
    for name, values, colour in (
        ("margin", _margins(trace), BLUE),
        ("probability", [float(np.exp(v)) for v in trace.logprob], GREEN),
        ("entropy (nats)", trace.entropy, RED),
    ):
        figure.add_scatter(x=place, y=values, name=name, line={"color": colour}, hovertext=pieces, hoverinfo="text+y")
    figure.update_xaxes(tickvals=place, ticktext=pieces, tickangle=-60)
    figure.update_layout(title=f"{label(trace.item)}, branch {trace.index}")
    return styled(figure, height=420)


def _need(run: Drawn, key: str) -> dict[str, Any]:
    data = run.metrics.get(key)
    if data is None:
        raise UserError(f"the run of {run.metrics['method']} has no {key}; run a method that opens branches")
    _check_stated(run)
    return data


def _check_stated(run: Drawn) -> None:
    """Raises a UserError where too many of the method's answers have no verdict to say how many are right."""
    metrics = run.metrics
    method = metrics["method"]
    if told := not_stated({method: metrics["arms"][method]}, metrics["items"]):
        raise UserError(f"the run of {method} has no such figure. {told}")


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"


FIGURES: dict[str, Callable[..., go.Figure]] = {
    "branch-tree": branch_tree,
    "calibration": calibration,
    "coverage": coverage,
    "readings": selection_rules,
    "tokens": tokens,
}
