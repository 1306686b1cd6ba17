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
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.methods.base import check_own
from elicit.methods.baselines import cot_prompt, direct
from elicit.methods.vector_transfer.options import BETWEEN, GATES, MODES, NAME
from elicit.models import zoo
from elicit.models.model import Model, load_model
from elicit.models.prompts import Prompt, prompt_for
from elicit.tasks.base import Items
from probes.errors import UserError, unknown
from steering.adapters import CONFIG, Adapter
from steering.directions import Direction
from steering.interventions import Add

if TYPE_CHECKING:
    from elicit.evaluation.run.run import Run

SUMMARY = "a thinking model decides when its base is steered, by a vector a behaviour"
PAPER = "2510.07364"
MODEL = "smollm2-135m-latent"
THINKING = "thinking model"
CARD_HEAD = ("category", "sentences", "telling words", "typical sentences")
RANDOM = 5
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
        taxonomy, reading: see `steering.categories.taxonomy.KINDS` and `steering.categories.sentences.POOLINGS`.
        vectors: `between` (thinking model − base), `means` (within the base) or `optimised`.
        coefficients: of the candidates: of the trained vector for `optimised`, else in norms of the residual stream; or
            `head`. Without an oracle one of them is chosen on dev items.
        windows: how many of the last positions a candidate steers.
        gate: `oracle`, `probe` or `entropy`.
        mode: `hybrid`, or `static`: one vector at every step.
        behaviour: the category whose vector `static` adds.
        read, dev: how many fit and dev items are used.
        checked: refuse a thinking model that is no better than the base.
        prompt, max_new_tokens, seed: as for the other methods.
        partner_prompt: how the thinking model is asked, by name; unless given as the base is.

    Raises:
        UserError: no partner, one that does not match or does not fit into memory, nothing to recover, too few
            sentences, unknown names.
    """
    from elicit.methods.vector_transfer.pipeline import fit_transfer
    from steering.categories.sentences import parts_of
    from steering.categories.taxonomy import KINDS as TAXONOMIES
    from steering.categories.vectors import KINDS as VECTORS

    if items is None:
        raise UserError("vector-transfer reads the fit and dev items of a task; give items")
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
        checked=checked, max_new_tokens=max_new_tokens, seed=seed,
    )  # fmt: skip
    if partner_prompt:
        options["partner_prompt"] = partner_prompt
    thinking = _thinking(model, name)
    own = _own_prompt(model, thinking, partner_prompt, items)
    made = fit_transfer(model, thinking, items, prompt_for(model, prompt, items), options, progress, own)
    kept = {"prompt": prompt, "asked": options, "found": made.record}
    return replace(made.handle, options=kept)


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
    """The thinking model itself, and the same decoding with one thing exchanged, at the same norm.

    Raises:
        UserError: a handle of another method.
    """
    check_own(handle, NAME)
    plain = replace(handle, interventions=(), partner=None, decoder=Greedy(handle.decoder.max_new_tokens), options={})
    out = {
        direct.NAME: replace(plain, method=direct.NAME),
        cot_prompt.NAME: replace(plain, method=cot_prompt.NAME, prompt=plain.prompt.thinking()),
    }
    if handle.partner is None:
        (intervention,) = handle.interventions
        assert isinstance(intervention.what, Add) and isinstance(intervention.what.source, Direction)
        vector = intervention.what.source
        for name, other in (("sign flipped", vector.flipped()), ("random direction", vector.random_like(seed))):
            instead = replace(intervention, what=Add(other))
            out[name] = replace(handle, method=name, interventions=(instead,), options={})
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

    for number in range(RANDOM):
        out[f"random vectors {number}"] = exchanged("random-vector", seed=seed + number)
    if len(partner.vectors) > 1:
        out["permuted categories"] = exchanged("permuted-category", seed=seed)
        out["random categories"] = exchanged("random-category", seed=seed)
    if partner.bias is not None:
        out["bias alone"] = exchanged("bias")
    if steered := handle.options["found"]["steered"]:
        out["random positions"] = exchanged("random-position", share=steered, seed=seed)
    out["random candidates"] = exchanged("random-candidate", seed=seed)
    if decoder.asks(partner):
        out["token substitution"] = exchanged("substitution")
        if steered and (differs := handle.options["found"]["dev"]["differs"]):
            out["as many tokens substituted"] = exchanged(
                "some-substitution", share=min(1.0, steered / differs), seed=seed
            )
        out["mixed logits"] = exchanged("mixing")
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
        told = ", ".join("none" if h["held_out_r2"] is None else f"{h['held_out_r2']:.2f}" for h in heads.values())
        out.append(
            f"The coefficient is predicted from the base's own activation; R² a category on held-out positions: {told}."
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
    from probes.figures import table

    rows = gap_rows(run, THINKING)
    if not rows:
        return []

    note = (
        "The gap is that between direct and the thinking model; copied: tokens that are the thinking model's own "
        "choice, of all and where the two differ. Emitting its token at every difference recovers all by construction."
    )
    return ["<h2>The gap to the thinking model</h2>", f"<p class='note'>{note}</p>", table(GAP_HEAD, rows)]
