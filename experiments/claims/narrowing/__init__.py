"""Does reinforcement learning narrow what a model can do? pass@k of the trained and of the base, at equal settings.

Confirmed: the trained model leads at k = 1, the base at the largest k, both by their intervals (ten points are of
interest), and samples exchanged between the two do not cross so (`elicit analyse pass-at-k`). The largest k is half the
samples of a question: at k = n pass@k is 1 or 0, its noisiest form. Not testable below k = 32: the claim is of tens to
hundreds.
"""

from __future__ import annotations

from elicit.analysis.behaviour import pass_at_k
from elicit.analysis.behaviour.pass_at_k import Crossing
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement
from experiments.claims.sampled import sampled

TENS = 32


def measure(study: Study) -> Finding:
    run = sampled(study, study["max_new_tokens"])
    most = study["samples"] // 2
    found = pass_at_k.analyse([run], base="direct", most=most, seed=study.seed)
    (row,) = found.table
    crossing = found.data["crossings"]["one-shot-rlvr"]
    lead, lag = row["lead at k = 1 [95%]"], row["base's lead at largest k"]
    one = Crossing(**{key: value for key, value in crossing.items() if key != "stands"})
    return Finding(
        judged(one, most),
        f"lead of the trained model at k = 1 {lead}, of the base at k = {row['largest k']} {lag}; {row['reading']}",
        found.table, found.figure, found.notes, {"crossing": crossing}, [run],
    )  # fmt: skip


def judged(crossing: Crossing, most: int) -> Judgement:
    """The conditions; `most` is the largest k."""
    return Judgement(
        (
            Condition("the trained model leads at k = 1", *crossing.lead),
            Condition(f"the base leads at k = {most}", *crossing.lag, p=crossing.null.p),
        ),
        too_small(most),
    )


def too_small(most: int) -> tuple[str, ...]:
    """What is missing where k does not reach what the claim is about."""
    return () if most >= TENS else (f"k goes to {most}, and the claim is of tens to hundreds ({TENS} at least)",)
