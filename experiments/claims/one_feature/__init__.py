"""Does steering along one feature at the first step do what being told to think does, and would nothing else do it?

Confirmed, all by 95% intervals, paired by question:
- it matches: the steered model is right at most `margin` less often than chain-of-thought, and gains over direct
  answers;
- even against: with "Answer at once" in the question it still gains over that prompt without steering;
- nothing else does it: it is right more often than each random feature, the difference of means and each forced first
  token, all pushed as far, at the same place (so than the best of them);
- nothing of interest is gained on the twin that lacks the skill.

Ten points are of interest.
"""

from __future__ import annotations

from dataclasses import replace

from elicit.evaluation import Run
from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.run.arms import arms_of, handle_of
from elicit.methods import cot_prompt
from elicit.methods.sae_steer import NAME
from elicit.models.prompts import DIRECT_ANSWER
from experiments.claims.base import Finding, Study
from experiments.claims.reading import DIRECT, Lead, arms_figure, lead, leads, on_twin, over_rivals
from experiments.claims.rules import Judgement, absent
from experiments.claims.vectors_and_gate import TWIN

TOLD = "at-once"
RIVALS = ("random feature", "difference of means", "begins")  # what the names of these controls begin with


def measure(study: Study) -> Finding:
    run = study.compared([NAME], controls=True)[NAME]
    pushed = handle_of(run, study.model)
    told = replace(pushed, prompt=pushed.prompt.asked(DIRECT_ANSWER))
    plain = replace(told, method=TOLD, interventions=(), options={})
    against = study.evaluated(told, {TOLD: plain}, "told-at-once")
    return found(run, against, on_twin(study, NAME), study["margin"], study.seed)


def found(run: Run, against: Run, twin: Lead | None, margin: float, seed: int = 0) -> Finding:
    """The finding from the run with its controls, the intervention against the other prompt, and the lead on
    the twin."""
    arms = [arm.name for arm in arms_of([run]) if arm.key != DIRECT]
    rivals = leads(run, NAME, [name for name in arms if name.startswith(RIVALS)], seed)
    gain, matches = lead(run, NAME, DIRECT, seed), lead(run, NAME, cot_prompt.NAME, seed)
    defies = lead(against, NAME, TOLD, seed)
    nearest = min(rivals, key=lambda one: one.value)
    table = [_row(name, run, name, lead(run, NAME, name, seed)) for name in [*arms, DIRECT]]
    table += [
        _row("told to answer at once, and pushed", against, NAME, defies),
        _row("told to answer at once", against, TOLD, defies),
    ]
    line = f"in points, {gain}, {matches}, {defies} with the push against it; the nearest rival: {nearest}"
    notes = [f"Where the skill is not there, in points: {twin}."] if twin else []
    figure = arms_figure(run, arms, twin, "One feature, and what else could do it", seed)
    data = {"gain": gain, "matches": matches, "against": defies, "rivals": rivals, "twin": twin}
    judged = Judgement((
        *over_rivals(run, NAME, [DIRECT], seed),
        *over_rivals(run, NAME, [cot_prompt.NAME], seed, margin=margin),
        *over_rivals(against, NAME, [TOLD], seed),
        *over_rivals(run, NAME, [one.over for one in rivals], seed),
        *([] if twin is None else [absent(TWIN, twin.value, twin.interval)]),
    ))  # fmt: skip
    return Finding(judged, line, table, figure, notes, data, [run, against])


def _row(said: str, run: Run, arm: str, ahead: Lead) -> dict[str, str]:
    one = run.metrics["arms"][arm]
    return {
        "arm": said,
        "right [95%]": with_interval(one["accuracy"], one["interval"]),
        "the push minus it, points [95%]": "" if arm == NAME else ahead.points,
    }
