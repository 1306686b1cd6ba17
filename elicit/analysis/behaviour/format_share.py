"""How outputs divide among formats before and after, and whether that is the gain (arXiv 2504.07912).

    gain = Σ_f (s'_f − s_f) · (a_f + a'_f)/2   +   Σ_f (a'_f − a_f) · (s_f + s'_f)/2
           change of shares                        change within formats

with s the fraction of outputs in format f and a the accuracy within it (the symmetric decomposition of Kitagawa, 1955;
where one arm lacks a format its accuracy there is taken from the other, so that nothing changed within).

A format that is used on easy questions looks like a format that helps. So the change of shares is held against a null:
the formats' labels exchanged among the outputs of one arm to one question. That keeps how often each question has each
format, and breaks any tie between format and being right. Where no question has two formats in one arm, or no
format is of both arms (a bare answer before, prose after: all of the gain counts as a change of shares then, whichever
label stands where), format and question cannot be told apart, and the reading says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from elicit.analysis.base import Analysis, shown
from elicit.decoding.trace import Trace
from elicit.evaluation.run.arms import Arm, arms_of, named, shared_items
from elicit.evaluation.run.run import Run
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.statistics import Interval, Null, against_null, bootstrap_mean, central, holm_by_name, question_weights

NAME = "format-share"
SUMMARY = "how outputs divide among formats before and after, and how much of the gain that change is"
PAPER = "2504.07912"
READS = "samples"
FORMATS = ("code", "latex", "steps", "equations", "prose", "bare answer", "empty")
DRAWS = 2000  # Holm over sixty arms still leaves p = 0.03 to be reached

_CODE = re.compile(r"^\s*```|^\s*(?:def \w+\(|import \w+|from \w+ import |print\(|return |for \w+ in .+:$)", re.M)
_LATEX = re.compile(r"\\(?:boxed|frac|begin|\[|\(|times|cdot|sqrt|text)|\$[^$\n]*[\\^_=][^$\n]*\$")
_STEP = re.compile(r"^\s*(?:step\s+\d+|\d{1,2}[.)]\s|[-*•]\s)", re.M | re.I)
_EQUATION = re.compile(r"[\d)\w]\s*[-+*/×÷−]\s*[\d(\w]+\s*=|=\s*-?\d")
_WORD = re.compile(r"[^\W\d_]{2,}")
WORDS_AN_EQUATION = 3  # more words than that an equation are prose around it
BARE_WORDS = 6  # "So the answer is 12." is no thought


def classify(trace: Trace) -> str:
    """The format of an output: the first that it is of code, LaTeX, steps, equations, a bare answer, prose."""
    text = trace.text.strip()
    if not text:
        return "empty"
    if _CODE.search(text):
        return "code"
    if _LATEX.search(text):
        return "latex"
    if len(_STEP.findall(text)) > 1:
        return "steps"
    words, equations = len(_WORD.findall(text)), len(_EQUATION.findall(text))
    if equations and words <= WORDS_AN_EQUATION * equations:
        return "equations"
    return "bare answer" if not equations and words <= BARE_WORDS else "prose"


class Outputs(NamedTuple):
    """Outputs in the order of their questions: the question, the format, and whether it is right."""

    question: Int[np.ndarray, " outputs"]
    format: Int[np.ndarray, " outputs"]
    right: Float[np.ndarray, " outputs"]


class FormatRates(NamedTuple):
    """Of each question the fraction of its outputs in each format, and the fraction that is in it and right."""

    share: Float[np.ndarray, "items formats"]
    hits: Float[np.ndarray, "items formats"]


class Decomposition(NamedTuple):
    """The gain, and its two parts; `null` is of the first. `exchangeable`: questions with two formats in one arm, and
    right and wrong outputs among them; none where the arms share no format, since an exchange changes nothing then."""

    gain: tuple[float, Interval]
    shares: tuple[float, Interval]
    within: tuple[float, Interval]
    null: Null
    exchangeable: int


def outputs_of(arm: Arm, items: Sequence[str]) -> Outputs:
    """The outputs of an arm: all samples where they are independent, else the chosen answer."""
    said = arm.outputs(items)
    return Outputs(
        np.repeat(np.arange(len(said)), [len(some) for some in said]),
        np.array([FORMATS.index(classify(t)) for some in said for t in some]),
        np.array([float(t.correct) for some in said for t in some]),
    )


def format_rates(outputs: Outputs, items: int) -> FormatRates:
    each = 1.0 / np.bincount(outputs.question, minlength=items)[outputs.question]
    cell = outputs.question * len(FORMATS) + outputs.format
    shape = (items, len(FORMATS))
    share, hits = (np.bincount(cell, weights=w, minlength=items * len(FORMATS)) for w in (each, each * outputs.right))
    return FormatRates(share.reshape(shape), hits.reshape(shape))


def _two_parts(
    share: Float[np.ndarray, "draws formats"],
    hits: Float[np.ndarray, "draws formats"],
    new_share: Float[np.ndarray, "draws formats"],
    new_hits: Float[np.ndarray, "draws formats"],
) -> Float[np.ndarray, "draws 2"]:
    """Change of shares and change within, from the means over questions before and after."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = hits / share, new_hits / new_share
    a, b = np.where(share > 0, a, b), np.where(new_share > 0, b, a)
    a, b = np.nan_to_num(a), np.nan_to_num(b)  # a format that neither has weighs nothing
    moved = ((new_share - share) * (a + b) / 2).sum(1)
    return np.stack([moved, ((b - a) * (share + new_share) / 2).sum(1)], axis=1)


def decompose(before: Outputs, after: Outputs, items: int, *, seed: int = 0) -> Decomposition:
    """The gain from one arm's outputs to another's, divided into change of shares and change within formats."""
    parts = format_rates(before, items), format_rates(after, items)

    def means(weight: np.ndarray) -> list[np.ndarray]:
        return [weight @ values / items for one in parts for values in one]

    whole = means(np.ones((1, items)))
    shares, within = _two_parts(*whole)[0]
    drawn = _two_parts(*means(question_weights(items, seed=seed, resamples=DRAWS)))
    gains = parts[1].hits.sum(1) - parts[0].hits.sum(1)
    rng = np.random.default_rng(seed)
    hits = [_exchanged(one, items, rng) for one in (before, after)]
    share, new_share = (np.broadcast_to(one, hits[0].shape) for one in (whole[0], whole[2]))
    mixed = _mixed(before, items) | _mixed(after, items)
    return Decomposition(
        gain=(float(gains.mean()), bootstrap_mean(gains, seed=seed)),
        shares=(float(shares), central(drawn[:, 0])),
        within=(float(within), central(drawn[:, 1])),
        null=against_null(float(shares), _two_parts(share, hits[0], new_share, hits[1])[:, 0]),
        exchangeable=int(mixed.sum()) if (whole[0] * whole[2]).any() else 0,
    )


def _exchanged(outputs: Outputs, items: int, rng: np.random.Generator) -> Float[np.ndarray, "draws formats"]:
    """Mean hits in each format where labels are permuted within each question, whose outputs stand together."""
    order = np.argsort(outputs.question + rng.random((DRAWS, len(outputs.question))), axis=1)
    dealt = outputs.format[order]
    worth = outputs.right / np.bincount(outputs.question, minlength=items)[outputs.question] / items
    return np.stack([(dealt == f) @ worth for f in range(len(FORMATS))], axis=1)


def _mixed(outputs: Outputs, items: int) -> np.ndarray:
    def varies(values: np.ndarray) -> np.ndarray:
        low, high = np.full(items, np.inf), np.full(items, -np.inf)
        np.minimum.at(low, outputs.question, values)
        np.maximum.at(high, outputs.question, values)
        return high > low

    both: np.ndarray = varies(outputs.format.astype(float)) & varies(outputs.right)
    return both


def analyse(runs: Sequence[Run], *, baseline: str = "direct", seed: int = 0) -> Analysis:
    """Fractions of formats and accuracy within each, of the baseline and of every other arm.

    Args:
        baseline: what stands for "before".
        seed: of the bootstrap and of the exchanges.

    Raises:
        UserError: no arm of that name, or no other.
    """
    arms = arms_of(runs)
    items = shared_items(arms)
    reference = named(arms, baseline)
    others = [arm for arm in arms if arm is not reference]
    if not others:
        raise UserError(f"{baseline!r} is the only arm; give a run with another one to hold against it")
    before = outputs_of(reference, items)
    table: list[dict[str, Any]] = []
    data: dict[str, Any] = {"items": items, "baseline": reference.name, "formats": FORMATS, "arms": {}}
    said = {arm.name: outputs_of(arm, items) for arm in others}
    changes = {name: decompose(before, after, len(items), seed=seed) for name, after in said.items()}
    adjusted = holm_by_name({name: one.null.p for name, one in changes.items()})
    old = format_rates(before, len(items))
    for name, one in changes.items():
        new = format_rates(said[name], len(items))
        for f in range(len(FORMATS)):
            if old.share[:, f].any() or new.share[:, f].any():
                table.append(_format_row(name, old, new, f, seed))
        table += _gain_rows(name, one, adjusted[name])
        data["arms"][name] = {
            "share": new.share.mean(0), "right": _within(new), "outputs": len(said[name].right), **one._asdict(),
            "holm p": adjusted[name],
        }  # fmt: skip
    data["before"] = {"share": old.share.mean(0), "right": _within(old), "outputs": len(before.right)}
    notes = [
        f"Outputs to {len(items)} questions before ({reference.name}) and after; every question weighs the same. The "
        "gain of single outputs (not of votes) is the change of shares plus the change within formats.",
        "Null of the change of shares: formats' labels exchanged among the outputs of one arm to one question, which "
        "keeps that easy questions may be answered in another format. A part within that band is not told from it; the "
        "less of the formats is of both arms, the less an exchange can show. p is Holm's over the arms.",
        "Not shown: whether a format helps or only goes with what helps. Formats are recognised by patterns of "
        "characters.",
    ]
    figure = dot_plot(
        list(changes),
        {
            "gain": [Dot(c.gain[0], *c.gain[1].pair) for c in changes.values()],
            "from change of shares": [Dot(c.shares[0], *c.shares[1].pair) for c in changes.values()],
            "from change within formats": [Dot(c.within[0], *c.within[1].pair) for c in changes.values()],
        },
        nulls={
            "null: labels exchanged within a question": [
                Dot(c.null.mean, *c.null.interval.pair) for c in changes.values()
            ]
        },
        title=f"Where the gain over {reference.name} comes from",
        x="fraction of right outputs",
    )
    return Analysis(NAME, table, figure, notes, data)


def _within(one: FormatRates) -> list[float]:
    """Accuracy within each format; NaN where no output has it."""
    share, hits = one.share.sum(0), one.hits.sum(0)
    return [float(h / s) if s > 0 else float("nan") for s, h in zip(share, hits, strict=True)]


def _format_row(arm: str, old: FormatRates, new: FormatRates, f: int, seed: int) -> dict[str, Any]:
    change = new.share[:, f] - old.share[:, f]
    return {
        "arm": arm,
        "format": FORMATS[f],
        "share before": shown(float(old.share[:, f].mean())),
        "share after": shown(float(new.share[:, f].mean())),
        "change [95%]": shown(float(change.mean()), bootstrap_mean(change, seed=seed)),
        "right before": shown(_within(old)[f]),
        "right after": shown(_within(new)[f]),
        "null [95%]": "",
        "p (Holm)": "",
        "reading": "",
    }


def _gain_rows(arm: str, one: Decomposition, p: float) -> list[dict[str, Any]]:
    if one.gain[0] == one.shares[0] == one.within[0] == 0:
        reading = "equal: nothing was gained or lost"
    elif not one.exchangeable:
        reading = (
            "the arms share no format, or no question has two in one arm: format and question cannot be told apart"
        )
    elif p < 0.05:
        reading = "beyond what the questions' difficulty gives"
    else:
        reading = "no more than the questions' difficulty gives"
    blank = dict.fromkeys(("share before", "share after", "right before", "right after"), "")
    rows = []
    for what, (value, interval) in (("gain", one.gain), ("– from shares", one.shares), ("– within", one.within)):
        mine = what == "– from shares"
        rows.append(
            {
                "arm": arm, "format": what, **blank, "change [95%]": shown(value, interval),
                "null [95%]": shown(one.null.mean, one.null.interval) if mine else "",
                "p (Holm)": shown(p) if mine else "", "reading": reading if mine else "",
            }
        )  # fmt: skip
    order = ("arm", "format", "share before", "share after", "change [95%]", "right before", "right after")
    return [{key: row[key] for key in (*order, "null [95%]", "p (Holm)", "reading")} for row in rows]
