"""The whole of a search for one feature: SAE, fit check, candidates, choice on dev, card, matched controls."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.side_effects import plain_texts
from elicit.methods.base import NeedsItems
from elicit.methods.sae_steer.causal_filter import Candidate, candidates, choose
from elicit.methods.sae_steer.contrast import ContrastActivations, Text, answered, check_step, read_contrast
from elicit.methods.sae_steer.falsification import IRRELEVANT, falsify
from elicit.methods.sae_steer.options import Search
from elicit.models import zoo
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.models.saes import open_sae
from elicit.tasks.base import Items
from probes.capture import capture
from probes.errors import UserError
from probes.sae.autoencoder import SAE, Feature
from probes.sae.card import check_model, fit_check, sae_card
from probes.sae.neuronpedia import page_of
from probes.sae.scores import contrast, encoded, firing
from steering.find import difference_of_means
from steering.hooks import attached
from steering.interventions import Add, Intervention, ScaleFeature, SetFeature, When
from steering.strength import at_kl

FALSIFIED_ON = 32  # questions


@dataclass(frozen=True, eq=False)
class SearchData:
    """What a search stands on: the SAEs, what was read at their sites, and the texts with and without the instruction.

    Of the texts without it only the answer's first token is kept. `of` is all that decides what was read.
    """

    of: tuple[Any, ...]
    saes: list[SAE]
    activations: dict[Any, ContrastActivations]
    thoughts: list[Text]
    direct: list[Text]
    prompt: Prompt

    @property
    def plain(self) -> list[list[int]]:
        """The prompts without the instruction."""
        return [text.ids[: text.prompt] for text in self.direct]


@dataclass(frozen=True, eq=False)
class FittedFeature:
    """A steering intervention with the record of its search, and what the search read."""

    intervention: Intervention
    record: dict[str, Any]
    on: SearchData


def load_saes(names: str, model: Model) -> list[SAE]:
    """The SAEs of these names, folders or releases; the one shipped for the model unless given.

    Raises:
        UserError: none for this model, or one that does not fit its shape.
    """
    given = [name.strip() for name in names.split(",") if name.strip()] or zoo.saes_for(model.name)
    if not given:
        raise UserError(
            f"no SAE comes with {model.name!r}; give sae=FOLDER or sae=RELEASE:ID of SAELens, or train one: "
            f"elicit sae train --model {model.name}"
        )
    out = [open_sae(name).to(model.lm.device) for name in given]
    for one in out:
        check_model(model.lm, one)
    if len({one.site for one in out}) < len(out):
        raise UserError(f"SAEs {', '.join(given)} were given and two are of one site; give one a site")
    return out


def search_data(
    model: Model,
    items: Items,
    prompt: Prompt,
    options: Search,
    kept: SearchData | None = None,
    progress: Progress | None = None,
) -> SearchData:
    """Load, read, and refuse what does not fit; `kept` is returned where it is of the same inputs.

    Raises:
        UserError: an SAE that does not describe the model where it is steered; no fit items; an answer that ends before
            the step, with the instruction or without.
    """
    saes = load_saes(options.sae, model)
    some = items.task.split("fit")[: options.read]
    asked = (options.instruction, options.step, options.max_new_tokens)
    questions = tuple((item.id, item.question) for item in some)
    of = (model.lm, tuple(sae.sha256 for sae in saes), questions, prompt, asked)
    made = kept
    if made is None or made.of != of:
        thoughts = answered(model, some, prompt.asked(options.instruction), options.max_new_tokens, progress)
        direct = answered(model, some, prompt, 1)
        check_step(direct, options.step, "answers without the instruction")
        plain = [text.ids[: text.prompt + options.step] for text in direct]
        by_site = read_contrast(model, thoughts, plain, [sae.site for sae in saes], step=options.step)
        made = SearchData(of, saes, by_site, thoughts, direct, prompt)
    if options.checked:
        for sae in saes:
            check_fit(model, sae, made)
    return made


def check_fit(model: Model, sae: SAE, on: SearchData) -> dict[str, Any]:
    """Refuse an SAE that does not describe the model at the position that chooses the first token.

    Prompts with the instruction and without are measured together: what the SAE must describe there is what tells them
    apart, and within one template this position varies little.

    Raises:
        UserError: which floors it misses.
    """
    both = [*on.thoughts, *on.direct]
    texts = [text.ids[: text.prompt + 1] for text in both]
    card = sae_card(model.lm, sae, texts, [text.prompt for text in both], steps=(0, 1))
    if missed := fit_check(card):
        raise UserError(
            f"the SAE {sae.name!r} does not describe {model.name} at its last prompt token: {'; '.join(missed)}; "
            "give one that was trained on this model and such prompts, or steer along it all the same (checked=false; "
            "in elicit steer --unchecked)"
        )
    return card


def search(
    model: Model, items: Items | None, prompt: Prompt, options: Search, progress: Progress | None
) -> FittedFeature:
    """Find a feature on fit items, choose it with strength and time on dev items, and say what it is.

    Raises:
        UserError: as `search_data` and `candidates`; no items.
    """
    if items is None:
        raise NeedsItems("sae-steer seeks its feature on the fit and dev items of a task")
    on = search_data(model, items, prompt, options, progress=progress)
    tried = pick(on, options, options.candidates)
    dev = items.task.split("dev")[: options.dev]
    doses = {one.name: options.strengths_of(one, model) for one in tried}
    strengths = {name: list(found) for name, found in doses.items()}
    chosen = choose(
        model, dev, tried, strengths, options.whens(), unit=options.unit, change=options.change, prompt=prompt,
        max_new_tokens=options.max_new_tokens, seed=options.seed, progress=progress,
    )  # fmt: skip
    best = chosen.candidate
    intervention = best.intervention(
        chosen.strength, unit=options.unit, change=options.change, when=When.parse(chosen.when)
    )
    card = falsify(
        model, best.feature(), items.task.split("fit")[:FALSIFIED_ON], prompt, options.instruction, best.activations,
        on.thoughts, seed=options.seed,
    )  # fmt: skip
    record = {
        "sae": options.sae or ",".join(zoo.saes_for(model.name)),
        "sae_sha256": best.sae.sha256,
        "layer": best.sae.site.layer,
        "feature": best.index,
        "strength": chosen.strength,
        "when": chosen.when,
        "maximum": float(best.firing.maximum[best.index]),
        "density": float(best.firing.density[best.index]),
        "resid_norm": best.activations.resid_norm,
        "delivered": delivered(model, best.sae, intervention, on),
        "opening": opening(model, dev, prompt, intervention),
        "dev_accuracy": chosen.accuracy,
        "search": chosen.rows,
        "search_run": chosen.run.name,
        "falsification": {k: v for k, v in card.items() if v is not None},
    }
    if page := page_of(best.sae, best.index):
        record["neuronpedia"] = page
    if options.budgets():
        record["kl"] = doses[best.name][chosen.strength]
    return FittedFeature(intervention, record, on)


def pick(on: SearchData, options: Search, count: int) -> list[Candidate]:
    """The feature that was given, of each SAE, or the best `count` by the score that was asked for.

    Raises:
        UserError: a feature out of range; as `candidates`.
    """
    if options.feature < 0:
        return candidates(options.find, on.saes, on.activations, on.thoughts, count, options.vocabulary())
    out = []
    for sae in on.saes:
        sae.feature(options.feature)  # refuses one out of range
        activations = on.activations[sae.site]
        out.append(Candidate(sae, options.feature, 0.0, firing(sae, activations.thoughts), activations))
    return out


def delivered(model: Model, sae: SAE, intervention: Intervention, on: SearchData) -> dict[str, float]:
    """What the intervention does to the SAE's own reading of the residual stream, in the mean over prompts where it
    first acts.

    Returns:
        The feature's value before and after, and how many other features were silenced and woken.
    """
    first = intervention.when.first or 0
    texts = on.plain if first <= 0 else [text.ids for text in on.thoughts]
    lengths = [text.prompt for text in (on.direct if first <= 0 else on.thoughts)]
    window = (min(first, 0), min(first, 0) + 1) if first <= 0 else (first, first + 1)
    before = capture(model.lm, texts, [sae.site], lengths=lengths, steps=window)
    with attached(model.lm, [(intervention,)]):
        after = capture(model.lm, texts, [sae.site], lengths=lengths, steps=window)
    assert before is not None and after is not None
    old, new = (encoded(sae, acts.values[sae.site]) for acts in (before, after))
    source = _feature_of(intervention)
    others = torch.arange(sae.d_sae) != source.index
    fired, fires = old[:, others] > 0, new[:, others] > 0
    return {
        "value before": float(old[:, source.index].mean()),
        "value after": float(new[:, source.index].mean()),
        "silenced": float((fired & ~fires).sum(-1).float().mean()),
        "woken": float((fires & ~fired).sum(-1).float().mean()),
        "share of the stream": abs(size_of(model, intervention, on)) / on.activations[sae.site].resid_norm,
    }


def size_of(model: Model, intervention: Intervention, on: SearchData) -> float:
    """How far the intervention moves the residual stream where it acts at full weight; negative against the feature.

    Of `add` it is the same everywhere. Of `set` and `scale` it depends on what the feature was: the mean ‖Δh‖ over the
    positions at which it acts, in the prompts without the instruction, or, where it acts on generated tokens too, in
    the thoughts.

    Raises:
        UserError: it moves none of them.
    """
    source, factor, when = _feature_of(intervention), intervention.factor, intervention.when
    if isinstance(intervention.what, Add):
        return factor * source.length
    within = when.stop is not None and when.stop <= 1
    texts = on.plain if within else [text.ids for text in on.thoughts]
    lengths = [text.prompt for text in (on.direct if within else on.thoughts)]
    acts = capture(model.lm, texts, [source.site], lengths=lengths, steps=(when.first, when.stop))
    assert acts is not None
    z = source.read(acts.values[source.site])
    change = factor - z if isinstance(intervention.what, SetFeature) else (factor - 1) * z
    if not bool(change.any()):
        raise UserError(
            f"feature {source.index} is changed at none of {len(z)} positions, so its controls have no size; "
            "give another strength, or change=add"
        )
    return float(change.abs().mean() * change.mean().sign()) * source.length


def opening(model: Model, items: Items, prompt: Prompt, intervention: Intervention) -> str:
    """The word that greedy answers begin with most often under the intervention; nothing where they begin with none."""
    handle = Elicited(model, "opening", prompt, Greedy(2), interventions=(intervention,))
    starts = (re.match(r"[^\W\d]+", trace.text.strip()) for (trace,) in handle.answer(items))
    said = Counter(found.group() for found in starts if found)
    return said.most_common(1)[0][0] if said else ""


def matched(handle: Elicited, items: Items | None, random: int, seed: int) -> dict[str, Intervention]:
    """Controls of an intervention at its site and time, each moving the residual stream as far (`size_of`); where the
    strength was found by KL, each at the strength that has the same.

    Returns:
        `random` features that fire about as often, the difference of means, the sign flipped, and the best feature of
        an irrelevant contrast; the second best where that is the very feature whose controls these are.

    Raises:
        UserError: no items, too few features that fire, no other feature in an irrelevant contrast.
    """
    if items is None:
        raise NeedsItems("the controls of sae-steer read the fit items of a task")
    options = Search(**handle.options["asked"])
    index, layer = handle.options["found"]["feature"], handle.options["found"]["layer"]
    kept = handle.fitted if isinstance(handle.fitted, SearchData) else None
    on = search_data(handle.model, items, handle.prompt, replace(options, checked=False, feature=index), kept)
    best = next(one for one in pick(on, replace(options, feature=index), 1) if one.sae.site.layer == layer)
    sae, activations = best.sae, best.activations
    (intervention,) = handle.interventions
    size = size_of(handle.model, intervention, on)
    made = matched_features(best, intervention, size, random, seed)
    direction = difference_of_means(activations.positive, activations.negative, sae.site)
    made["difference of means"] = replace(
        intervention, what=Add(direction), strength=size / direction.length, unit="raw"
    )
    made["sign flipped"] = _instead(intervention, sae, index, -size)
    best_two = irrelevant_features(handle, items, sae, options)
    other = next((one for one in best_two if one != index), None)
    if other is None:
        raise UserError(
            f"no feature of {sae.name!r} but {index} fires more after {IRRELEVANT[0]!r}, so the control of an "
            "irrelevant contrast is not there; give another SAE, or leave the controls out"
        )
    made[f"{'second ' * (best_two[0] == index)}irrelevant feature {other}"] = _instead(intervention, sae, other, size)
    if (nats := handle.options["found"].get("kl")) is not None:
        texts = plain_texts(handle.model)
        made = {name: at_kl(handle.model.lm, (one,), nats, texts)[0] for name, one in made.items()}
    return made


def matched_features(
    best: Candidate, intervention: Intervention, size: float, count: int, seed: int
) -> dict[str, Intervention]:
    """Random features that fire about as often, each moving it by `size` (`size_of`), at the same place and time.

    Raises:
        UserError: too few features that fire.
    """
    indices = best.firing.alike(best.sae, best.index, count, seed)
    return {f"random feature {i}": _instead(intervention, best.sae, i, size) for i in indices}


def irrelevant_features(handle: Elicited, items: Items, sae: SAE, options: Search) -> list[int]:
    """The two best features by the contrast of an instruction that has nothing to do with reasoning, as far as any have
    a score."""
    some = items.task.split("fit")[: options.read]
    sides = []
    for shape in (handle.prompt.asked(IRRELEVANT[0]), handle.prompt):
        ids = [shape.ids(item.question, handle.model.tokenizer) for item in some]
        acts = capture(handle.model.lm, ids, [sae.site], last=1)
        assert acts is not None
        sides.append(acts.values[sae.site])
    return contrast(sae, *sides).top(2)


def _feature_of(intervention: Intervention) -> Feature:
    assert isinstance(intervention.what, Add | SetFeature | ScaleFeature) and isinstance(
        intervention.what.source, Feature
    )
    return intervention.what.source


def _instead(intervention: Intervention, sae: SAE, index: int, size: float) -> Intervention:
    """Another feature in an intervention's place, that moves the residual stream by `size`."""
    feature = sae.feature(index)
    return replace(intervention, what=Add(feature), strength=size / feature.length, unit="raw")
