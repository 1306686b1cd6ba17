"""The whole of a fit of `vector-transfer`: the gap, categories, vectors, a gate, and what they do on dev items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.behaviours import Choosing, Thoughts, between, choosing, distil, thoughts_of, token_labels
from elicit.decoders import Greedy, Hybrid
from elicit.elicited import Elicited
from elicit.errors import UserError
from elicit.gates import EntropyGate, Gate, OracleGate
from elicit.methods.vector_transfer import NAME
from elicit.models import Model
from elicit.organisms.score import recovered
from elicit.partner import Partner, shared_ids
from elicit.progress import Progress, Silent
from elicit.prompts import Prompt
from elicit.tasks.base import Items
from elicit.trace import Trace
from elicit.transfer import summarise
from probes.sites import Site, depth, width
from steering.agreement import choose
from steering.find import stream_norm
from steering.interventions import Add, Intervention, When
from steering.sentences import read as read_sentences
from steering.sentences import texts_of
from steering.taxonomy import Taxonomy
from steering.taxonomy import fit as fit_taxonomy
from steering.vectors import fit_vectors

BETWEEN = "between"
STAGES = ("the gap on dev", "thoughts", "sentences", "vectors", "gate", "hybrid on dev", "done")


@dataclass(frozen=True, eq=False)
class Fitted:
    handle: Elicited
    record: dict[str, Any]


def fit_transfer(
    model: Model,
    partner: Model,
    items: Items,
    prompt: Prompt,
    options: Mapping[str, Any],
    progress: Progress | None = None,
) -> Fitted:
    """Fit on the fit split, look at dev; `options` as `elicit.methods.vector_transfer.fit` says.

    Raises:
        UserError: as said there.
    """
    told = progress or Silent()

    def now(stage: str) -> None:
        told.training(NAME, STAGES.index(stage), len(STAGES) - 1, stage)

    _check_pair(model, partner)
    limit, seed = options["max_new_tokens"], options["seed"]
    dev, read = items.task.split("dev")[: options["dev"]], items.task.split("fit")[: options["read"]]
    base, thinker = (
        Elicited(one, f"{name} on dev", prompt, Greedy(limit))
        for one, name in ((model, "base"), (partner, "thinking model"))
    )
    now("the gap on dev")
    alone, ahead = ([trace for (trace,) in one.answers(dev, told)] for one in (base, thinker))
    _check_gap(model, partner, alone, ahead, options)
    now("thoughts")
    thoughts = thoughts_of(replace(thinker, method="thinking model on fit"), read, told)
    now("sentences")
    found, agreed, labels = _categories(partner, thoughts, options)

    @cache
    def along(lm: PreTrainedModel) -> Choosing:
        return choosing(lm, thoughts, found.site)

    now("vectors")
    bias = None
    if options["vectors"] == BETWEEN:
        norm = stream_norm(model.lm, thoughts.texts, found.site)
        vectors = between(along(model.lm), along(partner.lm), labels, found.site, norm)
    else:
        vectors, bias = fit_vectors(
            model.lm, thoughts.texts, thoughts.lengths, thoughts.spans, labels, found.site, options["vectors"],
            seed=seed,
        )  # fmt: skip
    record: dict[str, Any] = {
        "partner_sha256": partner.provenance.sha256,
        "layer": found.site.layer,
        "categories": found.categories,
        "agreement": agreed,
        "texts": len(thoughts.texts),
        "sentences": thoughts.sentences,
        "sizes": labels.bincount(minlength=found.categories).tolist(),
        "vectors": {str(c): v.made for c, v in vectors.items()},
        "dev": {"questions": len(dev), "base": _right(alone), "thinking": _right(ahead)},
    }
    if options["mode"] == "static":
        now("done")
        return Fitted(_static(model, prompt, vectors, options), {**record, "steered": 1.0})
    now("gate")
    gate: Gate
    if options["gate"] == "oracle":
        classifier, record["classifier"] = token_labels(along(partner.lm), labels, seed)
        gate = OracleGate(classifier, found.site)
    elif options["gate"] == "probe":
        gate, record["distilled"] = distil(model.lm, thoughts, along(model.lm), labels, found.site, seed)
    else:
        gate = _entropy_gate(alone, int(labels.mode().values))
    asks = options["gate"] == "oracle"
    handle = Elicited(
        model,
        NAME,
        prompt,
        Hybrid(
            tuple(_numbers(options["coefficients"], "coefficients", float)),
            tuple(_numbers(options["windows"], "windows")),
            select="likelihood" if asks else "none",
            max_new_tokens=limit,
        ),
        partner=Partner(vectors, gate, partner if asks else None, bias),
    )
    now("hybrid on dev")
    traces = [trace for (trace,) in handle.answers(dev, told)]
    did = summarise(traces)
    record["steered"] = did.steered
    if not did.steered:
        raise UserError(
            f"no token of {did.tokens} on dev was steered: {partner.name} preferred the base's own everywhere; give "
            "other coefficients, layers or vectors"
        )
    record["dev"] |= {"hybrid": _right(traces), **did.to_dict()}
    now("done")
    return Fitted(handle, record)


def _check_pair(model: Model, partner: Model) -> None:
    if depth(model.lm) != depth(partner.lm) or width(model.lm) != width(partner.lm):
        raise UserError(
            f"{partner.name} has {depth(partner.lm)} layers of width {width(partner.lm)}, {model.name} "
            f"{depth(model.lm)} of {width(model.lm)}; give a thinking model of the same shape"
        )
    shared_ids(model, partner)


def _right(traces: list[Trace]) -> float:
    return float(np.mean([trace.correct for trace in traces]))


def _check_gap(
    model: Model, partner: Model, alone: list[Trace], ahead: list[Trace], options: Mapping[str, Any]
) -> None:
    """Refuse a thinking model whose lead on dev has an interval that holds 0."""
    base, thinking = (np.array([float(trace.correct) for trace in traces]) for traces in (alone, ahead))
    gap = recovered(thinking, base, thinking, seed=options["seed"])
    if options["checked"] and gap.gain_interval.low <= 0:
        low, high = gap.gain_interval.pair
        raise UserError(
            f"{partner.name} is no better than {model.name} on {len(base)} dev questions (difference {gap.gain:+.2f} "
            f"[{low:+.2f}, {high:+.2f}]): nothing to recover; give a better thinking model, more dev questions, or "
            "checked=false"
        )


def _categories(
    partner: Model, thoughts: Thoughts, options: Mapping[str, Any]
) -> tuple[Taxonomy, float, Int[Tensor, " sentences"]]:
    """The taxonomy that other texts would have given too, how well two halves agree, and each sentence's category."""
    sites = [Site(layer) for layer in _numbers(options["layers"], "layers") or [2 * depth(partner.lm) // 3]]
    reading, seed = options["reading"], options["seed"]
    values = read_sentences(partner.lm, thoughts.texts, thoughts.lengths, thoughts.spans, sites, [reading])
    x = {site: values[site, reading] for site in sites}
    counts = _numbers(options["categories"], "categories")
    best = choose(x, texts_of(thoughts.spans), [options["taxonomy"]], counts, reading=reading, seed=seed)[0]
    found = fit_taxonomy(
        x[best.site], best.kind, best.n, seed, site=best.site, reading=reading, model=partner.provenance.sha256
    )
    return found, best.held_out, found.labels(x[best.site])


def _numbers(text: str, what: str, kind: type = int) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"{what} {text!r} were given; give numbers joined by commas") from error


def _static(model: Model, prompt: Prompt, vectors: Mapping[int, Any], options: Mapping[str, Any]) -> Elicited:
    """One category's vector at every step, as strong as the first coefficient."""
    category = options["behaviour"]
    if category not in vectors:
        raise UserError(f"behaviour {category} was given; the categories with a vector are {sorted(vectors)}")
    strength = _numbers(options["coefficients"], "coefficients", float)[0]
    push = Intervention(Add(vectors[category]), strength, "raw", When.every_step())
    return Elicited(model, NAME, prompt, Greedy(options["max_new_tokens"]), interventions=(push,))


def _entropy_gate(alone: list[Trace], category: int) -> EntropyGate:
    """Fires at the most uncertain tenth of the base's own tokens on dev, with the most frequent category."""
    return EntropyGate(float(np.quantile([h for trace in alone for h in trace.entropy], 0.9)), category)
