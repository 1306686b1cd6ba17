"""Does thinking fail where task, length or format leave what it was trained on?

Longer or other problems are harder for everybody. So on each axis two falls are asked for, from home to the furthest
shift (`lengths`' last; the other task; instruction and template both in other words): the accuracy of thinking falls,
by its 95% interval, and so does its gain over direct answers to the same questions, by Holm's p < 0.05 over all shifts,
held against questions exchanged between home and away. Confirmed: on all three axes. Not testable: a model whose
training is not known has no home.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from elicit.analysis.base import shown
from elicit.analysis.behaviour.distribution_shift import Fall, fall
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.methods import cot_prompt, direct
from elicit.methods.sae_steer.falsification import PARAPHRASES, TEMPLATES
from elicit.models import Prompt
from elicit.models.prompts import THINK
from elicit.models.zoo import about
from experiments.claims.base import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, Finding, Study
from probes.dots import Dot, dot_plot
from probes.statistics import holm

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
        why = f"what {study['model']} was trained on is not known; {finding.line}"
        return replace(finding, verdict=NOT_TESTABLE, line=why)
    return finding


def found(home: Run, away: Sequence[Shift], seed: int = 0) -> Finding:
    """The finding from the run at home and those away."""
    falls = [fall(_scores(home), _scores(shift.run), seed=seed) for shift in away]
    adjusted = holm([one.null.p for one in falls])
    furthest = {shift.axis: (shift, one, p) for shift, one, p in zip(away, falls, adjusted, strict=True)}
    fails = {axis: _fails(one, p) for axis, (_, one, p) in furthest.items()}
    table = [_row("home", HOME, home, None, None)]
    table += [_row(s.axis, s.what, s.run, one, p) for s, one, p in zip(away, falls, adjusted, strict=True)]
    line = "; ".join(
        f"{axis} ({shift.what}) {_right(home)} → {_right(shift.run)}, fall of the gain {shown(*one.gain)}, "
        f"{'fails' if fails[axis] else 'holds'}"
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
    verdict = CONFIRMED if all(fails.values()) else NOT_CONFIRMED
    return Finding(verdict, line, table, figure, notes, data, [home, *(s.run for s in away)])


def _fails(one: Fall, p: float) -> bool:
    return one.accuracy[1].low > 0 and one.gain[0] > 0 and p < 0.05


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
