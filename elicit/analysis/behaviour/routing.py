"""Routing: answer briefly, and think only where the short answer doubts itself (arXiv 2505.13379, but untrained).

The gate reads the short answer's own statistics: a question goes to the long arm where the confidence lies below a
threshold. The threshold is chosen on one half of the questions, as the one that thinks least and still keeps the long
arm's accuracy there (less a tolerance); the other half judges it. Tokens count the short answer as well, since the gate
has to read it.

Any gate that thinks now and then is better than none and cheaper than always. Null: a random gate of the same rate, as
the same decisions reassigned at random among the questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from elicit.analysis.base import Analysis, halves, shown
from elicit.decoding.trace import Trace
from elicit.evaluation.run.arms import Arm, arms_of, check_ours, named, shared_items
from elicit.evaluation.run.run import Run
from probes.errors import UserError
from probes.figures import INK, MUTED, styled
from probes.inert import label
from probes.statistics import Interval, Null, against_null, bootstrap_mean
from probes.sweep import COLOURS

NAME = "routing"
SUMMARY = "think only where the short answer doubts itself: tokens saved against accuracy, beside a random gate"
PAPER = "2505.13379"
READS = "samples"
LEAST = 8
DRAWS = 2000


def _entropy_of_answer(trace: Trace) -> float:
    first, last = trace.span or (0, 0)
    return -float(np.mean(trace.entropy[first:last])) if last > first else -math.inf


LOGGED = "log-probability a token"  # the one signal that logs of other programs may hold
SIGNALS: dict[str, Callable[[Trace], float]] = {
    "Δ of the answer": lambda t: -math.inf if t.delta is None else t.delta,
    "entropy of the answer": _entropy_of_answer,
    "entropy of all tokens": lambda t: -float(np.mean(t.entropy)) if t.entropy else -math.inf,
    LOGGED: lambda t: t.mean_logprob,
}
"""How sure a short answer is, by name; an answer that is missing is not sure at all."""


class Pair(NamedTuple):
    """Short and long arm on the same questions: right or wrong, and tokens."""

    short: Float[np.ndarray, " items"]
    long: Float[np.ndarray, " items"]
    short_tokens: Float[np.ndarray, " items"]
    long_tokens: Float[np.ndarray, " items"]

    def of(self, chosen: Bool[np.ndarray, " items"]) -> Pair:
        return Pair(*(values[chosen] for values in self))


class Judged(NamedTuple):
    """A gate on the judging half. `saved` is of the long arm's tokens, `against_long` accuracy − the long arm's,
    `beyond` accuracy − that of a random gate of the same rate."""

    threshold: float
    rate: float
    accuracy: float
    saved: float
    against_long: tuple[float, Interval]
    beyond: tuple[float, Interval]
    null: Null


def choose(confidence: Float[np.ndarray, " items"], pair: Pair, tolerance: float) -> float:
    """The lowest threshold (below which a question goes to the long arm) that keeps the long arm's accuracy."""
    needed = pair.long.mean() - tolerance
    for threshold in [*np.unique(confidence), math.inf]:
        if np.where(confidence < threshold, pair.long, pair.short).mean() >= needed - 1e-12:
            return float(threshold)
    raise AssertionError("sending every question to the long arm keeps its accuracy")


def judge(confidence: Float[np.ndarray, " items"], pair: Pair, threshold: float, *, seed: int = 0) -> Judged:
    """What a gate does on questions that did not choose it."""
    sent = confidence < threshold
    rate = float(sent.mean())
    right = np.where(sent, pair.long, pair.short)
    at_random = (1 - rate) * pair.short + rate * pair.long
    rng = np.random.default_rng(seed)
    dealt = sent[np.argsort(rng.random((DRAWS, len(sent))), axis=1)]
    draws = np.where(dealt, pair.long, pair.short).mean(1)
    tokens = pair.short_tokens + sent * pair.long_tokens
    return Judged(
        threshold=threshold,
        rate=rate,
        accuracy=float(right.mean()),
        saved=1 - float(tokens.sum() / pair.long_tokens.sum()) if pair.long_tokens.any() else math.nan,
        against_long=(float((right - pair.long).mean()), bootstrap_mean(right - pair.long, seed=seed)),
        beyond=(float((right - at_random).mean()), bootstrap_mean(right - at_random, seed=seed)),
        null=against_null(float(right.mean()), draws, greater=True),
    )


def analyse(
    runs: Sequence[Run], *, short: str = "direct", long: str = "", tolerance: float = 0.02, seed: int = 0
) -> Analysis:
    """Gates between two arms on the same questions.

    Args:
        short, long: the arms' names; long is `cot-prompt` where there is one, else the first run's method.
        tolerance: accuracy that a gate may lose against the long arm on the half that chooses it.
        seed: of the halves, the bootstrap and the random gates.

    Raises:
        UserError: no such arms, one twice, fewer than 8 questions, a negative tolerance; logs of other programs
            without counted tokens, or without log-probabilities of the short answers.
    """
    if tolerance < 0:
        raise UserError(f"a tolerance of {tolerance} was given; give 0 or more")
    arms = arms_of(runs)
    items = shared_items(arms)
    brief = named(arms, short, "short arm")
    thinking = named(arms, long, "long arm") if long else _long(arms, brief)
    if thinking is brief:
        raise UserError(f"{short!r} was given for both arms; give a long arm that is another")
    if len(items) < LEAST:
        raise UserError(
            f"the runs share {len(items)} questions; routing needs {LEAST}, half to choose and half to judge"
        )
    said = brief.chosen(items)
    _check_logged(brief, thinking, items, said)
    pair = Pair(brief.right(items) * 1.0, thinking.right(items) * 1.0, _tokens(brief, items), _tokens(thinking, items))
    fit = halves(len(items), seed)
    confidence = {
        name: np.array([signal(t) for t in said])
        for name, signal in SIGNALS.items()
        if name == LOGGED or not brief.foreign
    }
    found = {
        name: judge(c[~fit], pair.of(~fit), choose(c[fit], pair.of(fit), tolerance), seed=seed)
        for name, c in confidence.items()
    }
    held = pair.of(~fit)
    table = [_row(name, one, held) for name, one in found.items()]
    notes = [
        f"{brief.name} first, {thinking.name} where the gate says so; thresholds from {int(fit.sum())} questions, "
        f"judged on {len(held.short)} others. Always short: {held.short.mean():.3f} right, "
        f"{held.short_tokens.mean():.0f} tokens; always long: {held.long.mean():.3f} right, "
        f"{held.long_tokens.mean():.0f} tokens.",
        "Null: the same decisions assigned at random among the questions, so a random gate of the same rate; beyond "
        "is what the gate adds to that one's accuracy, paired by question.",
        "Not shown: what a gate that was trained could reach. The tokens of the short answer are counted, which a gate "
        "that decides before answering would save.",
    ]
    data: dict[str, Any] = {
        "items": items, "short": brief.name, "long": thinking.name, "tolerance": tolerance, "fitted": fit,
        "pair": pair._asdict(), "confidence": confidence, "gates": {name: one._asdict() for name, one in found.items()},
    }  # fmt: skip
    figure = _figure({name: c[~fit] for name, c in confidence.items()}, held, found, brief.name, thinking.name)
    return Analysis(NAME, table, figure, notes, data)


def _long(arms: Sequence[Arm], brief: Arm) -> Arm:
    others = [arm for arm in arms if arm is not brief]
    if not others:
        raise UserError(f"{brief.name!r} is the only arm; give a run with a longer one, such as cot-prompt")
    return next((arm for arm in others if arm.key == "cot-prompt"), others[0])


def _check_logged(brief: Arm, thinking: Arm, items: Sequence[str], said: Sequence[Trace]) -> None:
    for arm in (brief, thinking):
        if any(trace.spent < 0 for item in items for trace in arm.traces[item]):
            check_ours([arm.run], f"the number of tokens of each answer ({arm.name})", "give logs that count them")
    without = sum(not trace.logged for trace in said) if brief.foreign else 0
    if without:
        check_ours(
            [brief.run],
            f"log-probabilities of the tokens of each answer ({brief.name}: {without} of {len(said)} have none)",
            "log them (in Inspect --logprobs), or give runs of elicit",
        )


def _tokens(arm: Arm, items: Sequence[str]) -> np.ndarray:
    return np.array([float(sum(t.spent for t in arm.traces[item])) for item in items])


def _row(name: str, one: Judged, held: Pair) -> dict[str, Any]:
    if (held.short == held.long).all():
        reading = "equal: both arms are right on the same questions"
    elif one.rate == 0:
        reading = "never thinks: short answers keep the accuracy"
    elif one.rate == 1:
        reading = "always thinks: no short answer is sure enough"
    elif one.null.p < 0.05:
        reading = "knows where to think, beyond a random gate"
    else:
        reading = "no more than a random gate of this rate"
    return {
        "gate": name,
        "thinks": one.rate,
        "accuracy": one.accuracy,
        "against long [95%]": shown(*one.against_long),
        "tokens saved": one.saved,
        "beyond random [95%]": shown(*one.beyond),
        "random gate [95%]": shown(one.null.mean, one.null.interval),
        "p": one.null.p,
        "reading": reading,
    }


def _figure(
    confidence: dict[str, np.ndarray], held: Pair, found: dict[str, Judged], short: str, long: str
) -> go.Figure:
    figure = go.Figure()
    ends = [held.short_tokens.mean(), (held.short_tokens + held.long_tokens).mean()]
    figure.add_scatter(
        x=ends, y=[held.short.mean(), held.long.mean()], mode="lines", name="null: random gate",
        line={"color": MUTED, "dash": "dash"},
    )  # fmt: skip
    for tone, (name, values) in zip(COLOURS, confidence.items(), strict=False):
        sent = [values < threshold for threshold in [*np.unique(values), math.inf]]
        x = [float((held.short_tokens + s * held.long_tokens).mean()) for s in sent]
        y = [float(np.where(s, held.long, held.short).mean()) for s in sent]
        figure.add_scatter(x=x, y=y, mode="lines", name=label(name), line={"color": tone})
        one = found[name]
        at = values < one.threshold
        figure.add_scatter(
            x=[float((held.short_tokens + at * held.long_tokens).mean())], y=[one.accuracy], mode="markers",
            marker={"color": tone, "size": 12, "symbol": "star"}, name=f"{label(name)}: chosen on the other half",
        )  # fmt: skip
    figure.add_scatter(
        x=[ends[0], held.long_tokens.mean()], y=[held.short.mean(), held.long.mean()], mode="markers+text",
        text=[f"always {label(short)}", f"always {label(long)}"], textposition="bottom center", showlegend=False,
        marker={"color": INK, "size": 9},
    )  # fmt: skip
    figure = styled(figure, height=460)
    figure.update_xaxes(title="tokens a question, the short answer included")
    figure.update_yaxes(title="fraction of right answers")
    figure.update_layout(title="Accuracy by tokens as the gate opens", legend={"orientation": "h", "y": -0.25, "x": 0})
    return figure
