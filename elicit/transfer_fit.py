"""The whole of a fit of `vector-transfer`: the gap, categories, vectors, a gate, and what they do on dev items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from elicit.behaviours import between, choosing, distil, thoughts_of, token_labels
from elicit.decoders import Greedy, Hybrid
from elicit.elicited import Elicited
from elicit.errors import UserError
from elicit.gates import EntropyGate, Gate, OracleGate
from elicit.models import Model
from elicit.organisms.score import recovered
from elicit.partner import Partner, shared_ids
from elicit.progress import Progress
from elicit.prompts import Prompt
from elicit.tasks.base import Items
from elicit.trace import Trace
from elicit.transfer import summarise
from probes.sites import Site, depth, width
from steering.agreement import choose
from steering.interventions import Add, Intervention, When
from steering.sentences import read as read_sentences
from steering.sentences import texts_of
from steering.taxonomy import fit as fit_taxonomy
from steering.vectors import fit_vectors

NAME = "vector-transfer"
BETWEEN = "between"


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
    _check_pair(model, partner)
    limit, seed = options["max_new_tokens"], options["seed"]
    dev = items.task.split("dev")[: options["dev"]]
    base_right, thinking_right = (_right(one, dev, prompt, limit) for one in (model, partner))
    gap = recovered(thinking_right, base_right, thinking_right, seed=seed)
    if options["checked"] and gap.gain_interval.low <= 0:
        low, high = gap.gain_interval.pair
        raise UserError(
            f"{partner.name} is no better than {model.name} on {len(dev)} dev questions (difference {gap.gain:+.2f} "
            f"[{low:+.2f}, {high:+.2f}]): nothing to recover; give a better thinking model, more dev questions, or "
            "checked=false"
        )
    told = thoughts_of(partner, items.task.split("fit")[: options["read"]], prompt, limit)
    sites = [Site(layer) for layer in _numbers(options["layers"], "layers") or [2 * depth(model.lm) // 3]]
    reading = options["reading"]
    values = read_sentences(partner.lm, told.texts, told.lengths, told.spans, sites, [reading])
    x = {site: values[site, reading] for site in sites}
    counts = _numbers(options["categories"], "categories")
    best = choose(x, texts_of(told.spans), [options["taxonomy"]], counts, reading=reading, seed=seed)[0]
    found = fit_taxonomy(
        x[best.site], best.kind, best.n, seed, site=best.site, reading=reading, model=partner.provenance.sha256
    )
    labels = found.labels(x[best.site])
    bias = None
    if options["vectors"] == BETWEEN:
        vectors = between(model.lm, partner.lm, told, labels, best.site)
    else:
        vectors, bias = fit_vectors(
            model.lm, told.texts, told.lengths, told.spans, labels, best.site, options["vectors"], seed=seed
        )
    record: dict[str, Any] = {
        "partner_sha256": partner.provenance.sha256,
        "layer": best.site.layer,
        "categories": best.n,
        "agreement": best.held_out,
        "texts": len(told.texts),
        "sentences": told.sentences,
        "sizes": labels.bincount(minlength=best.n).tolist(),
        "vectors": {str(c): v.made for c, v in vectors.items()},
        "dev": {"questions": len(dev), "base": float(base_right.mean()), "thinking": float(thinking_right.mean())},
    }
    if options["mode"] == "static":
        return Fitted(_static(model, prompt, vectors, options), {**record, "steered": 1.0})
    gate: Gate
    if options["gate"] == "oracle":
        classifier, record["classifier"] = token_labels(choosing(partner.lm, told, best.site), labels, seed)
        gate = OracleGate(classifier, best.site)
    elif options["gate"] == "probe":
        gate, record["distilled"] = distil(model.lm, told, labels, best.site, seed)
    else:
        gate = _entropy_gate(model, dev, prompt, limit, int(labels.mode().values))
    asks = options["gate"] == "oracle"
    handle = Elicited(
        model,
        NAME,
        prompt,
        Hybrid(
            tuple(float(c) for c in _numbers(options["coefficients"], "coefficients", float)),
            tuple(_numbers(options["windows"], "windows")),
            select="likelihood" if asks else "none",
            max_new_tokens=limit,
        ),
        partner=Partner(vectors, gate, partner if asks else None, bias),
    )
    traces = _answer(handle, dev)
    did = summarise(traces)
    record["steered"] = did.steered
    if not did.steered:
        raise UserError(
            f"no token of {did.tokens} on dev was steered: {partner.name} preferred the base's own everywhere; give "
            "other coefficients, layers or vectors"
        )
    record["dev"] |= {"hybrid": float(np.mean([t.correct for t in traces])), **did.to_dict()}
    return Fitted(handle, record)


def _check_pair(model: Model, partner: Model) -> None:
    if depth(model.lm) != depth(partner.lm) or width(model.lm) != width(partner.lm):
        raise UserError(
            f"{partner.name} has {depth(partner.lm)} layers of width {width(partner.lm)}, {model.name} "
            f"{depth(model.lm)} of {width(model.lm)}; give a thinking model of the same shape"
        )
    shared_ids(model, partner)


def _answer(handle: Elicited, items: Items) -> list[Trace]:
    return [trace for (trace,) in handle.answers(items)]


def _right(model: Model, items: Items, prompt: Prompt, limit: int) -> np.ndarray:
    traces = _answer(Elicited(model, "check", prompt, Greedy(limit)), items)
    return np.array([float(trace.correct) for trace in traces])


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
    strength = float(_numbers(options["coefficients"], "coefficients", float)[0])
    push = Intervention(Add(vectors[category]), strength, "raw", When.every_step())
    return Elicited(model, NAME, prompt, Greedy(options["max_new_tokens"]), interventions=(push,))


def _entropy_gate(model: Model, dev: Items, prompt: Prompt, limit: int, category: int) -> EntropyGate:
    """Fires at the most uncertain tenth of the base's own tokens on dev, with the most frequent category."""
    entropy = [h for t in _answer(Elicited(model, "check", prompt, Greedy(limit)), dev) for h in t.entropy]
    return EntropyGate(float(np.quantile(entropy, 0.9)), category)
