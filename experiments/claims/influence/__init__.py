"""Are facts drawn from few documents and procedures from many? Influence of fine-tuning documents, checked by LDS.

`elicit analyse influence`: EK-FAC influence of facts and worked solutions on queries for both, and trainings on random
halves of the documents, which the summed influence must foretell.

Not testable: the check fails, that is, LDS is not above that of exchanged halves (p >= 0.05) or its interval reaches 0;
then influence says nothing here. Confirmed: the top documents hold more of the influence on facts than on procedures,
whether a procedure is asked for as a whole or for its last sentence alone, and hold the answer to facts more often than
documents in random order do and more often than to procedures; all by their intervals.
"""

from __future__ import annotations

from elicit.analysis.base import shown
from elicit.analysis.internals import influence
from elicit.analysis.internals.influence import FACTS, PROCEDURES, SHORT
from experiments.claims.base import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, Finding, Study
from probes.statistics import Interval


def measure(study: Study) -> Finding:
    options = {key: study[key] for key in ("documents", "queries", "subsets", "steps", "layers", "seed")}

    def told(what: str, done: int, total: int) -> None:
        study.log(f"{what}: training {done + 1} of {total}")

    found = influence.analyse(study.model, **options, progress=told)
    data, check = found.data, found.data["lds"]
    against = data["facts less"]
    believed = check["p"] < 0.05 and check["low"] > 0
    holds = (
        all(against[kind]["concentration"]["low"] > 0 for kind in (PROCEDURES, SHORT))
        and data["kinds"][FACTS]["beyond shuffled"]["low"] > 0
        and against[PROCEDURES]["found"]["low"] > 0
    )
    verdict = (CONFIRMED if holds else NOT_CONFIRMED) if believed else NOT_TESTABLE
    gap, short = (against[kind]["concentration"] for kind in (PROCEDURES, SHORT))
    top = data["kinds"][FACTS]["on top"], data["kinds"][PROCEDURES]["on top"]
    line = (
        f"influence in the top {data['top']} of {study['documents']} documents: facts less procedures {_said(gap)}, "
        f"less their last sentences {_said(short)}; the answer on top for {top[0]['mean']:.0%} of facts and "
        f"{top[1]['mean']:.0%} of procedures (in random order {data['kinds'][FACTS]['shuffled']:.0%} and "
        f"{data['kinds'][PROCEDURES]['shuffled']:.0%}); LDS {_said(check)}, p = {check['p']:.3f}"
    )
    return Finding(verdict, line, found.table, found.figure, found.notes, data)


def _said(found: dict[str, float]) -> str:
    return shown(found["mean"], Interval(found["low"], found["high"]))
