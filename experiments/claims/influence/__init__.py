"""Are facts drawn from few documents and procedures from many? Influence of fine-tuning documents, checked by LDS.

`elicit analyse influence`: EK-FAC influence of facts and worked solutions on queries for both, and trainings on random
halves of the documents, which the summed influence must foretell.

Not testable: the check fails, that is, LDS is not above that of exchanged halves (p >= 0.05) or its interval reaches 0;
then influence says nothing here. Confirmed: the top documents hold more of the influence on facts than on procedures,
whether a procedure is asked for as a whole or for its last sentence alone, and hold the answer to facts more often than
documents in random order do and more often than to procedures; all by their intervals (a tenth is of interest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elicit.analysis.base import shown
from elicit.analysis.internals import influence
from elicit.analysis.internals.influence import FACTS, PROCEDURES, SHORT
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement
from probes.statistics import Interval


def measure(study: Study) -> Finding:
    options = {key: study[key] for key in ("documents", "queries", "subsets", "steps", "layers", "seed")}

    def told(what: str, done: int, total: int) -> None:
        study.log(f"{what}: training {done + 1} of {total}")

    found = influence.analyse(study.model, **options, progress=told)
    data, check = found.data, found.data["lds"]
    against = data["facts less"]
    gap, short = (against[kind]["concentration"] for kind in (PROCEDURES, SHORT))
    top = data["kinds"][FACTS]["on top"], data["kinds"][PROCEDURES]["on top"]
    line = (
        f"influence in the top {data['top']} of {study['documents']} documents: facts less procedures {_said(gap)}, "
        f"less their last sentences {_said(short)}; the answer on top for {top[0]['mean']:.0%} of facts and "
        f"{top[1]['mean']:.0%} of procedures (in random order {data['kinds'][FACTS]['shuffled']:.0%} and "
        f"{data['kinds'][PROCEDURES]['shuffled']:.0%}); LDS {_said(check)}, p = {check['p']:.3f}"
    )
    return Finding(decided(data), line, found.table, found.figure, found.notes, data)


def decided(data: Mapping[str, Any]) -> Judgement:
    """The conditions, of the numbers that the analysis gives."""
    against, check = data["facts less"], data["lds"]

    def asked(name: str, found: Mapping[str, float]) -> Condition:
        return Condition(name, found["mean"], Interval(found["low"], found["high"]))

    return Judgement(
        (
            asked("influence on facts is more concentrated than on procedures", against[PROCEDURES]["concentration"]),
            asked("than on the last sentences of procedures", against[SHORT]["concentration"]),
            asked("the answer to facts is on top more often than at random", data["kinds"][FACTS]["beyond shuffled"]),
            asked("than that to procedures", against[PROCEDURES]["found"]),
        ),
        () if check["p"] < 0.05 and check["low"] > 0 else ("influence does not foretell what trainings do (LDS)",),
    )


def _said(found: dict[str, float]) -> str:
    return shown(found["mean"], Interval(found["low"], found["high"]))
