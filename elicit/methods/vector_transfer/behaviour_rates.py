"""How often a behaviour appears in answers: the fraction of sentences, and of tokens, that are of its category.

The judge is the thinking model in which the categories were found: it reads the answers, unsteered, whoever wrote them,
and its taxonomy names each sentence. Both fractions are taken because a vector that makes a model say one short phrase
again and again moves the first far more than the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float

from elicit.decoding.decoders.partner import Tokens
from elicit.decoding.progress import Progress
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.methods.vector_transfer.reasoning_traces import reasoning_traces_from
from elicit.tasks.base import Items
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.statistics import bootstrap_mean
from steering.adapters import applied
from steering.categories.sentences import read, texts_of
from steering.categories.taxonomy import Taxonomy
from steering.directions import Direction
from steering.interventions import Add, Intervention, When

BASE, THINKING = "base", "thinking model"


def steered(base: Elicited, vector: Direction, strength: float) -> Elicited:
    """The base with a vector added at every step, so many times."""
    return replace(base, interventions=(Intervention(Add(vector), strength, "raw", When.every_step()),))


def measure(
    base: Elicited,
    vector: Direction,
    strengths: Sequence[float],
    judge: Elicited,
    taxonomy: Taxonomy,
    category: int,
    items: Items,
    known: Mapping[str, Sequence[Trace]],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Rates of a category in the answers of the base under its vector, at each strength, beside what they must exceed.

    Args:
        base: unsteered.
        vector, strengths: what is added, and how many times.
        judge: the thinking model.
        taxonomy, category: what it judges by.
        items: questions.
        known: answers to them that are there already (`BASE`, `THINKING`).
        seed: of the random direction and of the bootstrap.

    Returns:
        For each arm (those known, `× strength`, the first strength with the sign flipped, and with a random direction
        of the same length): `sentences` and `tokens`, the mean fraction over questions, each with its `…_interval`;
        `right`; `length`, in tokens.
    """
    first = strengths[0]
    arms = {f"× {strength:g}": steered(base, vector, strength) for strength in strengths}
    arms[f"× {-first:g}"] = steered(base, vector.flipped(), first)
    arms[f"random direction × {first:g}"] = steered(base, vector.random_like(seed), first)
    answers = {name: list(traces) for name, traces in known.items()}
    for name, one in arms.items():
        answers[name] = [trace for (trace,) in replace(one, method=name).answers(items, progress)]
    prompts = [judge.prompt_ids(item) for item in items]
    tokens = None if base.model is judge.model else Tokens.between(base.model, judge.model)
    if tokens is not None:
        answers = {
            name: traces if name == THINKING else [_heard(trace, tokens) for trace in traces]
            for name, traces in answers.items()
        }
    return {name: rates(judge, taxonomy, category, prompts, traces, seed) for name, traces in answers.items()}


def _heard(trace: Trace, tokens: Tokens) -> Trace:
    """An answer of the base in the tokens of who reads it, without those that it has not."""
    theirs = tokens.to_partner(torch.tensor(trace.tokens, dtype=torch.long)).tolist()
    return replace(trace, tokens=[i for i in theirs if i >= 0])


def rates(
    judge: Elicited, taxonomy: Taxonomy, category: int, prompts: Sequence[list[int]], traces: Sequence[Trace], seed: int
) -> dict[str, Any]:
    """Rates of a category in some answers, as `measure` has them; an empty answer has none of it."""
    sentences, tokens = np.zeros(len(traces)), np.zeros(len(traces))
    answered = [n for n, trace in enumerate(traces) if trace.tokens]
    if answered:
        said = reasoning_traces_from(
            [prompts[n] for n in answered], [traces[n] for n in answered], judge.model.tokenizer
        )
        with applied(judge.model.lm, judge.adapter):
            values = read(judge.model.lm, said.texts, said.lengths, said.spans, [taxonomy.site], [taxonomy.reading])
        of = texts_of(said.spans).numpy()
        hit = (taxonomy.labels(values[taxonomy.site, taxonomy.reading]) == category).numpy().astype(float)
        long = np.array([last - first for spans in said.spans for first, last in spans], dtype=float)
        for place, n in enumerate(answered):
            mine = of == place
            sentences[n], tokens[n] = hit[mine].mean(), (hit * long)[mine].sum() / long[mine].sum()
    return {
        **_rate("sentences", sentences, seed),
        **_rate("tokens", tokens, seed),
        "right": float(np.mean([trace.correct for trace in traces])),
        "length": float(np.mean([len(trace.tokens) for trace in traces])),
    }


def _rate(name: str, shares: Float[np.ndarray, " questions"], seed: int) -> dict[str, Any]:
    return {name: float(shares.mean()), f"{name}_interval": bootstrap_mean(shares, bounds=(0.0, 1.0), seed=seed).pair}


def figure(rates: Mapping[str, Mapping[str, Any]], category: int) -> go.Figure:
    """Both fractions of each arm; the base's is the line to be passed."""

    def dots(name: str) -> list[Dot]:
        return [Dot(arm[name], *arm[f"{name}_interval"]) for arm in rates.values()]

    return dot_plot(
        list(rates),
        {"fraction of sentences": dots("sentences"), "fraction of tokens": dots("tokens")},
        reference=rates[BASE]["sentences"],
        title=f"category {category}",
        x="fraction of an answer",
    )


def vector_of(vectors: Mapping[int, Direction], category: int) -> Direction:
    """The vector of a category.

    Raises:
        UserError: it has none.
    """
    if category not in vectors:
        raise UserError(f"behaviour {category} was given; the categories with a vector are {sorted(vectors)}")
    return vectors[category]
