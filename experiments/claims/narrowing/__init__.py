"""Does reinforcement learning narrow what a model can do? pass@k of the trained and of the base, at equal settings.

Confirmed: the trained model leads at k = 1, the base at the largest k, both by their intervals, and samples exchanged
between the two do not cross so (`elicit analyse pass-at-k`).
"""

from __future__ import annotations

from dataclasses import replace

from elicit.analysis import pass_at_k
from elicit.decoders import Sampling
from elicit.methods import direct
from experiments.claims.base import CONFIRMED, NOT_CONFIRMED, Finding, Study


def measure(study: Study) -> Finding:
    sampling = Sampling(study["samples"], study["temperature"], max_new_tokens=study["max_new_tokens"], seed=study.seed)
    trained = study.fitted(
        "one-shot-rlvr", updates=study["updates"], max_new_tokens=study["max_new_tokens"], seed=study.seed
    )
    base = direct.fit(study.model, max_new_tokens=study["max_new_tokens"])
    arms = [replace(one, decoder=sampling, select="vote") for one in (trained, base)]
    run = study.evaluated(arms[0], {"direct": arms[1]}, "sampled")
    found = pass_at_k.analyse([run], base="direct", seed=study.seed)
    (row,) = found.table
    crossing = found.data["crossings"][trained.method]
    lead, lag = row["lead at k = 1 [95%]"], row["base's lead at largest k"]
    return Finding(
        CONFIRMED if crossing["stands"] else NOT_CONFIRMED,
        f"lead of the trained model at k = 1 {lead}, of the base at k = {row['largest k']} {lag}; {row['reading']}",
        found.table, found.figure, found.notes, {"crossing": crossing}, [run],
    )  # fmt: skip
