"""Reflection in a model's samples: how often, and whether reflecting samples are more often right (arXiv 2503.20783).

    difference = mean over questions of  P(right | reflects, question) − P(right | does not, question)

over the questions that have samples of both kinds. Over all samples pooled the same difference also says on which
questions a model reflects; within a question it does not. Null: which samples reflect is exchanged within each
question.

Words are those of the literature: `r1-zero` the keywords of 2503.20783, `r1` those that 2501.12948 counts during
training. A word is no proof of reflection, and a longer sample has more room for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from elicit.analysis.base import Analysis, shown, with_left_out
from elicit.evaluation.run.arms import Arm, arms_of, shared_items
from elicit.evaluation.run.run import Run
from probes.dots import Dot, dot_plot
from probes.errors import UserError, unknown
from probes.statistics import Interval, Null, against_null, bootstrap_mean, holm_by_name

NAME = "reflection"
SUMMARY = "how often samples reflect, and whether those that do are more often right, within a question"
PAPER = "2503.20783"
READS = "samples"
WORDS = {
    "r1-zero": re.compile(
        r"\b(?:re-?check|re-?think|re-?assess|re-?evaluat|re-?examin|re-?consider|re-?analy[sz]|double[- ]check"
        r"|(?:check|think|verify)\s+again|go\s+over\s+the\s+steps)",
        re.I,
    ),
    "r1": re.compile(r"\b(?:wait|mistakes?|however|but|retry|errors?|verify|wrong|evaluate|check)\b", re.I),
}
DRAWS = 2000


class Reflection(NamedTuple):
    """One arm. `within` and its null are NaN where no question has samples of both kinds; its interval
    also where only one has.

    `single`: one sample a question. `pooled` is the difference over all samples, which difficulty confounds.
    """

    rate: tuple[float, Interval]
    samples: int
    single: bool
    questions: int
    both: int
    pooled: float
    within: tuple[float, Interval]
    null: Null


def reflects(text: str, words: str = "r1-zero") -> bool:
    """Whether a text holds a word of the list."""
    return bool(WORDS[words].search(text))


def measure(
    question: Int[np.ndarray, " samples"],
    reflecting: Bool[np.ndarray, " samples"],
    right: Bool[np.ndarray, " samples"],
    *,
    seed: int = 0,
) -> Reflection:
    """Rate of reflection and what goes with it.

    Args:
        question: of each sample, 0, 1, …, those of one question together.
        reflecting, right: of each sample.
    """
    counts = np.bincount(question)
    rates = np.bincount(question, weights=reflecting) / counts
    yes, hits, rights = (np.bincount(question, weights=w) for w in (reflecting, reflecting & right, right))
    both = (yes > 0) & (yes < counts)
    interval = Interval(float("nan"), float("nan"))
    within, draws = (float("nan"), interval), np.array([])
    if both.any():
        yes, no, hits, rights = yes[both], (counts - yes)[both], hits[both], rights[both]
        differences = hits / yes - (rights - hits) / no
        if len(differences) > 1:  # one question says nothing of others
            interval = bootstrap_mean(differences, seed=seed)
        within = (float(differences.mean()), interval)
        # Exchanging labels within a question makes the right ones among those that reflect hypergeometric.
        right_and_wrong = rights.astype(int), (yes + no - rights).astype(int)
        dealt = np.random.default_rng(seed).hypergeometric(*right_and_wrong, yes.astype(int), size=(DRAWS, len(yes)))
        draws = (dealt / yes - (rights - dealt) / no).mean(1)
    pooled = float("nan")
    if 0 < reflecting.sum() < len(reflecting):
        pooled = float(right[reflecting].mean() - right[~reflecting].mean())
    return Reflection(
        rate=(float(rates.mean()), bootstrap_mean(rates, bounds=(0.0, 1.0), seed=seed)),
        samples=len(question),
        single=bool((counts == 1).all()),
        questions=int((rates > 0).sum()),
        both=int(both.sum()),
        pooled=pooled,
        within=within,
        null=against_null(within[0], draws),
    )


def analyse(runs: Sequence[Run], *, words: str = "r1-zero", seed: int = 0) -> Analysis:
    """Reflection in the samples of every arm with samples (or branches) of its own; of single answers the rate alone.

    Args:
        words: the list, `r1-zero` or `r1`.
        seed: of the bootstrap and of the exchanges.

    Raises:
        UserError: an unknown list, or nothing but empty answers.
    """
    if words not in WORDS:
        raise unknown("list of words", words, WORDS)
    arms = arms_of(runs)
    items = shared_items(arms)
    found: dict[str, Reflection] = {}
    left_out: dict[str, str] = {}
    for arm in arms:
        if arm.about["source"] != arm.key:
            left_out[arm.name] = f"it reads the samples of {arm.about['source']} by another rule"
        elif not any(t.text.strip() for item in items for t in arm.traces[item]):
            left_out[arm.name] = "all its answers are empty"
        else:
            found[arm.name] = measure(*_samples(arm, items, words), seed=seed)
    if not found:
        raise UserError("all answers of these runs are empty; give runs whose arms say something")
    adjusted = holm_by_name({name: one.null.p for name, one in found.items()})
    table = with_left_out([_row(name, one, adjusted[name]) for name, one in found.items()], left_out)
    notes = [
        f"Samples that hold a word of the list {words!r}, on {len(items)} questions; the difference in being right is "
        "taken within each question that has samples of both kinds, and its interval is of questions.",
        "Null: which samples reflect is exchanged within each question; p is Holm's over the arms. The pooled "
        "difference is shown because it misleads: it is large where a model reflects on the questions that it can "
        "answer.",
        "Not shown: whether reflecting makes an answer right. A sample that continues longer has more room for such a "
        "word; branches of a search differ in rank as well.",
    ]
    names = list(found)
    figure = dot_plot(
        names,
        {
            "rate": [Dot(one.rate[0], *one.rate[1].pair) for one in found.values()],
            "difference within a question": [Dot(one.within[0], *one.within[1].pair) for one in found.values()],
            "pooled difference (confounded)": [Dot(one.pooled) for one in found.values()],
        },
        nulls={"null: exchanged": [Dot(one.null.mean, *one.null.interval.pair) for one in found.values()]},
        title="Reflection, and being right",
        x="fraction of samples; difference in the fraction of right ones",
    )
    data: dict[str, Any] = {
        "items": items, "words": words, "pattern": WORDS[words].pattern,
        "arms": {name: {**one._asdict(), "holm p": adjusted[name]} for name, one in found.items()},
    }  # fmt: skip
    return Analysis(NAME, table, figure, notes, data)


def _samples(arm: Arm, items: Sequence[str], words: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    some = [(q, t) for q, item in enumerate(items) for t in arm.traces[item]]
    question = np.array([q for q, _ in some])
    return question, np.array([reflects(t.text, words) for _, t in some]), np.array([t.correct for _, t in some])


def _row(name: str, one: Reflection, p: float) -> dict[str, Any]:
    if one.rate[0] == 0:
        reading = "no sample reflects"
    elif one.single:
        reading = "one answer a question: the rate alone"
    elif not one.both:
        reading = "no question has samples of both kinds"
    elif p >= 0.05:
        reading = "within a question no more often right, nor less"
    else:
        reading = f"within a question {'more' if one.within[0] > one.null.mean else 'less'} often right"
    return {
        "arm": name,
        "samples": one.samples,
        "rate [95%]": shown(*one.rate),
        "questions": one.questions,
        "with both": one.both,
        "pooled": shown(one.pooled),
        "within [95%]": shown(*one.within),
        "null [95%]": shown(one.null.mean, one.null.interval),
        "p (Holm)": shown(p),
        "reading": reading,
    }
