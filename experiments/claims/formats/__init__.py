"""Does reinforcement learning make one format of the base's outputs common, and the others rare?

One half of the questions names the format whose share rises most; the other half judges it. Confirmed, on that half:
the base has this format already (of interest from one output in a hundred), its share rises (ten points are of
interest; p < 0.05 where trained and base are exchanged within questions), and of the fraction of all other formats more
than half is lost, by its interval. Not testable: all outputs of both have one format.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from elicit.analysis.base import halves, shown
from elicit.analysis.behaviour import format_share
from elicit.analysis.behaviour.format_share import FORMATS, Outputs, classify
from elicit.evaluation import Run
from elicit.evaluation.metrics.format import percent, signed, with_interval
from elicit.evaluation.run.arms import Arm, arms_of, named, shared_items
from experiments.claims.base import Finding, Study
from experiments.claims.rules import INTEREST, Condition, Judgement
from experiments.claims.sampled import sampled
from probes.dots import Dot, dot_plot
from probes.statistics import Interval, against_null, bootstrap_mean, central, question_weights

TRAINED, BASE = "one-shot-rlvr", "direct"
LEFT, RARELY = 0.5, 0.01


def measure(study: Study) -> Finding:
    return found(sampled(study, study["max_new_tokens"]), study.seed)


def found(run: Run, seed: int = 0) -> Finding:
    """The finding from samples of the trained model and of its base."""
    arms = arms_of([run])
    items = shared_items(arms)
    trained, base = named(arms, TRAINED), named(arms, BASE)
    outputs = {arm.name: format_share.outputs_of(arm, items) for arm in (trained, base)}
    after, before = (format_share.format_rates(one, len(items)).share for one in outputs.values())
    one_half, other_half = (
        format_share.format_rates(Outputs(*(v[n::2] for v in outputs[BASE])), len(items)).share for n in (0, 1)
    )
    chosen = halves(len(items), seed)
    winner = int((after - before)[chosen].mean(0).argmax())
    a, b = after[~chosen, winner], before[~chosen, winner]
    change, interval = float((a - b).mean()), bootstrap_mean(a - b, seed=seed)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(2000, len(a)))
    null = against_null(change, (signs * (a - b)).mean(1), greater=True)
    weights = question_weights(len(a), seed=seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = central(weights @ (1 - a) / (weights @ (1 - b)))
    present = [f for f in range(len(FORMATS)) if after[:, f].any() or before[:, f].any()]

    def dots(values: np.ndarray) -> list[Dot]:
        return [Dot(float(v.mean()), *bootstrap_mean(v, bounds=(0.0, 1.0), seed=seed).pair) for v in values.T[present]]

    figure = dot_plot(
        [FORMATS[f] for f in present], {"base": dots(before), "trained": dots(after)},
        nulls={"null: half of the base's samples": dots(one_half), "null: the other half": dots(other_half)},
        title="How outputs divide among formats", x="fraction of samples",
    )  # fmt: skip
    table = [
        {
            "format": FORMATS[f],
            "base [95%]": with_interval(*_mean(before[:, f], seed, 0.0)),
            "trained [95%]": with_interval(*_mean(after[:, f], seed, 0.0)),
            "change, points [95%]": with_interval(*_mean(after[:, f] - before[:, f], seed), signed),
            "base against itself [95%]": with_interval(*_mean(one_half[:, f] - other_half[:, f], seed), signed),
        }
        for f in present
    ]
    gain = format_share.decompose(outputs[BASE], outputs[TRAINED], len(items), seed=seed)
    wordings = {arm.name: _wordings(arm, items, FORMATS[winner], seed) for arm in (base, trained)}
    notes = [
        f"Of the gain of {shown(*gain.gain)} the change of shares is {shown(*gain.shares)} (null, formats exchanged "
        f"within a question: {shown(gain.null.mean, gain.null.interval)}).",
        f"Openings of {FORMATS[winner]} (first two words), in effective number: "
        + ", ".join(f"{name} {shown(*told)}" for name, told in wordings.items())
        + ". Fewer means that wordings die as well; these are not in the verdict.",
    ]
    lost = 1 - float((1 - a).sum() / (1 - b).sum()) if (b < 1).any() else math.nan
    data = {"winner": FORMATS[winner], "change": change, "null": null, "left": left, "wordings": wordings}
    if len(present) == 1:
        why = f"all outputs of both are {FORMATS[winner]}: there is nothing to choose from"
        return Finding(Judgement((), (why,)), why, table, figure, notes, data, [run])
    had = bootstrap_mean(b, bounds=(0.0, 1.0), seed=seed)
    judged = Judgement((
        Condition(f"the base says {FORMATS[winner]}", float(b.mean()), had, interest=RARELY),
        Condition("its share rises", change, interval, p=null.p, chance=null.interval.high),
        Condition("of all others is lost", lost, Interval(1 - left.high, 1 - left.low), 1 - LEFT, 1 - LEFT + INTEREST),
    ))  # fmt: skip
    by_chance = with_interval(null.mean, null.interval.pair, signed)
    line = (
        f"{FORMATS[winner]} {percent(float(b.mean()))}% → {percent(float(a.mean()))}%, in points "
        f"{with_interval(change, interval.pair, signed)} (null {by_chance}); of all other formats {percent(left.low)} "
        f"to {percent(left.high)}% is left"
    )
    return Finding(judged, line, table, figure, notes, data, [run])


def _mean(values: np.ndarray, seed: int, least: float = -1.0) -> tuple[float, list[float]]:
    return float(values.mean()), bootstrap_mean(values, bounds=(least, 1.0), seed=seed).pair


def _wordings(arm: Arm, items: Sequence[str], form: str, seed: int) -> tuple[float, Interval]:
    """The effective number of openings (1/Σp², p of the first two words) of an arm's outputs in a format."""
    said = [[" ".join(t.text.split()[:2]) for t in some if classify(t) == form] for some in arm.outputs(items)]
    words = sorted({opening for some in said for opening in some})
    if not words:
        return math.nan, Interval(math.nan, math.nan)
    counts = np.array([[some.count(word) for word in words] for some in said], dtype=float)

    def effective(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ counts
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = 1 / ((drawn / drawn.sum(1, keepdims=True)) ** 2).sum(1)
        return found

    whole = float(effective(np.ones((1, len(counts))))[0])
    return whole, central(effective(question_weights(len(counts), seed=seed)))
