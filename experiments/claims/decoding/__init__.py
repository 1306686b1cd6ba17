"""Does branching at the first token bring out thoughts, and does the margin Δ of the answer find them?

Two halves, each by 95% intervals, paired by question. Decoding elicits: the branch of the largest Δ is right more often
than direct answers, and than direct answers that spend the same tokens, and gains nothing of interest on the twin that
lacks the skill. Confidence finds: it is right more often than the unweighted vote over the very same branches.
Confirmed: both. Ten points are of interest.
"""

from __future__ import annotations

import numpy as np

from elicit.analysis.behaviour.format_share import classify
from elicit.decoding.selection import RULES, select_all
from elicit.evaluation import Run
from elicit.evaluation.budget import MATCHED
from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.run.arms import arms_of, named
from elicit.methods.cot_decoding import NAME
from experiments.claims.base import Finding, Study
from experiments.claims.reading import DIRECT, Lead, dot, lead, lead_of, on_twin, over_rivals
from experiments.claims.rules import Judgement, absent
from experiments.claims.rules import lead as leading
from experiments.claims.vectors_and_gate import TWIN
from probes.dots import Dot, dot_plot
from probes.statistics import bootstrap_mean

BUDGET, MARGIN, VOTE = DIRECT + MATCHED, "max", "vote"
ANSWERS = ("bare answer", "empty")  # what is no thought


def measure(study: Study) -> Finding:
    run = study.compared([NAME], controls=True)[NAME]
    return found(run, on_twin(study, NAME), study.seed)


def found(run: Run, twin: Lead | None, seed: int = 0) -> Finding:
    """The finding from the run with its controls and the lead on the twin."""
    branches = named(arms_of([run]), NAME).traces
    ids = [item.id for item in run.items]
    chosen = [select_all(RULES, branches[item], run.items.task.grader) for item in ids]
    right = {rule: np.array([one[n].score for one in chosen]) for n, rule in enumerate(RULES)}
    every = [t for item in ids for t in branches[item]]
    picked = {(item, one[RULES.index(MARGIN)].branch) for item, one in zip(ids, chosen, strict=True)}
    best = [t for t in every if (t.item, t.index) in picked]
    thoughts = [float(np.mean([classify(t) not in ANSWERS for t in some])) for some in (best, every)]
    elicits = [lead(run, NAME, other, seed) for other in (DIRECT, BUDGET)]
    finds = lead_of(right[MARGIN], right[VOTE], "the vote", seed)
    plain = np.array([run.metrics["arms"][DIRECT]["scores"][item] for item in ids])
    over = {rule: lead_of(values, plain, DIRECT, seed) for rule, values in right.items()}
    table = [
        {
            "the same branches, chosen by": rule,
            "right [95%]": with_interval(
                float(right[rule].mean()), bootstrap_mean(right[rule], bounds=(0.0, 1.0), seed=seed).pair
            ),
            "lead over direct, points [95%]": over[rule].points,
        }
        for rule in RULES
    ]
    line = f"in points, Δ is {elicits[0]} and {elicits[1]}; {finds} over the same branches"
    notes = [
        f"Of the branches that Δ chooses {thoughts[0]:.0%} are thoughts (more than a bare answer), of all branches "
        f"{thoughts[1]:.0%}; in the source 88% of the chosen are."
    ]
    if twin:
        notes.append(f"Where the skill is not there, in points: {twin}.")
    nulls = {"null: a random branch": [dot(over["random"])] * len(RULES)}
    if twin:
        nulls["null: Δ where the skill is not there"] = [dot(twin) if r == MARGIN else Dot(np.nan) for r in RULES]
    figure = dot_plot(
        RULES, {"lead over direct answers": [dot(over[rule]) for rule in RULES]}, nulls=nulls,
        title="The same branches, by the rule that chooses", x="fraction of the questions",
    )  # fmt: skip
    data = {"elicits": elicits, "finds": finds, "rules": over, "thoughts": thoughts, "twin": twin}
    judged = Judgement((
        *over_rivals(run, NAME, (DIRECT, BUDGET), seed),
        *([] if twin is None else [absent(TWIN, twin.value, twin.interval)]),
        leading("Δ over the vote", right[MARGIN], right[VOTE], seed=seed),
    ))  # fmt: skip
    return Finding(judged, line, table, figure, notes, data, [run])
