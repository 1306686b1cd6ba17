"""Is it the decision when to think that counts? Held against decisions of the same rate that know nothing.

Confirmed, all by 95% intervals, paired by question (ten points are of interest):
- steering: the thinking model's decisions recover more than half of the gap, and are right more often than vectors at
  random positions of the same rate, and than random candidates at its positions;
- routing: a question goes to a thought where the margin Δ of its short answer is small, by a threshold from one half
  of the questions; on the other half tokens are saved, the accuracy is at most `margin` below that of always thinking,
  and it is above that of a random gate of the same rate.

Not testable: without a gap to recover. Beside it, what is *how*: other categories' vectors at the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from elicit.analysis.base import halves
from elicit.analysis.behaviour.routing import SIGNALS, Judged, Pair, choose, judge
from elicit.evaluation import Run
from elicit.evaluation.metrics.format import percent, signed, with_interval
from elicit.evaluation.metrics.gap import format_gap
from elicit.evaluation.run.arms import arms_of, named, shared_items
from elicit.methods import cot_prompt, direct
from elicit.methods.vector_transfer import THINKING
from elicit.methods.vector_transfer.options import NAME
from experiments.claims.base import Finding, Study
from experiments.claims.reading import DIRECT, Lead, dot, gap, lead, lead_of, leads, over_rivals
from experiments.claims.rules import INTEREST, Condition, Judgement
from experiments.claims.vectors_and_gate import recovers
from probes.dots import dot_plot
from probes.statistics import Interval

PLACES, CANDIDATES, OTHERS = "random positions", "random candidates", "random categories"
SIGNAL = "Δ of the answer"


class Gate(NamedTuple):
    """The gate on the half that judges it, and the leads of it and of a random one over always answering at once."""

    judged: Judged
    over_short: Lead
    random: Lead


def measure(study: Study) -> Finding:
    gated = [
        replace(study, settings={**study.settings, "task": study[task], "limit": study["routed"]})
        for task in ("easy", "hard")
    ]
    for one in gated:
        one.task()  # a limit that is too large is told before anything is fitted
    run = study.compared([NAME], controls=True)[NAME]
    limit = study["max_new_tokens"]
    long, short = (one.fit(study.model, max_new_tokens=limit) for one in (cot_prompt, direct))
    routed = [there.evaluated(long, {DIRECT: short}, "routing") for there in gated]
    return found(run, routed, study["margin"], study.seed)


def routes(runs: Sequence[Run], seed: int = 0) -> Gate:
    """A gate over the questions of all runs together."""
    pairs, confidence = [], []
    for run in runs:
        arms = arms_of([run])
        short, long, items = named(arms, DIRECT), named(arms, cot_prompt.NAME), shared_items(arms)
        tokens = [np.array([float(sum(t.spent for t in a.traces[i])) for i in items]) for a in (short, long)]
        pairs.append(Pair(short.right(items) * 1.0, long.right(items) * 1.0, *tokens))
        confidence += [SIGNALS[SIGNAL](t) for t in short.chosen(items)]
    pair, sure = Pair(*map(np.concatenate, zip(*pairs, strict=True))), np.array(confidence)
    fit = halves(len(sure), seed)
    held, sure, threshold = pair.of(~fit), sure[~fit], choose(sure[fit], pair.of(fit), 0.02)
    judged = judge(sure, held, threshold, seed=seed)
    right = np.where(sure < threshold, held.long, held.short)
    anyhow = (1 - judged.rate) * held.short + judged.rate * held.long
    return Gate(judged, *(lead_of(one, held.short, "short answers", seed) for one in (right, anyhow)))


def found(run: Run, routed: Sequence[Run], margin: float, seed: int = 0) -> Finding:
    """The finding from hybrid decoding with its controls, and from short and long answers to the same questions."""
    got = gap(run, NAME, THINKING, seed)
    over = leads(run, NAME, (PLACES, CANDIDATES), seed)
    gate = routes(routed, seed)
    told = gate.judged
    arms = [name for name in (NAME, CANDIDATES, OTHERS, PLACES) if name in run.metrics["arms"]]
    shares = {name: gap(run, name, THINKING, seed) for name in arms}
    table = [
        {
            "who decides": name,
            "recovers of the gap [95%]": "" if one.share is None or one.interval is None
            else format_gap(one.share, one.interval.pair),
            "lead over direct, points [95%]": with_interval(one.gain, one.gain_interval.pair, signed),
            "tokens saved": "",
        }
        for name, one in shares.items()
    ] + [
        {
            "who decides": name, "recovers of the gap [95%]": "",
            "lead over direct, points [95%]": with_interval(one.value, one.interval.pair, signed),
            "tokens saved": f"{told.saved:.0%}",
        }
        for name, one in (("the short answer's Δ", gate.over_short), ("a random gate as often", gate.random))
    ]  # fmt: skip
    names = [*arms, "short answer's Δ"]
    nulls = [dot(lead(run, PLACES if PLACES in arms else DIRECT, DIRECT, seed))] * len(arms) + [dot(gate.random)]
    figure = dot_plot(
        names, {"lead over direct answers": [*(dot(lead(run, a, DIRECT, seed)) for a in arms), dot(gate.over_short)]},
        nulls={"null: decided at random, as often": nulls}, title="When: decisions against random ones",
        x="fraction of the questions",
    )  # fmt: skip
    line = (
        (format_gap(got.share, got.interval.pair) if got.share is not None and got.interval else "no fraction")
        + " of the gap by the thinking model's decisions; in points, "
        + ", ".join(map(str, over))
        + f"; a gate on short answers thinks at {percent(told.rate)}% and saves {percent(told.saved)}% of the tokens "
        f"at {with_interval(*_pair(told.against_long), signed)} against always thinking, "
        f"{with_interval(*_pair(told.beyond), signed)} against a random gate"
    )
    notes = []
    if OTHERS in arms:
        notes.append(f"How: in points, the method is {lead(run, NAME, OTHERS, seed)} at the same positions.")
    data = {"gap": got, "steering": over, "gate": told._asdict()}
    missing = [name for name in (PLACES, CANDIDATES) if name not in arms]
    unmet = [f"no arm {name}" for name in missing]
    conditions = []
    if got.share is None or got.interval is None:
        unmet.append(f"a gap of {got.gap:.2f} leaves no fraction to give")
    else:
        conditions.append(recovers(got.share, got.interval))
    conditions += over_rivals(run, NAME, [one.over for one in over], seed)
    conditions += gated(told, margin)
    return Finding(
        Judgement(tuple(conditions), tuple(unmet)), line, table, figure, notes, data, [run, *routed]
    )  # fmt: skip


def gated(told: Judged, margin: float) -> list[Condition]:
    """What the gate must do; the tokens are counted and have no interval."""
    exact = Interval(told.saved, told.saved)
    return [
        Condition(f"the gate against always thinking, at most {margin:.0%} less", *told.against_long, -margin,
                  INTEREST - margin),
        Condition("the gate against a random one", *told.beyond),
        Condition("tokens that the gate saves", told.saved, exact, interest=0.0),
    ]  # fmt: skip


def _pair(told: tuple[float, Interval]) -> tuple[float, list[float]]:
    return told[0], told[1].pair
