"""One verdict over several seeds: each condition's number and interval over seeds and questions.

Every seed measures all of a claim anew (`measure`), on the same questions. Of a number that is a mean over questions
the interval is that of `probes.statistics.over_seeds`, as for runs and comparisons. Of any other number a seed gives
its value and an interval over questions; seeds share their questions, and the mean of numbers that move together is as
uncertain as they are on average, which is the most that it can be. So the halves of these intervals are averaged, and
seeds enter as they do there: by Student's t, in quadrature, each side for itself (MOVER, doi 10.1002/sim.3095). A null
that a number must pass is passed by twice the mean of the seeds' p (Vovk and Wang, doi 10.1093/biomet/asaa027), which
holds however they depend on each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from experiments.claims.base import Finding
from experiments.claims.rules import Condition, Judgement
from probes.dots import Dot, dot_plot
from probes.statistics import RESAMPLES, Interval
from probes.statistics import over_seeds as interval_over_seeds

DRAWN = re.compile(r"\s+(\d+|'[^']*'|\"[^\"]*\")$")  # what a control's name ends in where each seed draws it anew


def over_seeds(found: Mapping[int, Finding]) -> Finding:
    """The finding of a claim from that of each seed: what each found, and the conditions over all."""
    judged = judged_over_seeds({seed: one.judged for seed, one in found.items()})
    notes = dict.fromkeys(note for one in found.values() for note in one.notes)
    said = {note: [seed for seed, one in found.items() if note in one.notes] for note in notes}
    return Finding(
        judged, "; ".join(f"seed {seed}: {one.line.rstrip('.')}" for seed, one in found.items()),
        [{"seed": seed, **row} for seed, one in found.items() for row in one.table],
        _figure({seed: one.judged for seed, one in found.items()}, judged),
        [note if len(seeds) == len(found) else f"Seed {', '.join(map(str, seeds))}: {note}"
         for note, seeds in said.items()],
        {str(seed): {"judged": one.judged.to_dict(), **one.data} for seed, one in found.items()},
        [run for one in found.values() for run in one.runs],
    )  # fmt: skip


def _figure(found: Mapping[int, Judgement], judged: Judgement) -> go.Figure:
    """Each condition's number by seed and over seeds, from its bound on."""

    def dots(some: Sequence[Condition]) -> list[Dot]:
        return [Dot(one.value - one.bound, *(end - one.bound for end in one.interval.pair)) for one in some]

    over = judged.conditions
    of_seed = {f"seed {seed}": dots(_ordered(one.conditions, over)) for seed, one in found.items()} if over else {}
    return dot_plot(
        [one.name for one in over] or ["no condition is over all seeds"],
        {"over seeds": dots(over) or [Dot(math.nan)], **of_seed}, title="What the verdict asks, by seed",
        x="distance from what it must lie above, each in its own unit",
    )  # fmt: skip


def judged_over_seeds(found: Mapping[int, Judgement]) -> Judgement:
    """The judgement of a claim from that of each seed.

    What one seed misses the claim misses. Conditions belong together by name, else by place; where seeds do not ask the
    same things, nothing can be read over them.
    """
    first, *_ = found.values()
    every = [_ordered(judgement.conditions, first.conditions) for judgement in found.values()]
    unmet = [f"seed {seed}: {one}" for seed, judgement in found.items() for one in judgement.unmet]
    asked = [[_shape(one) for one in conditions] for conditions in every]
    if any(shapes != asked[0] for shapes in asked):
        told = ", ".join(f"{len(shapes)} with seed {seed}" for seed, shapes in zip(found, asked, strict=True))
        return Judgement((), (*unmet, f"the seeds ask different conditions ({told})"))
    return Judgement(tuple(pooled(row) for row in zip(*every, strict=True)), tuple(unmet))


def _ordered(some: Sequence[Condition], like: Sequence[Condition]) -> Sequence[Condition]:
    """Conditions in the order of those of the same names, but for draws; as they are where the names differ."""
    names, wanted = ([DRAWN.sub("", one.name) for one in conditions] for conditions in (some, like))
    if len(set(names)) < len(names) or sorted(names) != sorted(wanted):
        return some
    return [some[names.index(name)] for name in wanted]


def pooled(each: Sequence[Condition], *, seed: int = 0, resamples: int = RESAMPLES) -> Condition:
    """One condition over seeds.

    Args:
        each: seed by seed.
        seed, resamples: of the bootstrap over questions.
    """
    first, values = each[0], np.array([one.value for one in each])
    if len(each) == 1:
        return first
    confidence, by_question = (
        1 - 0.05 / first.together,
        [one.by_question for one in each if one.by_question is not None],
    )
    if len(by_question) == len(each) and len({len(one) for one in by_question}) == 1:
        interval = interval_over_seeds(np.stack(by_question), seed=seed, resamples=resamples, confidence=confidence)
    else:
        half = float(stats.t.ppf((1 + confidence) / 2, len(each) - 1) * values.std(ddof=1)) / math.sqrt(len(each))
        below, above = (
            math.hypot(float(np.mean([abs(one.value - one.interval.pair[side]) for one in each])), half)
            for side in (0, 1)
        )
        interval = Interval(float(values.mean()) - below, float(values.mean()) + above)
    p = None if first.p is None else float(np.minimum(1.0, 2 * np.mean([one.p for one in each])))  # NaN stays
    chances = [one.chance for one in each if one.chance is not None]
    return replace(
        first, name=_name(each), value=float(values.mean()), interval=interval, p=p, by_question=None, least_seen=None,
        chance=max(chances) if chances else None, room=all(one.room for one in each),
    )  # fmt: skip


def _name(each: Sequence[Condition]) -> str:
    """The common name; of draws what is left of it, of others all of them."""
    for names in ([one.name for one in each], [DRAWN.sub("", one.name) for one in each]):
        if len(set(names)) == 1:
            return names[0]
    return " / ".join(dict.fromkeys(one.name for one in each))


def _shape(one: Condition) -> tuple[float, float, int, bool, str]:
    """What must be the same for conditions to be one."""
    return round(one.bound, 6), round(one.interest, 6), one.together, one.p is None, one.unit
