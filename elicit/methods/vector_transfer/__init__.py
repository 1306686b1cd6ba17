"""`vector-transfer`: a thinking model decides when, its base does the work (arXiv 2510.07364; vectors, 2506.18167).

1. The thinking model answers fit questions; its sentences fall into categories, found without labels
   (`steering.categories.taxonomy`); their number and layer are chosen by whether other texts give the same ones.
2. Each category gets a vector in the base (`steering.categories.vectors`), read or trained where its tokens are chosen.
3. Hybrid decoding (`elicit.decoding.decoders.hybrid`): where the two models' greedy tokens differ, the category of the
   position chooses the vector, and the thinking model chooses among the base's tokens, steered and not.

Where the paper is silent or ours differs:
- Categories are found on sentences and asked for at tokens by a classifier that was fitted on tokens.
- A coefficient of 1 moves the residual stream by its median norm at the layer.
- The fraction of the gap is (hybrid − base) / (thinking − base) on the same questions, never clamped; with no gap on
  dev the method refuses.
- `gate=probe` replaces the thinking model by a probe on the base (no thinking model while decoding), `gate=entropy` by
  the base's own uncertainty; then nobody chooses among coefficients, and dev items choose one for all.
- `mode=static` adds one category's vector at every step and asks nobody; how often the behaviour then appears is
  measured at each of the coefficients (`elicit.methods.vector_transfer.behaviour_rates`), and the first one is used.
- `coefficients=head` tries one coefficient a position: how far the thinking model lies from the base along the vector,
  predicted from the base's own activation (`steering.categories.coefficient`). It takes one candidate where the grid
  takes four.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicit.decoding.decoders import Greedy, Hybrid
from elicit.decoding.decoders.partner import HybridSteering
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.seen import SEEN, seen
from elicit.evaluation.side_effects import plain_texts, side_effect_sections, with_side_effects
from elicit.methods.base import NeedsItems, Work, check_counts, check_own, draw_seed
from elicit.methods.baselines import cot_prompt, direct
from elicit.methods.baselines.at_budget import at_budget
from elicit.methods.vector_transfer.options import BETWEEN, GATES, MODES, NAME
from elicit.models import zoo
from elicit.models.model import Model, load_model
from elicit.models.prompts import Prompt, prompt_for
from elicit.tasks.base import Items
from probes.errors import UserError, unknown
from steering.adapters import CONFIG, Adapter
from steering.directions import Direction
from steering.interventions import Add
from steering.strength import at_kl

if TYPE_CHECKING:
    from elicit.evaluation.run.run import Run

SUMMARY = "a thinking model decides when its base is steered, by a vector a behaviour"
PAPER = "2510.07364"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
THINKING = "thinking model"
CARD_HEAD = ("category", "sentences", "telling words", "typical sentences")
RANDOM = 5
CONTROLS = RANDOM + 14
QUICK = {"read": 48, "dev": 16, "categories": "6"}


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    partner: str = "",
    layers: str = "",
    categories: str = "5,7,9",
    taxonomy: str = "k-means",
    reading: str = "first",
    vectors: str = "between",
    coefficients: str = "0.25,0.5,1,2",
    windows: str = "1",
    gate: str = "oracle",
    mode: str = "hybrid",
    behaviour: int = 0,
    read: int = 96,
    dev: int = 32,
    checked: bool = True,
    prompt: str = "qa",
    partner_prompt: str = "",
    max_new_tokens: int = 256,
    seed: int = 0,
    kl: str = "",
) -> Elicited:
    """Find categories, vectors and a gate on fit items; look at the gap on dev items.

    Args:
        model: the base.
        items: items of a task; its fit and dev splits are used and its test split is not.
        progress: what is reported to.
        partner: the thinking model: as the base is named, or the folder of an adapter on the base, which then is in
            memory once; unless given the one that comes with the base.
        layers: of the residual stream, joined by commas, in both models; two thirds down unless given.
        categories: numbers of them to try, joined by commas.
        taxonomy: what tells categories of sentences apart, one of `steering.categories.taxonomy.KINDS`.
        reading: what stands for a sentence, one of `steering.categories.sentences.POOLINGS`.
        vectors: `between` (thinking model − base), `means` (within the base) or `optimised`.
        coefficients: of the candidates: of the trained vector for `optimised`, else in norms of the residual stream; or
            `head`. Without an oracle one of them is chosen on dev items.
        windows: how many of the last positions a candidate steers, joined by commas; 0: all, prompt and answer, as the
            authors' code does unless told otherwise.
        gate: `oracle`, `probe` or `entropy`.
        mode: `hybrid`, or `static`: one vector at every step.
        behaviour: the category whose vector `static` adds.
        read, dev: how many fit and dev items are used.
        checked: refuse a thinking model that is no better than the base.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.
        partner_prompt: how the thinking model is asked, by name; unless given as the base is.
        kl: with `static`, instead of coefficients, budgets in nats, joined by commas: the coefficients that reach each
            (`steering.strength`), controls at their own for the first; side effects are in the run then.

    Raises:
        UserError: no partner, one that does not match or does not fit into memory, nothing to recover, too few
            sentences, unknown names.
    """
    from elicit.methods.vector_transfer.pipeline import fit_transfer
    from steering.categories.sentences import parts_of
    from steering.categories.taxonomy import KINDS as TAXONOMIES
    from steering.categories.vectors import KINDS as VECTORS

    if items is None:
        raise NeedsItems("vector-transfer reads the fit and dev items of a task")
    check_counts(NAME, read=read, dev=dev)
    named: tuple[tuple[str, str, Iterable[str]], ...] = (
        ("gate", gate, GATES), ("mode", mode, MODES), ("kind of vectors", vectors, [BETWEEN, *VECTORS]),
        ("kind of taxonomy", taxonomy, TAXONOMIES),
    )  # fmt: skip
    for what, given, known in named:
        if given not in known:
            raise unknown(what, given, known)
    parts_of(reading)
    name = partner or zoo.THINKING.get(model.name, "")
    if not name:
        raise UserError(f"no thinking model comes with {model.name!r}; give partner=, a model with the same tokenizer")
    options = dict(
        partner=name, layers=layers, categories=categories, taxonomy=taxonomy, reading=reading, vectors=vectors,
        coefficients=coefficients, windows=windows, gate=gate, mode=mode, behaviour=behaviour, read=read, dev=dev,
        checked=checked, max_new_tokens=max_new_tokens, seed=seed, kl=kl,
    )  # fmt: skip
    if partner_prompt:
        options["partner_prompt"] = partner_prompt
    thinking = _thinking(model, name)
    own = _own_prompt(model, thinking, partner_prompt, items)
    made = fit_transfer(model, thinking, items, prompt_for(model, prompt, items), options, progress, own)
    fitted, chosen = items.task.split("fit")[:read], items.task.split("dev")[:dev]
    kept = {"prompt": prompt, "asked": options, "found": made.record, SEEN: seen(fitted, chosen)}
    handle = replace(made.handle, options=kept)
    return with_side_effects(handle) if kl else handle


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The thinking model's answers, as long as the base's that is asked to think, and the base's on dev, each twice
    where it is steered, since the thinking model reads along."""
    put = prompt_for(model, options["prompt"], items)
    asked = Elicited(model, NAME, put.thinking(), Greedy(options["max_new_tokens"]))
    tried = 1 if options["gate"] == "oracle" else len(options["coefficients"].split(","))
    return Work(
        asked, [(asked, options["read"] + 2 * (1 + tried) * options["dev"])], controls=(2 * CONTROLS, 0),
        beside="categories and vectors are not in it",
    )  # fmt: skip


def _thinking(model: Model, name: str) -> Model | Adapter:
    """The thinking model of a name: an adapter's folder, or a model."""
    folder = Path(name).expanduser()
    if (folder / CONFIG).is_file():
        return Adapter(folder)
    return load_model(name, dtype=model.dtype, device=str(model.lm.device))


def _own_prompt(model: Model, thinking: Model | Adapter, name: str, items: Items | None) -> Prompt | None:
    """The thinking model's own prompt, where it has one."""
    return prompt_for(thinking if isinstance(thinking, Model) else model, name, items) if name else None


def missing(model: str) -> str:
    """Why it has no default on this model."""
    return "" if model in zoo.THINKING else f"no thinking model comes with {model!r}"


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """The thinking model itself, and the same decoding with one thing exchanged, at the same norm; what any method
    could do with as many tokens.

    Other vectors steer where the true ones would, with the candidate that these would give, and no larger a fraction of
    the tokens than the method steered on dev. At random positions each candidate is taken as often as the method took
    it there. Those that may decline take the true vectors' place altogether: the
    thinking model chooses among them and the unsteered token.

    Raises:
        UserError: a handle of another method.
    """
    check_own(handle, NAME)
    plain = replace(handle, interventions=(), partner=None, decoder=Greedy(handle.decoder.max_new_tokens), options={})
    out = {
        direct.NAME: replace(plain, method=direct.NAME),
        cot_prompt.NAME: replace(plain, method=cot_prompt.NAME, prompt=plain.prompt.thinking()),
        **at_budget(handle, items, seed),
    }
    if handle.partner is None:
        (intervention,) = handle.interventions
        assert isinstance(intervention.what, Add) and isinstance(intervention.what.source, Direction)
        vector = intervention.what.source
        for name, other in (("sign flipped", vector.flipped()), ("random direction", vector.random_like(seed))):
            instead = replace(intervention, what=Add(other))
            out[name] = replace(handle, method=name, interventions=(instead,), options={})
            if (nats := handle.options["found"].get("kl")) is not None:
                plan = at_kl(handle.model.lm, (instead,), nats, plain_texts(handle.model))
                out[name] = with_side_effects(replace(out[name], interventions=plan))
        return out
    decoder, partner = handle.decoder, handle.partner
    assert isinstance(decoder, Hybrid)
    # A gate without a thinking model was fitted with one, which is the ceiling all the same.
    asked = handle.options["asked"]
    thinking = partner.model or _thinking(handle.model, asked["partner"])
    own = _own_prompt(handle.model, thinking, asked.get("partner_prompt", ""), items)
    ceiling = replace(plain, method=THINKING, prompt=own or plain.prompt)
    if isinstance(thinking, Model):
        out[THINKING] = replace(ceiling, model=thinking)
    else:
        out[THINKING] = replace(ceiling, adapter=thinking)

    def exchanged(control: str, **more: Any) -> Elicited:
        return replace(handle, method=control, decoder=replace(decoder, control=control, **more), options={})

    steered = handle.options["found"]["steered"]
    for number in range(RANDOM):
        out[f"random vectors {number}"] = exchanged("random-vector", share=steered, seed=draw_seed(seed, number))
    if len(partner.vectors) > 1:
        out["permuted categories"] = exchanged("permuted-category", share=steered, seed=seed)
        out["random categories"] = exchanged("random-category", share=steered, seed=seed)
    if partner.bias is not None:
        out["bias alone"] = exchanged("bias", share=steered)
    if decoder.select == "likelihood":
        for name, vectors in _other_vectors(partner, seed).items():
            decliner = replace(partner, vectors=vectors, bias=None)
            out[name] = replace(handle, method=name, partner=decliner, options={})
    took = handle.options["found"]["dev"]["by_candidate"]
    often = [took.get(str(number), 0.0) for number in range(1, len(decoder.candidates) + 1)]
    out["random positions"] = exchanged(
        "random-position", share=steered, seed=seed, often=tuple(often) if len(often) > 1 and any(often) else ()
    )
    out["random candidates"] = exchanged("random-candidate", seed=seed)
    if decoder.asks(partner):
        out["token substitution"] = exchanged("substitution")
        if differs := handle.options["found"]["dev"]["differs"]:
            out["as many tokens substituted"] = exchanged(
                "some-substitution", share=min(1.0, steered / differs), seed=seed
            )
        out["mixed logits"] = exchanged("mixing")
    return out


def _other_vectors(partner: HybridSteering, seed: int) -> dict[str, dict[int, Direction]]:
    """In place of each category's vector with the bias: a random one, and, where there are several, the next
    category's; as long."""
    bias = 0.0 if partner.bias is None else partner.bias.vector
    whole = {c: replace(d, vector=d.vector + bias) for c, d in partner.vectors.items()}
    out = {"random vectors, may decline": {c: d.random_like(draw_seed(seed, c)) for c, d in whole.items()}}
    if len(whole) > 1:
        following = dict(zip(whole, [*whole.values()][1:] + [*whole.values()][:1], strict=True))
        others = {c: replace(following[c], vector=following[c].unit * d.length) for c, d in whole.items()}
        out["permuted categories, may decline"] = others
    return out


def notes(options: Mapping[str, Any]) -> list[str]:
    """What was found, and what the gate is worth."""
    found, asked = options["found"], options["asked"]
    out = [
        f"Thinking model {asked['partner']}; {found['sentences']} sentences of {found['texts']} answers in "
        f"{found['categories']} categories ({asked['taxonomy']}, read as {asked['reading']!r} at layer "
        f"{found['layer']}; two halves of the texts agree to {found['agreement']:.2f}).",
        f"On dev: base {found['dev']['base']:.0%}, thinking model {found['dev']['thinking']:.0%}.",
    ]
    if (classifier := found.get("classifier")) is not None:
        out.append(
            f"The category of a token is right for {classifier['accuracy']:.0%} of held-out tokens (the most frequent "
            f"category: {classifier['most_frequent']:.0%})."
        )
    if (gate := found.get("distilled")) is not None:
        out.append(
            f"The distilled gate: AUROC {gate['auroc']:.2f}, fires at {gate['fires']:.1%} where the models differ at "
            f"{gate['differs']:.1%} of positions, calibration error {gate['calibration_error']:.3f}."
        )
    if (tried := found.get("tried")) is not None:
        out.append(
            f"Coefficients on dev: {', '.join(f'{c} {right:.0%}' for c, right in tried.items())}; the best is used."
        )
    if (heads := found.get("heads")) is not None:
        apart = "texts" if all("held_out_texts" in h for h in heads.values()) else "positions of the same texts"
        told = ", ".join("none" if h["held_out_r2"] is None else f"{h['held_out_r2']:.2f}" for h in heads.values())
        out.append(
            f"The coefficient is predicted from the base's own activation; R² a category on held-out {apart}: {told}."
        )
    return out


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: a card a category; of one behaviour's vector how often the behaviour appears."""
    from elicit.methods.vector_transfer.behaviour_rates import figure
    from probes.figures import table

    found = options["found"]
    rows = [
        (c["name"] or c["label"], c["size"], ", ".join(c["words"]), " / ".join(t.strip() for t in c["typical"][:3]))
        for c in found["cards"]
    ]
    out: list[Any] = ["<h2>Categories</h2>", table(CARD_HEAD, rows, prose=True)]
    if "rates" in found:
        note = (
            "Fractions of sentences and of tokens that the thinking model, reading the answers unsteered, takes for "
            "this category; mean over dev questions, 95% intervals. The dotted line is the base's fraction of "
            "sentences. Which strength to take, and whether the answers are still right, is in the table."
        )
        rates = [
            (arm, f"{r['sentences']:.2f}", f"{r['tokens']:.2f}", f"{r['right']:.2f}", f"{r['length']:.0f}")
            for arm, r in found["rates"].items()
        ]
        out += [("How often the behaviour appears", note, figure(found["rates"], options["asked"]["behaviour"]))]
        out.append(table(("arm", "of sentences", "of tokens", "right", "tokens an answer"), rates))
    return out


def findings(run: Run) -> list[str]:
    """For the report: of each arm the fraction of the gap to the thinking model, the tokens steered, the
    teacher leak."""
    from elicit.methods.vector_transfer.hybrid_stats import GAP_HEAD, gap_rows
    from probes.figures import noted, table

    rows, effects = gap_rows(run, THINKING), side_effect_sections(run.metrics)
    if not rows:
        return effects

    note = (
        "The gap is that between direct and the thinking model; copied: tokens that are the thinking model's own "
        "choice, of all and where the two differ. Emitting its token at every difference recovers all by construction."
    )
    return ["<h2>The gap to the thinking model</h2>", noted(note), table(GAP_HEAD, rows), *effects]
