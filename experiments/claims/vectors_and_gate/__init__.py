"""Does a base recover its thinking model's lead by vectors that this model's decisions place?

Confirmed, all by 95% intervals, paired by question: the fraction of the gap from direct answers to the thinking model
lies above one half; the method is right more often than each of its rivals (random categories, random positions, the
bias alone, and as many of the thinking model's tokens given away as are steered here), so than the best of them; and
nothing of interest is gained on the twin that lacks the skill. The vectors are the base's own, and trained by gradient
descent, as the source's are; what other kinds (`beside`) do stands beside them and decides nothing. Of interest are ten
points, and a tenth of the gap beyond one half. Not testable: without a gap, or where nothing was steered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from elicit.evaluation import Run
from elicit.evaluation.metrics.gap import format_gap
from elicit.evaluation.run.arms import arms_of
from elicit.methods.vector_transfer import THINKING
from elicit.methods.vector_transfer.hybrid_stats import GAP_HEAD, gap_rows
from elicit.methods.vector_transfer.options import NAME
from experiments.claims.base import Finding, Study
from experiments.claims.reading import DIRECT, Lead, arms_figure, gap, leads, on_twin, over_rivals
from experiments.claims.rules import INTEREST, Condition, Judgement, absent
from probes.statistics import Interval

RIVALS = ("random categories", "random positions", "bias alone", "as many tokens substituted")
MOST = 0.5
TWIN = "it where the skill is not there"


def measure(study: Study) -> Finding:
    kinds = [kind.strip() for kind in f"{study['vectors']},{study['beside']}".split(",") if kind.strip()]
    return together({kind: _of_kind(study, kind) for kind in dict.fromkeys(kinds)})


def _of_kind(study: Study, kind: str) -> Finding:
    run = study.compared([NAME], controls=True, given={NAME: {"vectors": kind}})[NAME]
    return found(run, on_twin(study, NAME, vectors=kind), study.seed)


def together(by_kind: Mapping[str, Finding]) -> Finding:
    """The finding of the first kind of vectors, with what the others give beside it."""
    first, *others = by_kind
    notes = [
        f"With vectors `{kind}`, which decide nothing here: {by_kind[kind].judged.verdict.removesuffix(' here')} "
        f"({by_kind[kind].judged.reason}); {by_kind[kind].line}."
        for kind in others
    ]
    return replace(
        by_kind[first],
        table=[{"vectors": kind, **row} for kind, one in by_kind.items() for row in one.table],
        notes=[*by_kind[first].notes, *notes],
        data=by_kind[first].data | {kind: {"judged": by_kind[kind].judged.to_dict()} for kind in others},
        runs=[run for one in by_kind.values() for run in one.runs],
    )


def found(run: Run, twin: Lead | None, seed: int = 0) -> Finding:
    """The finding from the run with its controls and the lead on the twin."""
    got = gap(run, NAME, THINKING, seed)
    over = leads(run, NAME, RIVALS, seed)
    table = [dict(zip(GAP_HEAD, row, strict=True)) for row in gap_rows(run, THINKING)]
    arms = [arm.name for arm in arms_of([run]) if arm.key != DIRECT]
    figure = arms_figure(run, arms, twin, "What is recovered, and what controls recover", seed)
    if got.share is None or got.interval is None or not over:
        why = "nothing was steered" if got.share is not None else f"a gap of {got.gap:.2f} leaves no fraction to give"
        return Finding(Judgement((), (why,)), why, table, figure, runs=[run])
    best = min(over, key=lambda one: one.value)
    line = f"{format_gap(got.share, got.interval.pair)} of the gap; in points, {best}, the best rival" + (
        f"; {twin}" if twin else ""
    )
    notes = [
        "Leads over the rivals, in points: " + "; ".join(map(str, over)) + ".",
        "Random vectors, permuted categories and random candidates stand in the table; emitting all of the thinking "
        "model's tokens recovers all by construction and is no rival.",
    ]
    missing = [name for name in RIVALS if name not in arms]
    if missing:
        notes.append(f"Rivals that these vectors do not have: {', '.join(missing)}.")
    data = {"gap": got, "rivals": over, "twin": twin}
    judged = Judgement((
        recovers(got.share, got.interval),
        *over_rivals(run, NAME, [one.over for one in over], seed),
        *([] if twin is None else [absent(TWIN, twin.value, twin.interval)]),
    ))  # fmt: skip
    return Finding(judged, line, table, figure, notes, data, [run])


def recovers(share: float, interval: Interval) -> Condition:
    """Most of the gap is recovered."""
    return Condition("fraction of the gap", share, interval, MOST, MOST + INTEREST, unit="")
