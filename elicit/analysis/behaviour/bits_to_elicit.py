"""How many bits each arm of some runs takes, and whether it reaches half of the ceiling with them.

Bits are what must be said beside the model to have the arm (`elicit.evaluation.description`): choices, texts under the
base, the signal of a training. Little for much is what eliciting looks like, and much for little what teaching does
(arXiv 2601.04728, which measures trainings alone: choices and prompts beside them are ours). A menu can be long and the
right choice in it be found with labelled items: what a search looked at is in no arm's bits, and stands in its notes.

The null: an arm of as many bits that says nothing of the skill. A mechanism's own controls are that (random features,
shuffled critiques, random rewards), and stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from elicit.analysis.base import Analysis, shown
from elicit.evaluation.description import DESCRIPTION, bits_of
from elicit.evaluation.metrics.gap import CEILING
from elicit.evaluation.run.arms import Arm, arms_of, check_ours, named, shared_items
from elicit.evaluation.run.run import Run
from probes.description import REACHED, bits_to_reach
from probes.dots import Dot, whiskers
from probes.errors import UserError
from probes.figures import MUTED, styled
from probes.inert import label
from probes.statistics import Interval, proportion_interval

NAME = "bits-to-elicit"
SUMMARY = "how many bits say what was done to the model, and whether half of the ceiling is reached with them"
PAPER = "2601.04728"


def analyse(runs: Sequence[Run], *, ceiling: str = CEILING, share: float = 0.5) -> Analysis:
    """Bits beside accuracy, arm by arm.

    Args:
        runs: finished ones of one task and one model.
        ceiling: the arm whose accuracy is the ceiling.
        share: of it, which is to be reached.

    Raises:
        UserError: a share out of range, no arm of the ceiling's name, runs of logs or from before bits were counted.
    """
    check_ours(runs, "what was done to the model")
    if not 0 < share <= 1:
        raise UserError(f"share = {share} was given; give a fraction above 0, at most 1")
    arms = arms_of(runs)
    items = shared_items(arms)
    right = {arm.name: int(sum(arm.scores[item] for item in items)) for arm in arms}
    level = share * right[named(arms, ceiling, "ceiling").name] / len(items)
    points = []
    for arm in sorted(arms, key=_order):
        bits = bits_of(arm.run.metrics, arm.key)
        reach = bits_to_reach([bits or 0.0], [right[arm.name]], len(items), level)
        points.append(Point(arm.name, bits, right[arm.name] / len(items), _most(arm), reach.verdict))
    if all(point.bits is None for point in points):
        raise UserError("the runs are from before bits were counted; evaluate their handles again")
    dots = [Dot(p.accuracy, *proportion_interval(right[p.arm], len(items)).pair) for p in points]
    table = [
        {
            "arm": p.arm, "bits": "–" if p.bits is None else f"{p.bits:,.1f}",
            "accuracy [95%]": shown(p.accuracy, Interval(dot.low, dot.high)), f"{share:g} of {ceiling}": p.verdict,
            "most of them": p.most,
        }
        for p, dot in zip(points, dots, strict=True)
    ]  # fmt: skip
    enough = [p for p in points if p.verdict == REACHED and p.bits is not None and p.arm != ceiling]
    notes = [
        f"{len(items)} questions; {share:g} of {ceiling}'s accuracy is {level:.3f}. Reached: the interval lies above "
        "it; undecided: it holds it.",
        "Bits are beside an answer at once: prompt format, limit and seeds are shared. What a search looked at to make "
        "its choice is not in them.",
        f"Fewest that surely reach it: {enough[0].arm}, {enough[0].bits:,.1f}."
        if enough
        else "No arm but the ceiling surely reaches it.",
    ]
    data = {"items": len(items), "ceiling": ceiling, "level": level, "arms": [p._asdict() for p in points]}
    return Analysis(NAME, table, figure_of(points, dots, level), notes, data)


class Point(NamedTuple):
    """An arm: its bits, None where they are not known, its accuracy, what most of its bits say, the verdict."""

    arm: str
    bits: float | None
    accuracy: float
    most: str
    verdict: str


def figure_of(points: Sequence[Point], dots: Sequence[Dot], level: float) -> go.Figure:
    """Accuracy over bits, on a logarithmic axis on which fewer than one stand at one."""
    figure = go.Figure()
    for point, dot in zip(points, dots, strict=True):
        if point.bits is not None:
            name = label(point.arm)
            figure.add_scatter(
                x=[max(1.0, point.bits)], y=[dot.value], name=name, mode="markers", error_y=whiskers([dot]),
                hovertext=f"{name}<br>{point.bits:,.1f} bits, accuracy {dot.value:.3f}", hoverinfo="text",
            )  # fmt: skip
    figure.add_hline(y=level, line_dash="dot", line_color=MUTED)
    figure.update_xaxes(title="bits that say what was done; fewer than 1 stand at 1", type="log")
    figure.update_yaxes(title="accuracy", range=[0, 1])
    figure.update_layout(title="What was right with how many bits of intervention")
    return styled(figure)


def _order(arm: Arm) -> float:
    bits = bits_of(arm.run.metrics, arm.key)
    return float("inf") if bits is None else bits


def _most(arm: Arm) -> str:
    """The part that costs most."""
    parts = [part for part in arm.run.metrics.get(DESCRIPTION, {}).get(arm.key, []) if part["bits"] is not None]
    return max(parts, key=lambda part: part["bits"])["what"] if parts else ""
