"""Does reinforcement learning narrow what a model can do? pass@k of the trained and of the base, at equal settings.

Confirmed: the trained model leads at k = 1, the base at the largest k, both by their intervals, and samples exchanged
between the two do not cross so (`elicit analyse pass-at-k`).
"""

from __future__ import annotations

from elicit.analysis.behaviour import pass_at_k
from experiments.claims.base import CONFIRMED, NOT_CONFIRMED, Finding, Study
from experiments.claims.sampled import sampled


def measure(study: Study) -> Finding:
    run = sampled(study, study["max_new_tokens"])
    found = pass_at_k.analyse([run], base="direct", seed=study.seed)
    (row,) = found.table
    crossing = found.data["crossings"]["one-shot-rlvr"]
    lead, lag = row["lead at k = 1 [95%]"], row["base's lead at largest k"]
    return Finding(
        CONFIRMED if crossing["stands"] else NOT_CONFIRMED,
        f"lead of the trained model at k = 1 {lead}, of the base at k = {row['largest k']} {lag}; {row['reading']}",
        found.table, found.figure, found.notes, {"crossing": crossing}, [run],
    )  # fmt: skip
