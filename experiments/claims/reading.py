"""What several claims read from runs in the same way: leads of an arm over others, and the twin as the null.

A lead is paired by question. Where an arm must lead each of several rivals, all intervals must lie above 0; that needs
no correction for their number, since all must hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from elicit.evaluation import Run
from elicit.evaluation.metrics.format import signed, with_interval
from elicit.evaluation.metrics.gap import Recovered, recovered, scores_of
from elicit.models.zoo import about
from experiments.claims import rules
from experiments.claims.base import Study
from experiments.claims.rules import Condition
from probes.dots import Dot, dot_plot
from probes.statistics import Interval, paired

DIRECT = "direct"


@dataclass(frozen=True)
class Lead:
    """By how much an arm is right more often than another on the same questions, in fractions of the questions."""

    over: str
    value: float
    interval: Interval

    @property
    def points(self) -> str:
        return with_interval(self.value, self.interval.pair, signed)

    def __str__(self) -> str:
        return f"{self.points} over {self.over}"


def lead_of(right: np.ndarray, other: np.ndarray, over: str, seed: int = 0) -> Lead:
    """The lead of some scores over others of the same questions in the same order."""
    found = paired(right, other, seed=seed)
    return Lead(over, found.difference, found.interval)


def lead(run: Run, arm: str, over: str, seed: int = 0) -> Lead:
    """The lead of one arm of a run over another."""
    return lead_of(scores_of(run.metrics, arm), scores_of(run.metrics, over), over, seed)


def leads(run: Run, arm: str, rivals: Sequence[str], seed: int = 0) -> list[Lead]:
    """Over each of the rivals that the run has."""
    return [lead(run, arm, name, seed) for name in rivals if name in run.metrics["arms"]]


def over_rivals(run: Run, arm: str, rivals: Sequence[str], seed: int = 0, *, margin: float = 0.0) -> list[Condition]:
    """That an arm is right more often than each of these arms of its run, or at most `margin` less often."""
    right = scores_of(run.metrics, arm)
    less = f", at most {margin:.0%} less" if margin else ""
    return [
        rules.lead(f"over {name}{less}", right, scores_of(run.metrics, name), margin=margin, seed=seed)
        for name in rivals
    ]


def gap(run: Run, arm: str, ceiling: str, seed: int = 0) -> Recovered:
    """The fraction that an arm recovers of the gap from direct answers to the ceiling."""
    return recovered(*(scores_of(run.metrics, name) for name in (arm, DIRECT, ceiling)), seed=seed)


def on_twin(study: Study, method: str, **options: Any) -> Lead | None:
    """The method's lead where the skill was never shown; None where nobody knows of such a twin."""
    if not study["twin"] or about(study["model"]) is None:
        return None
    given = {method: options} if options else None
    runs = study.compared([DIRECT, method], model=study.load(study["twin"]), given=given)
    right, plain = (scores_of(runs[name].metrics, name) for name in (method, DIRECT))
    return lead_of(right, plain, f"{DIRECT} on {study['twin']}", study.seed)


def arms_figure(run: Run, arms: Sequence[str], twin: Lead | None, title: str, seed: int = 0) -> go.Figure:
    """The lead of each arm over direct answers; beside the first, the method's own, what it gains on the twin."""
    dots = [dot(lead(run, arm, DIRECT, seed)) for arm in arms]
    nothing = [Dot(math.nan)] * (len(arms) - 1)
    nulls = {} if twin is None else {"null: where the skill is not there": [dot(twin), *nothing]}
    x = "lead over direct answers, fraction of the questions"
    return dot_plot(arms, {"where the skill is there": dots}, nulls=nulls, title=title, x=x)


def dot(one: Lead) -> Dot:
    return Dot(one.value, *one.interval.pair)
