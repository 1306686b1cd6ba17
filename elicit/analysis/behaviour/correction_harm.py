"""Correction and harm: wrong → right and right → wrong against a baseline, never the net alone (arXiv 2507.18178).

    δc = fraction of questions that the baseline gets wrong and the arm right
    δo = fraction of questions that the baseline gets right and the arm wrong

An arm that merely answers again "corrects" as well, and harms as much. So each is held against a null, the *churn*:
how often the arm (or the baseline, whichever is less steady) would flip that way against itself. It is read from two
runs of the same arm that differ in the seed, or else from an arm's own samples, drawn again with replacement under its
own selection. Where decoding is deterministic there is no churn; then the exact McNemar test on the two counts is the
null: labels of the two arms exchanged within a question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from elicit.analysis.base import Analysis, shown
from elicit.decoding.decoders import ELSEWHERE
from elicit.decoding.selection import select
from elicit.evaluation.run.arms import SAMPLED, Arm, arms_of, named, shared_items
from elicit.evaluation.run.run import Run
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.statistics import Interval, bootstrap_mean, holm_by_name, mcnemar_exact, proportion_interval

NAME = "correction-harm"
SUMMARY = "answers corrected and answers spoilt against a baseline, beside what answering again does"
PAPER = "2507.18178"
READS = "samples"
REDRAWS = 50
UNKNOWN = "not known: one drawn answer a question"


class Churn(NamedTuple):
    """Of each question how often an arm would turn wrong → right (or right → wrong) against itself, NaN where that is
    not known, and what that was read from."""

    flips: Float[np.ndarray, " items"]
    source: str


class Flips(NamedTuple):
    """An arm against the baseline; `beyond` is what exceeds the churn, paired by question: NaN where that is not
    known."""

    corrected: tuple[float, Interval]
    harmed: tuple[float, Interval]
    net: tuple[float, Interval]
    churn: float
    source: str
    corrected_beyond: tuple[float, Interval]
    harmed_beyond: tuple[float, Interval]
    p: float


def flips(
    arm: Float[np.ndarray, " items"], baseline: Float[np.ndarray, " items"], churn: Churn | None, *, seed: int = 0
) -> Flips:
    """Correction and harm of right (1) and wrong (0) answers to the same questions."""
    corrected, harmed = arm * (1 - baseline), baseline * (1 - arm)
    gained, lost = int(corrected.sum()), int(harmed.sum())
    own = np.zeros(len(arm)) if churn is None else churn.flips

    def mean(values: np.ndarray) -> tuple[float, Interval]:
        if np.isnan(values).any():
            return math.nan, Interval(math.nan, math.nan)
        return float(values.mean()), bootstrap_mean(values, seed=seed)

    return Flips(
        corrected=(gained / len(arm), proportion_interval(gained, len(arm))),
        harmed=(lost / len(arm), proportion_interval(lost, len(arm))),
        net=mean(arm - baseline),
        churn=float(own.mean()),
        source="none: deterministic" if churn is None else churn.source,
        corrected_beyond=mean(corrected - own),
        harmed_beyond=mean(harmed - own),
        p=mcnemar_exact(gained, lost),
    )


def churn_of(arm: Arm, arms: Sequence[Arm], items: Sequence[str], *, seed: int = 0) -> Churn | None:
    """How an arm flips against itself, by a twin of another seed or samples of its own; None where it is deterministic.

    Of an arm that draws its answers and has neither, flips are NaN.
    """
    right = arm.right(items)
    for twin in arms:
        if twin is not arm and _but_for_the_seed(twin) == _but_for_the_seed(arm) and _drawn_anew(twin, arm):
            return Churn((right != twin.right(items)) / 2, "two runs of the arm")
    if arm.about["decoder"]["name"] not in (*SAMPLED, ELSEWHERE) or all(len(arm.traces[item]) < 2 for item in items):
        return Churn(np.full(len(items), math.nan), UNKNOWN) if _is_drawn(arm) else None
    rng, grader, rule = np.random.default_rng(seed), arm.run.items.task.grader, arm.about["select"]
    share = []
    for item in items:
        traces = arm.traces[item]
        if len({t.correct for t in traces}) < 2:
            share.append(float(traces[0].correct))
            continue
        drawn = rng.integers(0, len(traces), (REDRAWS, len(traces)))
        share.append(float(np.mean([select(rule, [traces[i] for i in row], grader).score >= 1 for row in drawn])))
    p = np.array(share)
    return Churn(p * (1 - p), "its samples drawn again")


def _is_drawn(arm: Arm) -> bool:
    """Whether an arm draws random numbers for its answers; a log that tells no temperature may have."""
    decoder = arm.about["decoder"]
    if "temperature" in decoder:  # of sampling, of tools, of logs
        return bool(decoder["temperature"] != 0)
    by, control = decoder.get("by", ""), str(decoder.get("control", ""))  # of a mode gate, of hybrid decoding
    return decoder["name"] in (*SAMPLED, ELSEWHERE) or by == "coin" or control.startswith("random-")


def _less_steady(known: Sequence[Churn]) -> Churn | None:
    """The larger churn of those that are not deterministic; not known where one of them is not."""
    return max(known, key=lambda one: math.inf if np.isnan(one.flips).any() else float(one.flips.mean()), default=None)


def _drawn_anew(one: Arm, other: Arm) -> bool:
    """Whether two runs of an arm are two draws: of different seeds or, where a log does not say, of different texts."""
    decoder, twin = one.about["decoder"], other.about["decoder"]
    if decoder["name"] != ELSEWHERE or decoder.get("seed") != twin.get("seed"):
        return bool(decoder.get("seed") != twin.get("seed"))
    shared = one.traces.keys() & other.traces.keys()
    return any([t.text for t in one.traces[i]] != [t.text for t in other.traces[i]] for i in shared)


def _but_for_the_seed(arm: Arm) -> str:
    about = {k: v for k, v in arm.about.items() if k not in ("source", "options")}
    about["decoder"] = {k: v for k, v in about["decoder"].items() if k != "seed"}
    return json.dumps([arm.key, about], sort_keys=True)


def analyse(runs: Sequence[Run], *, baseline: str = "direct", seed: int = 0) -> Analysis:
    """Correction and harm of each arm against a baseline on the same questions.

    Args:
        baseline: the arm's name.
        seed: of the bootstrap and of samples drawn again.

    Raises:
        UserError: no arm of that name, or no other.
    """
    arms = arms_of(runs)
    items = shared_items(arms)
    reference = named(arms, baseline)
    others = [arm for arm in arms if arm is not reference]
    if not others:
        raise UserError(f"{baseline!r} is the only arm; give a run with another one to hold against it")
    before = reference.right(items).astype(float)
    steady = churn_of(reference, arms, items, seed=seed)
    found: dict[str, Flips] = {}
    for arm in others:
        known = [c for c in (churn_of(arm, arms, items, seed=seed), steady) if c is not None]
        found[arm.name] = flips(arm.right(items).astype(float), before, _less_steady(known), seed=seed)
    adjusted = holm_by_name({name: one.p for name, one in found.items()})
    table = [_row(name, one, adjusted[name], before) for name, one in found.items()]
    notes = [
        f"{len(items)} questions against {reference.name}. δc: wrong → right, δo: right → wrong; "
        "Agresti and Coull's intervals; the net is their difference.",
        "Null: the churn, how often the less steady of the two arms flips one way against itself; beyond it is paired "
        "by question. Without churn the exact McNemar test (p, Holm's) exchanges the arms within a question. Of an arm "
        "that draws one answer a question it is not known: give a second run with another seed, or draw several.",
        "Not shown: whether a corrected answer was reached by another way or by luck that both arms share. Samples "
        "drawn again understate churn where there are few.",
    ]
    names = list(found)
    figure = dot_plot(
        names,
        {
            "δc: wrong → right": [Dot(one.corrected[0], *one.corrected[1].pair) for one in found.values()],
            "δo: right → wrong": [Dot(one.harmed[0], *one.harmed[1].pair) for one in found.values()],
        },
        nulls={"null: churn, each way": [Dot(one.churn) for one in found.values()]},
        title=f"Correction and harm against {reference.name}",
        x="fraction of the questions",
    )
    data: dict[str, Any] = {
        "items": items,
        "baseline": reference.name,
        "arms": {name: {**one._asdict(), "holm p": adjusted[name]} for name, one in found.items()},
    }
    return Analysis(NAME, table, figure, notes, data)


def _row(name: str, one: Flips, p: float, before: np.ndarray) -> dict[str, Any]:
    corrects = one.corrected_beyond[1].low > 0
    harms = one.harmed_beyond[1].low > 0
    if one.corrected[0] == one.harmed[0] == 0:
        reading = "equal: no question changed sides"
    elif before.all():
        reading = "the baseline is right throughout: there is nothing to correct"
    elif not before.any():
        reading = "the baseline is wrong throughout: there is nothing to spoil"
    elif math.isnan(one.churn):
        reading = "how much answering again does is not known"
    elif not (corrects or harms):
        reading = "no more than answering again"
    else:
        said = " and ".join(w for w, yes in (("corrects", corrects), ("harms", harms)) if yes)
        reading = f"{said}; the net is {'beyond' if p < 0.05 else 'within'} chance"
    return {
        "arm": name,
        "δc [95%]": shown(*one.corrected),
        "δo [95%]": shown(*one.harmed),
        "net [95%]": shown(*one.net),
        "null: churn": one.churn,
        "null from": one.source,
        "δc beyond": shown(*one.corrected_beyond),
        "δo beyond": shown(*one.harmed_beyond),
        "McNemar p (Holm)": p,
        "reading": reading,
    }
