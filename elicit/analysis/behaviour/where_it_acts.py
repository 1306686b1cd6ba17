"""Where a mechanism acts on the tokens of its answers: how many, at forking tokens or not, and where in the sentence.

Two readings of "acts", each where it applies: a position is *steered* where an intervention or hybrid decoding moved it
(`Trace.moved`, `Trace.taken`); the *argmax changes* where the token is not what the base would have said after the same
text. For a steered or adapted model the base is run once over the finished answers; of a sampled answer only tokens
that were the likeliest of the elicited distribution count, since others differ by chance. *Forking* tokens are those
with the highest 20% of the base's entropy over all answers (arXiv 2506.01939).

A mechanism that acts on a few answers, all of them full of doubt, seems to act at forking tokens. Null: as many random
positions of the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from elicit.analysis.base import Analysis, shown, with_left_out
from elicit.decoding.trace import Trace
from elicit.evaluation.run.arms import Arm, arms_of, check_ours, handle_of, model_of, questions
from elicit.evaluation.run.run import Run
from elicit.models.model import Model
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.likelihood import Chosen, continuations
from probes.statistics import Interval, Null, against_null, central, holm_by_name, question_weights
from steering.categories.segments import segment

NAME = "where-it-acts"
SUMMARY = "how many tokens a mechanism changes, how many of them are forking tokens, and where in the sentence"
PAPER = "2506.01939"
FORKING = 0.2
DRAWS = 1000
TOUCHES = ("interventions", "adapter", "weights", "partner")  # what can be done to a base beside its prompt and decoder


class Answer(NamedTuple):
    """One answer: its tokens' forks, places in the sentence (0 the first token, 1 the last), and sentences' firsts."""

    fork: Bool[np.ndarray, " tokens"]
    place: Float[np.ndarray, " tokens"]
    first: Bool[np.ndarray, " tokens"]


class Measure(NamedTuple):
    """The mean of a property over the positions that were acted on, beside as many random ones of the same answers."""

    value: tuple[float, Interval]
    null: Null


class Acting(NamedTuple):
    """One reading of one arm: tokens that count, those acted on, and what they are, unless all or none of them are."""

    tokens: int
    acted: int
    measures: dict[str, Measure]


def measure(
    acted: Sequence[Bool[np.ndarray, " _"]], values: Sequence[Float[np.ndarray, " _"]], *, seed: int = 0
) -> Measure:
    """A property's mean over positions; the interval is of answers.

    Args:
        acted: of each answer which positions were acted on, at least one in all.
        values: of each answer the property of each token.
    """
    rng = np.random.default_rng(seed)
    count = np.array([int(a.sum()) for a in acted])
    total = np.array([float(v[a].sum()) for a, v in zip(acted, values, strict=True)])
    weight = question_weights(len(count), seed=seed, resamples=DRAWS)
    with np.errstate(invalid="ignore"):
        drawn = (weight @ total) / (weight @ count)
    null = np.zeros(DRAWS)
    for n, each in zip(count, values, strict=True):
        if n:
            picks = np.argsort(rng.random((DRAWS, len(each))), axis=1)[:, :n]
            null += each[picks].sum(1)
    mean = float(total.sum() / count.sum())
    return Measure((mean, central(drawn)), against_null(mean, null / count.sum()))


def forks(entropy: Sequence[Float[np.ndarray, " _"]]) -> list[Bool[np.ndarray, " _"]]:
    """Which tokens are forking: the highest entropies over all answers."""
    level = float(np.quantile(np.concatenate(list(entropy)), 1 - FORKING))
    return [e >= level if level > 0 else e > 0 for e in entropy]


def analyse(runs: Sequence[Run], *, limit: int = 128, seed: int = 0) -> Analysis:
    """Where each run's method acts on the answers that it chose.

    Args:
        limit: so many questions, the first that all runs share; 0 for all.
        seed: of the bootstrap and of random positions.

    Raises:
        UserError: no method among the runs does anything to tokens.
    """
    check_ours(runs, "the tokens of each answer with their probabilities")
    arms = arms_of(runs, main_only=True)
    items = [item.id for item in questions(arms, limit)]
    left_out = {arm.name: why for arm in arms if (why := _not_acting(arm))}
    acting = [arm for arm in arms if arm.name not in left_out]
    if not acting:
        said = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UserError(f"no method of these runs acts on tokens ({said}); give a run of a mechanism")
    data: dict[str, Any] = {"items": items, "forking": FORKING, "arms": {}}
    found: dict[tuple[str, str], Acting] = {}
    model = model_of(runs)
    for arm in acting:
        handle = handle_of(arm.run, model)
        traces = [t for t in arm.chosen(items) if t.tokens]
        if not traces:
            left_out[arm.name] = "all its answers are empty"
            continue
        prompts = {item.id: handle.prompt_ids(item) for item in arm.run.items}
        acts, entropy = acts_of(arm, traces, model, prompts)
        answers = [Answer(f, *_places(model, t.tokens)) for f, t in zip(forks(entropy), traces, strict=True)]
        kept: dict[str, Any] = {"prompt positions moved": float(np.mean([t.prompt_moved for t in traces]))}
        for what, (acted, counted) in acts.items():
            one = found[arm.name, what] = _acting(acted, counted, answers, seed)
            measures = {label: measured._asdict() for label, measured in one.measures.items()}
            kept[what] = {"tokens": one.tokens, "acted": one.acted, **measures}
        data["arms"][arm.name] = kept
    if not found:
        raise UserError("all answers of these runs are empty; give runs whose arms say something")
    p = {(*acts, label): m.null.p for acts, one in found.items() for label, m in one.measures.items()}
    adjusted = holm_by_name(p)
    table = [row for acts, one in found.items() for row in _rows(*acts, one, adjusted)]
    dots = {": ".join(acts): one.measures["forking tokens"] for acts, one in found.items() if one.measures}
    notes = [
        f"Answers to {len(items)} questions. The fraction of tokens acted on; and of those the fraction that are "
        f"forking (highest {FORKING:.0%} of the base's entropy), their place in the sentence, the fraction that begin "
        "one.",
        "Null: as many random positions of the same answer; p is Holm's over all rows. Intervals are of questions.",
        "Not shown: what an act at a position does further on. A mechanism that acts on every token has no place.",
    ]
    figure = dot_plot(
        list(dots),
        {"forking tokens among those acted on": [Dot(m.value[0], *m.value[1].pair) for m in dots.values()]},
        nulls={"null: random positions": [Dot(m.null.mean, *m.null.interval.pair) for m in dots.values()]},
        reference=FORKING,
        title="Forking tokens among those that a mechanism acts on",
        x="fraction of the tokens",
    )
    return Analysis(NAME, with_left_out(table, left_out), figure, notes, data)


def _not_acting(arm: Arm) -> str:
    decoder = arm.about["decoder"]["name"]
    if set(TOUCHES) & set(arm.about) or decoder in ("branching", "hybrid"):
        return ""
    return f"{decoder} decoding of the base itself, which only a prompt changes"


Acts = dict[str, tuple[list[np.ndarray], list[np.ndarray]]]


def acts_of(
    arm: Arm, traces: Sequence[Trace], model: Model, prompts: dict[str, list[int]]
) -> tuple[Acts, list[np.ndarray]]:
    """For each reading of "acts" which tokens were acted on and which of them count at all; and the base's entropy."""
    decoder = arm.about["decoder"]["name"]
    every = [np.ones(len(t.tokens), dtype=bool) for t in traces]
    likeliest = [
        np.exp(t.logprob) >= np.array(t.top1) * (1 - 1e-5) for t in traces
    ]  # of the distribution that was kept
    acts: Acts = {}
    if decoder == "hybrid":
        acts["steered"] = ([np.array(t.taken) > 0 for t in traces], every)
    elif "interventions" in arm.about:
        acts["steered"] = ([np.array(t.moved) > 0 for t in traces], every)
    if not {"interventions", "adapter", "weights"} & set(arm.about):  # what was kept is the base's own
        acts["argmax changed"] = ([~top for top in likeliest], every)
        return acts, [np.array(t.entropy) for t in traces]
    said = _base_says(model, traces, prompts)
    other = [np.array(t.tokens) != s.argmax.numpy() for t, s in zip(traces, said, strict=True)]
    counted = likeliest if decoder == "sampling" else every
    acts["argmax changed"] = ([o & c for o, c in zip(other, counted, strict=True)], counted)
    return acts, [s.entropy.numpy() for s in said]


def _base_says(model: Model, traces: Sequence[Trace], prompts: dict[str, list[int]]) -> list[Chosen]:
    texts = [[*prompts[t.item], *t.tokens] for t in traces]
    return continuations(model.lm, texts, [len(prompts[t.item]) for t in traces])


def _places(model: Model, tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    place, first = np.zeros(len(tokens)), np.zeros(len(tokens), dtype=bool)
    for a, b in segment(model.tokenizer, tokens):
        place[a:b] = np.linspace(0, 1, b - a) if b - a > 1 else 0.0
        first[a] = True
    return place, first


def _acting(acted: list[np.ndarray], counted: list[np.ndarray], answers: Sequence[Answer], seed: int) -> Acting:
    """Random positions are taken among those that count."""
    done, total = sum(int(a.sum()) for a in acted), sum(int(c.sum()) for c in counted)
    if done in (0, total):
        return Acting(total, done, {})
    inside = [a[c] for a, c in zip(acted, counted, strict=True)]
    properties = {
        "forking tokens": [one.fork[c].astype(float) for one, c in zip(answers, counted, strict=True)],
        "place in the sentence": [one.place[c] for one, c in zip(answers, counted, strict=True)],
        "sentences' first tokens": [one.first[c].astype(float) for one, c in zip(answers, counted, strict=True)],
    }
    return Acting(total, done, {label: measure(inside, values, seed=seed) for label, values in properties.items()})


def _rows(name: str, what: str, one: Acting, adjusted: dict[tuple[str, str, str], float]) -> list[dict[str, Any]]:
    share = one.acted / one.tokens if one.tokens else float("nan")
    row = {"arm": name, "acts": what, "of tokens": shown(share), "of them": "–", "value [95%]": "–", "null [95%]": "–"}
    if not one.measures:
        reading = "acts on every token: no place to tell" if one.acted else "acts on no token"
        return [{**row, "p (Holm)": "–", "reading": reading}]
    rows = []
    for label, found in one.measures.items():
        p = adjusted[name, what, label]
        side = "more" if found.value[0] > found.null.mean else "less"
        reading = f"{side} than random positions" if p < 0.05 else "as random positions"
        cells = {"of them": label, "value [95%]": shown(*found.value)}
        cells |= {"null [95%]": shown(found.null.mean, found.null.interval), "p (Holm)": shown(p), "reading": reading}
        rows.append({**row, **cells})
    return rows
