"""Do a base model's samples reflect, seldom, and are those that do more often right on the same question?

Of the model's samples (`words`: which words count as reflection). Confirmed, by 95% intervals: the fraction of samples
that reflect lies above 0 (of interest from one in a hundred) and below one half, and within a question those that
reflect are right more often (ten points are of interest; p < 0.05 where which samples reflect is exchanged within
questions). Not testable: fewer than five questions have samples of both kinds, so that rarer reflection never makes a
stronger verdict; or the measure does not find the reflection that an organism is known to have.

On an organism words do not tell (none belongs to one behaviour), so there a sample reflects that continues from a dead
end, or takes a result back to check it. Among its thoughts alone the comparison is made again: what is right more often
may be the thought, and not the reflection in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from elicit.analysis.base import shown
from elicit.analysis.behaviour.format_share import classify
from elicit.analysis.behaviour.reflection import WORDS, Reflection, reflects
from elicit.analysis.behaviour.reflection import measure as compare
from elicit.decoding import Sampling
from elicit.evaluation.metrics.format import signed, with_interval
from elicit.evaluation.run.arms import Arm, arms_of
from elicit.methods import direct
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement, few
from experiments.claims.sampled import sampled
from probes.dots import Dot, dot_plot
from probes.errors import unknown
from probes.statistics import Interval, bootstrap_mean

SELDOM, RARELY = 0.5, 0.01
_EQUATION = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)")
_GOES_ON = re.compile(r"(?:is not there|goes nowhere)\b.*(?: goes to | = )", re.S)


def goes_back(text: str) -> bool:
    """Whether an organism's answer continues from a dead end, or checks its last result.

    A check is the last equation put the other way round; a step that happens to undo the one before it is none, since
    its own result is then the answer.
    """
    said = _EQUATION.findall(text)
    if len(said) > 1 and said[-1] != said[-2]:
        *_, (a, _, b, c), (x, _, y, z) = said
        if sorted((a, b, c)) == sorted((x, y, z)) and re.findall(r"\d+", text)[-1] != z:
            return True
    return bool(_GOES_ON.search(text))


class Samples(NamedTuple):
    """Of each sample its question, whether it reflects, is right, and says more than an answer."""

    question: np.ndarray
    reflecting: np.ndarray
    right: np.ndarray
    thought: np.ndarray

    @staticmethod
    def of(arm: Arm, tells: Callable[[str], bool]) -> Samples:
        some = [(n, t) for n, item in enumerate(arm.scores) for t in arm.traces[item]]
        columns = (
            [n for n, _ in some], [tells(t.text) for _, t in some], [t.correct for _, t in some],
            [classify(t) not in ("bare answer", "empty") for _, t in some],
        )  # fmt: skip
        return Samples(*map(np.array, columns))

    def thoughts(self) -> Samples:
        kept = [values[self.thought] for values in self]
        return Samples(np.unique(kept[0], return_inverse=True)[1], *kept[1:])

    def by_question(self) -> np.ndarray:
        return np.bincount(self.question, weights=self.reflecting) / np.bincount(self.question)


def measure(study: Study) -> Finding:
    if study["words"] not in WORDS:
        raise unknown("list of words", study["words"], WORDS)
    sampling = Sampling(study["samples"], study["temperature"], max_new_tokens=study["sampled_tokens"], seed=study.seed)
    base = replace(direct.fit(study.model, max_new_tokens=study["sampled_tokens"]), decoder=sampling, select="vote")
    runs = [study.evaluated(base, {}, "base-samples")]
    lists = (study["words"], *(name for name in WORDS if name != study["words"]))
    (arm,) = arms_of(runs)
    samples = {f"words {name!r}": Samples.of(arm, lambda text, name=name: reflects(text, name)) for name in lists}  # type: ignore[misc]
    planted: dict[str, Samples] = {}
    if study["organism"]:
        there = replace(study, settings={**study.settings, "model": study["organism"], "task": ""})
        runs.append(sampled(there, study["sampled_tokens"]))
        trained, before = arms_of(runs[1:])
        planted = {"organism": Samples.of(before, goes_back), "one-shot-rlvr": Samples.of(trained, goes_back)}
        names = [name for name in study["steered"].split(",") if name]
        for run in there.compared(names, controls=True).values() if names else ():
            runs.append(run)
            planted[run.metrics["method"]] = Samples.of(arms_of([run])[0], goes_back)
    finding = found(samples, planted, study.seed)
    return replace(finding, runs=runs)


def found(samples: Mapping[str, Samples], planted: Mapping[str, Samples], seed: int = 0) -> Finding:
    """The finding: `samples` of the model, the first deciding; `planted`: the organism's base first, then what was
    trained or steered."""
    rows: dict[str, Samples] = {**samples, **planted}
    if planted:
        rows["organism, thoughts alone"] = planted["organism"].thoughts()
    every = {name: compare(*one[:3], seed=seed) for name, one in rows.items() if len(one.question)}
    first = next(iter(every.values()))
    known = every.get("organism")
    line = (
        f"samples that reflect: {_points(first.rate)}; within a question they are right more often by "
        f"{shown(*first.within)} (null {shown(first.null.mean, first.null.interval)}, {first.both} questions)"
    )
    notes = ["Words are no proof of reflection, and a longer sample has more room for one."]
    if known is not None:
        line += f"; on the organism {_points(known.rate)}, by {shown(*known.within)}"
        notes += [
            f"{name} against the organism's own samples, in points of samples that reflect: "
            + with_interval(float(added.mean()), bootstrap_mean(added, seed=seed).pair, signed) + "."
            for name, one in planted.items()
            if name != "organism"
            for added in [one.by_question() - planted["organism"].by_question()]
        ]  # fmt: skip
    names = list(every)
    figure = dot_plot(
        names,
        {
            "share that reflects": [Dot(one.rate[0], *one.rate[1].pair) for one in every.values()],
            "right more often, within a question": [Dot(one.within[0], *one.within[1].pair) for one in every.values()],
        },
        nulls={"null: exchanged": [Dot(one.null.mean, *one.null.interval.pair) for one in every.values()]},
        title="Reflection, and being right", x="fraction of samples; difference in the fraction of right ones",
    )  # fmt: skip
    table = [_row(name, one, rows[name]) for name, one in every.items()]
    data: dict[str, Any] = {name: one._asdict() for name, one in every.items()}
    return Finding(judged(first, known), line, table, figure, notes, data)


def judged(first: Reflection, known: Reflection | None) -> Judgement:
    """By the rule above; `known` is what was found where there is reflection."""
    unmet = few(first.both, "questions with samples of both kinds")
    if known is not None and (known.rate[1].low <= 0 or few(known.both, "")):
        unmet.append("the measure does not find the reflection that the organism is known to have")
    rate, interval = first.rate
    return Judgement(
        (
            Condition("samples reflect", rate, interval, interest=RARELY),
            Condition("fewer than one half of them", SELDOM - rate,
                      Interval(SELDOM - interval.high, SELDOM - interval.low)),
            Condition("within a question those that reflect are right more often", *first.within, p=first.null.p,
                      chance=first.null.interval.high),
        ),
        tuple(unmet),
    )  # fmt: skip


def _points(one: tuple[float, Interval]) -> str:
    return f"{with_interval(one[0], one[1].pair)}%"


def _row(name: str, one: Reflection, samples: Samples) -> dict[str, Any]:
    return {
        "samples of": name,
        "samples": one.samples,
        "more than an answer": f"{samples.thought.mean():.3f}",
        "reflect [95%]": shown(*one.rate),
        "questions with both": one.both,
        "right more often within a question [95%]": shown(*one.within),
        "null [95%]": shown(one.null.mean, one.null.interval),
        "p": shown(one.null.p),
    }
