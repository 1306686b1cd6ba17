"""Does thinking fail where task, length or format leave what it was trained on?

Longer or other problems are harder for everybody. So on each axis two falls are asked for, from home to the furthest
shift (`lengths`' last; the other task; instruction and template both in other words): the accuracy of thinking falls,
and so does its gain over direct answers to the same questions, both by their 95% intervals (ten points are of
interest), the gain also by Holm's p < 0.05 over all shifts, held against questions exchanged between home and away.
Confirmed: on all three axes. Not testable: a model whose training is not known has no home; and where thinking gains
nothing at home there is nothing to lose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from elicit.analysis.base import shown
from elicit.analysis.behaviour.distribution_shift import Fall, fall
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.methods import cot_prompt, direct
from elicit.methods.sae_steer.falsification import PARAPHRASES, TEMPLATES
from elicit.models import Prompt
from elicit.models.prompts import THINK
from elicit.models.zoo import about
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement
from probes.dots import Dot, dot_plot
from probes.statistics import Interval, holm, paired

HOME = "home"
THOUGHT, DIRECT = cot_prompt.NAME, direct.NAME
FORMATS = {
    "other words": (Prompt(trigger=PARAPHRASES[1]), Prompt()),
    "another template": tuple(Prompt("template", template=TEMPLATES[-1], trigger=words) for words in (THINK, "")),
    "both": tuple(Prompt("template", template=TEMPLATES[-1], trigger=words) for words in (PARAPHRASES[1], "")),
}


class Shift(NamedTuple):
    """Away from home along an axis; the last of an axis is its furthest."""

    axis: str
    what: str
    run: Run


def measure(study: Study) -> Finding:
    limit = study["max_new_tokens"]
    usual = cot_prompt.fit(study.model, max_new_tokens=limit), direct.fit(study.model, max_new_tokens=limit)

    def run(task: str, pair: Sequence[Elicited] = usual) -> Run:
        there = replace(study, settings={**study.settings, "task": task})
        return there.evaluated(pair[0], {DIRECT: pair[1]}, "shift")

    home = study["task"]
    away = [Shift("length", f"{size} terms", run(f"{home},size={size}")) for size in study["lengths"].split(",")]
    away.append(Shift("task", study["another"].partition(":")[0], run(study["another"])))
    for what, prompts in FORMATS.items():
        pair = [replace(one, prompt=prompt) for one, prompt in zip(usual, prompts, strict=True)]
        away.append(Shift("format", what, run(home, pair)))
    finding = found(run(home), away, study.seed)
    if about(study["model"]) is None:
        unmet = (f"what {study['model']} was trained on is not known", *finding.judged.unmet)
        return replace(finding, judged=replace(finding.judged, unmet=unmet))
    return finding


def found(home: Run, away: Sequence[Shift], seed: int = 0) -> Finding:
    """The finding from the run at home and those away."""
    falls = [fall(_scores(home), _scores(shift.run), seed=seed) for shift in away]
    adjusted = holm([one.null.p for one in falls])
    furthest = {shift.axis: (shift, one, p) for shift, one, p in zip(away, falls, adjusted, strict=True)}
    table = [_row("home", HOME, home, None, None)]
    table += [_row(s.axis, s.what, s.run, one, p) for s, one, p in zip(away, falls, adjusted, strict=True)]
    line = "; ".join(
        f"{axis} ({shift.what}) {_right(home)} → {_right(shift.run)}, fall of the gain {shown(*one.gain)}"
        for axis, (shift, one, _) in furthest.items()
    )
    cut = {s.what: f"{_cut(s.run):.0%}" for s in away if _cut(s.run) > 0}
    notes = [
        "Fall: home − away. A gain has less room where direct answers or thoughts come near 0 or 1.",
        f"Thoughts that were cut at the limit: {cut or 'none'}.",
    ]
    figure = dot_plot(
        [f"{s.axis}: {s.what}" for s in away],
        {
            "fall of the accuracy": [Dot(one.accuracy[0], *one.accuracy[1].pair) for one in falls],
            "fall of the gain over direct": [Dot(one.gain[0], *one.gain[1].pair) for one in falls],
        },
        nulls={"null: home and away exchanged": [Dot(one.null.mean, *one.null.interval.pair) for one in falls]},
        title="What thinking loses away from home", x="home − away, fraction of the questions",
    )  # fmt: skip
    data = {"falls": [{"axis": s.axis, "what": s.what, **one._asdict()} for s, one in zip(away, falls, strict=True)]}
    at_home = paired(*(np.array(list(scores.values())) for scores in _scores(home)), seed=seed)
    judged = decided({axis: (one, p) for axis, (_, one, p) in furthest.items()}, at_home.interval)
    return Finding(judged, line, table, figure, notes, data, [home, *(s.run for s in away)])


def decided(furthest: Mapping[str, tuple[Fall, float]], home: Interval) -> Judgement:
    """The conditions: of each axis the furthest fall with its adjusted p; `home`: what thinking gains at home."""
    conditions = []
    for axis, (one, p) in furthest.items():
        conditions.append(Condition(f"{axis}: accuracy falls", *one.accuracy))
        conditions.append(
            Condition(f"{axis}: the gain by thinking falls", *one.gain, p=p, chance=one.null.interval.high)
        )
    return Judgement(tuple(conditions), () if home.low > 0 else ("thinking gains nothing at home",))


def _scores(run: Run) -> tuple[Mapping[str, float], Mapping[str, float]]:
    arms = run.metrics["arms"]
    return arms[THOUGHT]["scores"], arms[DIRECT]["scores"]


def _right(run: Run, arm: str = THOUGHT) -> str:
    return f"{run.metrics['arms'][arm]['accuracy']:.2f}"


def _cut(run: Run) -> float:
    some = [t for traces in run.traces[THOUGHT].values() for t in traces]
    return sum(t.finish == "length" for t in some) / len(some)


def _row(axis: str, what: str, run: Run, one: Fall | None, p: float | None) -> dict[str, str]:
    return {
        "axis": axis,
        "where": what,
        "thinking": _right(run),
        "direct": _right(run, DIRECT),
        "fall of accuracy [95%]": "" if one is None else shown(*one.accuracy),
        "fall of gain [95%]": "" if one is None else shown(*one.gain),
        "null [95%]": "" if one is None else shown(one.null.mean, one.null.interval),
        "p (Holm)": "" if p is None else f"{p:.3f}",
    }
