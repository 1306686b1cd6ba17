"""Does training on right answers alone cost breadth? pass@k at the largest k, against training on as many of any kind.

The model draws answers to fit questions, asked to think, and is trained twice: on the right ones, and on as many drawn
at random from all. Then both are sampled on test questions. The null is a third training, on another random draw of
unfiltered answers with another seed: two trainings differ by that much anyway.

Confirmed: at the largest k both unfiltered trainings are above the filtered one, question by question, by the intervals
of the differences (ten points are of interest). The largest k is half the samples of a question; not testable below
k = 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from elicit.analysis.base import shown
from elicit.analysis.behaviour import pass_at_k
from elicit.decoding import Sampling
from elicit.elicited import Elicited
from elicit.methods.base import draw_seed
from experiments.claims.base import Finding, Study
from experiments.claims.narrowing import too_small
from experiments.claims.rules import Condition, Judgement
from experiments.claims.tuning import ASKED, drawn, examples, some_of, tuned
from probes.statistics import Interval

FILTERED, ALL, AGAIN, BASE = "filtered", "unfiltered", "unfiltered-again", "untrained"


def measure(study: Study) -> Finding:
    answers = drawn(study)
    right = [one for one in answers if one[1].correct]
    trained = {
        FILTERED: (right, study.seed),
        ALL: (some_of(answers, len(right), study.seed), study.seed),
        AGAIN: (some_of(answers, len(right), again := draw_seed(study.seed, 1)), again),
    }
    sampling = Sampling(study["samples"], study["temperature"], max_new_tokens=study["max_new_tokens"], seed=study.seed)
    base = Elicited(study.model, BASE, ASKED, sampling, select="vote")
    arms = {
        name: replace(base, method=name, adapter=tuned(study, examples(study, some), seed))
        for name, (some, seed) in trained.items()
    }
    run = study.evaluated(arms.pop(FILTERED), {**arms, BASE: base}, "curated")
    most = study["samples"] // 2
    found = {name: pass_at_k.analyse([run], base=name, most=most, seed=study.seed) for name in (ALL, AGAIN)}
    lags = {name: one.data["crossings"][FILTERED]["lag"] for name, one in found.items()}
    lead = found[ALL].data["crossings"][FILTERED]["lead"]
    told = ", ".join(f"{name} − filtered {shown(*lag)}" for name, lag in lags.items())
    curves = {name: arm["pass_at_k"] for name, arm in found[ALL].data["arms"].items()}
    notes = [
        f"{len(answers)} answers to {study['limit']} fit questions were drawn, {len(right)} right; every training has "
        "as many answers and as many tokens a step.",
        f"{AGAIN} is the null: the same training on another random draw. The rows are against {ALL}.",
        *found[ALL].notes,
    ]
    return Finding(
        judged(lags, most),
        f"at k = {most}: {told}; at k = 1 filtered − unfiltered {shown(*lead)}",
        found[ALL].table, found[ALL].figure, notes, {"lags": lags, "pass at k": curves}, [run],
    )  # fmt: skip


def judged(lags: Mapping[str, tuple[float, Interval]], most: int) -> Judgement:
    """The conditions, of both unfiltered trainings less the filtered one at the largest k."""
    conditions = [Condition(f"{name} less filtered at k = {most}", *lag) for name, lag in lags.items()]
    return Judgement(tuple(conditions), too_small(most))
