"""The whole of a fit of `vector-transfer`: the gap, categories, vectors, a gate, and what they do on dev items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from elicit.decoding.decoders import Greedy, Hybrid
from elicit.decoding.decoders.gates import EntropyGate, Gate, OracleGate
from elicit.decoding.decoders.partner import HybridSteering, Tokens, shared_ids
from elicit.decoding.progress import Progress, Silent
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.evaluation.metrics.gap import recovered
from elicit.evaluation.side_effects import plain_texts
from elicit.methods.vector_transfer import behaviour_rates
from elicit.methods.vector_transfer.gate_fitting import cross_model_difference, distil, token_labels
from elicit.methods.vector_transfer.hybrid_stats import summarise
from elicit.methods.vector_transfer.options import BETWEEN, HEAD, NAME
from elicit.methods.vector_transfer.reasoning_traces import (
    ReasoningTraces,
    TokenActivations,
    read_by_both,
    reasoning_traces_of,
    token_activations,
)
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from probes.errors import UserError
from probes.offsets import decoded
from probes.sites import Site, check_site, depth, width
from steering.adapters import Adapter, applied
from steering.categories.agreement import choose
from steering.categories.cards import Card, cards
from steering.categories.coefficient import CoefficientHead, fit_coefficient
from steering.categories.sentences import read as read_sentences
from steering.categories.sentences import texts_of
from steering.categories.taxonomy import Taxonomy
from steering.categories.taxonomy import fit as fit_taxonomy
from steering.categories.vectors import fit_vectors
from steering.directions import Direction
from steering.find import stream_norm
from steering.strength import at_kl, parse_budgets

STAGES = ("the gap on dev", "thoughts", "sentences", "vectors", "gate", "answers on dev", "done")


@dataclass(frozen=True, eq=False)
class Fitted:
    handle: Elicited
    record: dict[str, Any]


def fit_transfer(
    model: Model,
    partner: Model | Adapter,
    items: Items,
    prompt: Prompt,
    options: Mapping[str, Any],
    progress: Progress | None = None,
    own: Prompt | None = None,
) -> Fitted:
    """Fit on the fit split, look at dev; `options` as `elicit.methods.vector_transfer.fit` says.

    Args:
        partner: the thinking model, or an adapter that makes the base one.
        prompt: how the base is asked.
        own: how the thinking model is asked, if otherwise.

    Raises:
        UserError: as said there.
    """
    report, asked = progress or Silent(), _parse(model, options)

    def now(stage: str) -> None:
        report.training(NAME, STAGES.index(stage), len(STAGES) - 1, stage)

    limit, seed = options["max_new_tokens"], options["seed"]
    dev, read = (items.task.split(split)[: options[of]] for split, of in (("dev", "dev"), ("fit", "read")))
    if not len(dev) or not len(read):
        raise UserError(f"{len(read)} fit and {len(dev)} dev items were given; give some of both (read=…, dev=…)")
    base = Elicited(model, "base on dev", prompt, Greedy(limit))
    thinker = replace(base, method="thinking model on dev", prompt=own or prompt)
    if isinstance(partner, Model):
        _check_pair(model, partner)
        thinker = replace(thinker, model=partner)
    else:
        thinker = replace(thinker, adapter=partner)
    now("the gap on dev")
    alone, ahead = ([trace for (trace,) in one.answers(dev, report)] for one in (base, thinker))
    _check_gap(model, alone, ahead, options)
    now("thoughts")
    thoughts = reasoning_traces_of(replace(thinker, method="thinking model on fit"), read, report)
    thoughts, along_base = _read_by_both(base, thinker, thoughts)
    _check_traces(along_base, asked.counts, model)
    now("sentences")
    sha256 = partner.sha256 if isinstance(partner, Adapter) else partner.provenance.sha256
    found, agreed, labels, described = _categories(thinker, thoughts, asked, options, sha256)

    @cache
    def along(thinking: bool) -> TokenActivations:
        one = thinker if thinking else base
        with applied(one.model.lm, one.adapter):
            return token_activations(one.model.lm, thoughts if thinking else along_base, found.site)

    now("vectors")
    bias = None
    if options["vectors"] == BETWEEN:
        norm = stream_norm(model.lm, along_base.texts, found.site)
        vectors = cross_model_difference(along(False), along(True), labels, found.site, norm)
    else:
        vectors, bias = fit_vectors(
            model.lm, along_base.texts, along_base.lengths, along_base.spans, labels, found.site, options["vectors"],
            seed=seed,
        )  # fmt: skip
    record: dict[str, Any] = {
        "partner_sha256": sha256,
        "layer": found.site.layer,
        "categories": found.categories,
        "agreement": agreed,
        "texts": len(thoughts.texts),
        "sentences": thoughts.sentences,
        "cards": [asdict(card) for card in described],
        "vectors": {str(c): v.made for c, v in vectors.items()},
        "dev": {"questions": len(dev), "base": _right(alone), "thinking": _right(ahead)},
    }
    if options["mode"] == "static":
        category, strengths = options["behaviour"], _numbers(options, "coefficients", float)
        vector = behaviour_rates.vector_of(vectors, category)
        if asked.budgets:
            plan, texts = behaviour_rates.steered(base, vector, 1.0).interventions, plain_texts(model)
            strengths = [at_kl(model.lm, plan, nats, texts)[0].strength for nats in asked.budgets]
            record["kl"] = asked.budgets[0]
        now("answers on dev")
        known = {behaviour_rates.BASE: alone, behaviour_rates.THINKING: ahead}
        record["rates"] = behaviour_rates.measure(
            base, vector, strengths, thinker, found, category, dev, known, seed=seed, progress=report
        )
        now("done")
        handle = replace(behaviour_rates.steered(base, vector, strengths[0]), method=NAME)
        return Fitted(handle, {**record, "steered": 1.0})
    heads = None
    if asked.predicted:
        heads = _heads(along(False), along(True), labels, vectors, bias, seed)
        record["heads"] = {str(c): dict(head.made) for c, head in heads.items()}
    now("gate")
    gate: Gate
    if options["gate"] == "oracle":
        classifier, record["classifier"] = token_labels(along(True), labels, seed)
        gate = OracleGate(classifier, found.site)
    elif options["gate"] == "probe":
        gate, record["distilled"] = distil(model.lm, along_base, along(False), labels, found.site, seed)
    else:
        gate = _entropy_gate(alone, int(labels.mode().values))
    steering = HybridSteering(vectors, gate, partner if gate.asks else None, bias, heads, own if gate.asks else None)
    now("answers on dev")
    tried = []
    for decoder in asked.decoders:
        handle = replace(base, method=NAME, decoder=decoder, partner=steering)
        tried.append((handle, [trace for (trace,) in handle.answers(dev, report)]))
    handle, traces = max(tried, key=lambda one: _right(one[1]))  # of equal ones the first
    did = summarise(traces)
    record["steered"] = did.steered
    if not did.steered:
        raise UserError(
            f"no token of {did.tokens} on dev was steered: {options['partner']} preferred the base's own everywhere; "
            "give other coefficients, layers or vectors"
        )
    if len(tried) > 1:
        names = [f"{decoder.coefficients[0]:g}" for decoder in asked.decoders]
        record["tried"] = {name: _right(some) for name, (_, some) in zip(names, tried, strict=True)}
    record["dev"] |= {"hybrid": _right(traces), **did.to_dict()}
    now("done")
    return Fitted(handle, record)


@dataclass(frozen=True)
class _Parsed:
    """Parsed options; `predicted`: a head predicts the coefficient.

    `decoders` is one, whose candidates the thinking model chooses among; or, where nobody chooses while decoding, one a
    coefficient, of which dev items choose.
    """

    sites: list[Site]
    counts: list[int]
    decoders: list[Hybrid]
    predicted: bool
    budgets: list[float]


def _parse(model: Model, options: Mapping[str, Any]) -> _Parsed:
    """Read the numbers, before anything is sampled.

    Raises:
        UserError: what is no number, a layer that the base lacks, one category, a head where nothing is decided.
    """
    sites = [Site(layer) for layer in _numbers(options, "layers")] or [Site(2 * depth(model.lm) // 3)]
    for site in sites:
        check_site(model.lm, site, write=True)
    counts = _numbers(options, "categories")
    if not counts or min(counts) < 2:
        raise UserError(f"categories {options['categories']!r} were given; give numbers from 2 on, joined by commas")
    predicted = options["coefficients"] == HEAD
    if predicted and options["mode"] == "static":
        raise UserError(f"coefficients={HEAD!r} and mode='static' were given; static needs a number")
    coefficients = (1.0,) if predicted else tuple(_numbers(options, "coefficients", float))
    if not coefficients:
        raise UserError(f"coefficients {options['coefficients']!r} were given; give at least one, ascending")
    budgets = parse_budgets(options["kl"])
    if budgets and options["mode"] != "static":
        raise UserError(f"kl={options['kl']!r} was given with mode={options['mode']!r}; give it with mode=static")
    oracle = options["gate"] == "oracle"
    decoders = [
        Hybrid(
            some,
            tuple(_numbers(options, "windows")),
            select="likelihood" if oracle else "none",
            max_new_tokens=options["max_new_tokens"],
        )
        for some in ([coefficients] if oracle else [(one,) for one in coefficients])
    ]
    return _Parsed(sites, counts, decoders, predicted, budgets)


def _numbers(options: Mapping[str, Any], what: str, kind: type = int) -> list[Any]:
    try:
        return [kind(part) for part in options[what].split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"{what} {options[what]!r} were given; give numbers joined by commas") from error


def _check_pair(model: Model, partner: Model) -> None:
    if depth(model.lm) != depth(partner.lm) or width(model.lm) != width(partner.lm):
        raise UserError(
            f"{partner.name} has {depth(partner.lm)} layers of width {width(partner.lm)}, {model.name} "
            f"{depth(model.lm)} of {width(model.lm)}; give a thinking model of the same shape"
        )
    shared_ids(model, partner)


def _right(traces: list[Trace]) -> float:
    return float(np.mean([trace.correct for trace in traces]))


def _check_gap(model: Model, alone: list[Trace], ahead: list[Trace], options: Mapping[str, Any]) -> None:
    """Refuse a thinking model whose lead on dev has an interval that holds 0."""
    base, thinking = (np.array([float(trace.correct) for trace in traces]) for traces in (alone, ahead))
    gap = recovered(thinking, base, thinking, seed=options["seed"])
    if options["checked"] and gap.gain_interval.low <= 0:
        low, high = gap.gain_interval.pair
        raise UserError(
            f"{options['partner']} is no better than {model.name} on {len(base)} dev questions (difference "
            f"{gap.gain:+.2f} [{low:+.2f}, {high:+.2f}]): nothing to recover; give a better thinking model, more dev "
            "questions, or checked=false"
        )


def _read_by_both(
    base: Elicited, thinker: Elicited, thoughts: ReasoningTraces
) -> tuple[ReasoningTraces, ReasoningTraces]:
    """The thinking model's thoughts as it reads them itself, and as the base does."""
    tokens = None if base.model is thinker.model else Tokens.between(base.model, thinker.model)
    if tokens is None and base.prompt == thinker.prompt:
        return thoughts, thoughts
    prompts = [base.prompt_ids(item) for item in thoughts.items]
    return read_by_both(thoughts, prompts, (lambda ids: [[i] for i in ids]) if tokens is None else tokens.to_base)


def _check_traces(thoughts: ReasoningTraces, counts: list[int], model: Model) -> None:
    """Refuse too few sentences, of which each of three parts of the texts is to give the categories
    (`steering.categories.agreement`), and tokens that the base cannot be read along."""
    most = max(counts)
    if len(thoughts.texts) < 4 or thoughts.sentences < 3 * most:
        raise UserError(
            f"the thinking model said {thoughts.sentences} sentences in {len(thoughts.texts)} answers and {most} "
            f"categories need {3 * most} in 4 at least; give more questions (read=…) or fewer categories"
        )
    highest = max(max(text) for text in thoughts.texts)
    if highest >= model.vocab_size:
        raise UserError(
            f"the thinking model says token {highest} and {model.name} has {model.vocab_size}: it cannot be read along "
            "its answers; give a thinking model that answers in tokens of both"
        )


def _categories(
    thinker: Elicited, thoughts: ReasoningTraces, asked: _Parsed, options: Mapping[str, Any], sha256: str
) -> tuple[Taxonomy, float, Int[Tensor, " sentences"], list[Card]]:
    """The taxonomy that other texts would have given too, how well two halves agree, each sentence's category, and a
    card a category."""
    reading, seed, lm = options["reading"], options["seed"], thinker.model.lm
    with applied(lm, thinker.adapter):
        values = read_sentences(lm, thoughts.texts, thoughts.lengths, thoughts.spans, asked.sites, [reading])
    x = {site: values[site, reading] for site in asked.sites}
    best = choose(x, texts_of(thoughts.spans), [options["taxonomy"]], asked.counts, reading=reading, seed=seed)[0]
    found = fit_taxonomy(x[best.site], best.kind, best.n, seed, site=best.site, reading=reading, model=sha256)
    said = [
        decoded(thinker.model.tokenizer, text[first:last])
        for text, spans in zip(thoughts.texts, thoughts.spans, strict=True)
        for first, last in spans
    ]
    place = [n / max(1, len(spans) - 1) for spans in thoughts.spans for n in range(len(spans))]
    return found, best.held_out, found.labels(x[best.site]), cards(found, x[best.site], said, place)


def _heads(
    base: TokenActivations,
    partner: TokenActivations,
    labels: Int[Tensor, " sentences"],
    vectors: Mapping[int, Direction],
    bias: Direction | None,
    seed: int,
) -> dict[int, CoefficientHead]:
    """For each category a head that predicts how much of its vector, bias included, the base lacks at its positions."""
    category = labels[torch.from_numpy(base.sentence)]
    out = {}
    for c, vector in vectors.items():
        whole = vector if bias is None else replace(vector, vector=vector.vector + bias.vector)
        rows = category == c
        out[c] = fit_coefficient(base.x[rows], partner.x[rows], whole, text=base.text[rows.numpy()], seed=seed)
    return out


def _entropy_gate(alone: list[Trace], category: int) -> EntropyGate:
    """Fires at the most uncertain tenth of the base's own tokens on dev, with the most frequent category."""
    return EntropyGate(float(np.quantile([h for trace in alone for h in trace.entropy], 0.9)), category)
