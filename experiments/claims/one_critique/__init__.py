"""Do critiques of one problem rival reinforcement learning on one example?

Confirmed, by intervals over questions that hold together with 95%:

1. critiques gain over direct;
2. they keep at least half of what `one-shot-rlvr` gains (published: 86%): gain − ½ gain of `one-shot-rlvr` is above 0;
3. they are better than the same training on critiques shuffled among candidates;
4. and than the same training on right solutions, of as many rows of tokens.

Ten points are of interest in each. Where `one-shot-rlvr` itself gains nothing there is nothing to rival: not testable.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from elicit.evaluation.metrics.format import with_interval
from experiments.claims.base import Finding, Study
from experiments.claims.rules import INTEREST, Condition, Judgement, lead
from experiments.claims.trained import RLVR, means, points, scores, trained
from probes.dots import Dot, dot_plot
from probes.statistics import Interval

CRITIQUES, SHARE = "critique-ft", 0.5
CONTROLS = ("shuffled", "solutions")
Scores = Mapping[str, Float[np.ndarray, " items"]]
GAIN, KEPT = "gain of the critiques", "gain less half of one-shot-rlvr's"


def measure(study: Study) -> Finding:
    runs = study.compared(["direct", "cot-prompt", CRITIQUES, RLVR])
    for kind in CONTROLS:
        runs[kind] = study.evaluated(trained(study, CRITIQUES, targets=kind), {}, f"critiques-{kind}")
    found = {name: scores(run) for name, run in runs.items()}
    read, rivalled = summarised(found, seed=study.seed)
    judged = decided(found, read, rivalled, study.seed)
    arms = {name: run.metrics["arms"][run.metrics["method"]] for name, run in runs.items()}
    fitted = runs[CRITIQUES].metrics["options"]["found"]
    shown = {name: Dot(arms[name]["accuracy"], *arms[name]["interval"]) for name in runs}
    grey = ("direct", *CONTROLS)
    figure = dot_plot(
        list(shown), {"right": [d if n not in grey else Dot(float("nan")) for n, d in shown.items()]},
        nulls={"null: direct and controls": [d if n in grey else Dot(float("nan")) for n, d in shown.items()]},
        reference=arms["direct"]["accuracy"], title="One problem's critiques", x="fraction of right answers",
    )  # fmt: skip
    gained = means({n: s - found["direct"] for n, s in found.items()}, together=1, seed=study.seed)
    table = [
        {"arm": n, "right [95%]": with_interval(arms[n]["accuracy"], arms[n]["interval"]),
         "gain over direct [95%]": points(*gained[n]), "tokens": f"{arms[n]['tokens_per_item']:.0f}"}
        for n in runs
    ]  # fmt: skip
    return Finding(
        judged, ", ".join(f"{name} {points(*one)}" for name, one in read.items()) + " points",
        table, figure,
        [f"{fitted['rows']} candidates of {', '.join(fitted['problems'])}, {fitted['held_right']} graded correct.",
         "Intervals of the line hold together; those of the table one by one."],
        {name: {"points": v, "interval": i.pair} for name, (v, i) in read.items()}, list(runs.values()),
    )  # fmt: skip


def summarised(found: Scores, *, seed: int = 0) -> tuple[dict[str, tuple[float, Interval]], bool]:
    """What the rule reads, and whether `one-shot-rlvr` gains at all."""
    critiques, rival = found[CRITIQUES] - found["direct"], found[RLVR] - found["direct"]
    values = {GAIN: critiques, KEPT: critiques - SHARE * rival}
    values |= {f"less {kind}": found[CRITIQUES] - found[kind] for kind in CONTROLS}
    (_, interval) = means({RLVR: rival}, seed=seed)[RLVR]
    return means(values, seed=seed), interval.low > 0


def decided(found: Scores, read: Mapping[str, tuple[float, Interval]], rivalled: bool, seed: int = 0) -> Judgement:
    """The conditions."""
    critiques, direct = found[CRITIQUES], found["direct"]
    best = means({KEPT: 1 - direct - SHARE * (found[RLVR] - direct)}, together=len(read), seed=seed)[KEPT][1]
    together = len(read)
    conditions = (
        lead(GAIN, critiques, direct, together=together, seed=seed),
        Condition(KEPT, *read[KEPT], interest=INTEREST, together=together, room=best.low > 0),
        *(lead(f"less {kind}", critiques, found[kind], together=together, seed=seed) for kind in CONTROLS),
    )
    return Judgement(
        conditions, () if rivalled else ("one-shot-rlvr gains nothing here, so there is nothing to rival",)
    )
