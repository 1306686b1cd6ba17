"""`sae-steer`: steer along one feature of a sparse autoencoder (arXiv 2601.08058; ReasonScore, arXiv 2503.18878).

h' = h + dec(z') − dec(z) at one site: the SAE's error term is kept. A feature is found on the fit split (`find`), its
strength, its time and the feature itself are chosen on the dev split by steering (the causal filter), and what was
chosen is evaluated once on test.

Where the papers are silent or differ:
- Strength is in multiples of the feature's largest activation over prompts with the instruction and the model's own
  answers to them (`feature_max`), or of the residual stream's median norm (`resid`); both are recorded. The reference
  adds α·|pre-activation| of the feature itself, so that a silent one hardly moves.
- `steps:8` acts on the first eight generated tokens; the reference's `steer_n_steps=n` acts on the n-th alone.
- Contrasted prompts end in the same tokens: the instruction goes with the question, so that what is read at the last
  prompt token is not that token.
- Before anything is steered the SAE must describe this model at this position (`probes.sae.card.fit_check`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.run.run import Run
from elicit.evaluation.seen import SEEN, seen
from elicit.evaluation.side_effects import side_effect_sections, with_side_effects
from elicit.methods.base import Work, check_own
from elicit.methods.baselines import cot_prompt, direct
from elicit.methods.baselines.at_budget import at_budget
from elicit.models import zoo
from elicit.models.model import Model
from elicit.models.prompts import THINK, prompt_for
from elicit.tasks.base import Items

NAME = "sae-steer"
SUMMARY = "steer along one feature of a sparse autoencoder"
PAPER = "2601.08058"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
RANDOM = 5
QUICK = {"candidates": 3, "strengths": "2,4", "dev": 16, "read": 32}
FIRST_TOKENS = ("To", "Step")
CONTROLS = RANDOM + len(FIRST_TOKENS) + 9


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    sae: str = "",
    feature: int = -1,
    find: str = "contrast",
    instruction: str = THINK,
    words: str = "",
    candidates: int = 6,
    strengths: str = "1,2,4",
    unit: str = "feature_max",
    change: str = "add",
    when: str = "last-prompt-token",
    dev: int = 32,
    read: int = 64,
    step: int = 0,
    checked: bool = True,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
    kl: str = "",
) -> Elicited:
    """Find a feature on fit items, and choose it, its strength and its time on dev items.

    Args:
        model: the base.
        items: items of a task; its fit and dev splits are used and its test split is not.
        progress: reports the search.
        sae: names, folders or releases of SAEs, joined by commas; the one shipped for the model unless given.
            An id of Neuronpedia's may name the feature too: `neuronpedia:model/source/feature`.
        feature: this feature instead of the search for one (−1).
        find: `contrast`, `reason` (ReasonScore) or `both`.
        instruction: what the contrasted prompts are asked with and without.
        words: of ReasonScore, joined by commas; `probes.sae.scores.REASONING_WORDS` unless given.
        candidates: how many features of each SAE are steered on dev.
        strengths: joined by commas.
        unit: of the strengths: `feature_max`, `resid` or `raw`.
        change: `add`, `set` or `scale`.
        when: `last-prompt-token`, `steps:8`, `every-step`, `decaying:0.9`; several joined by commas are all tried.
        dev, read: how many dev items a candidate is tried on, and how many fit items it is sought on.
        step: where prompts are contrasted: 0 the last prompt token, 1 the first generated one.
        checked: refuse an SAE that does not describe the model where it is steered.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.
        kl: instead of `strengths`, budgets in nats, joined by commas: each candidate is tried at the strength that
            reaches each (`steering.strength`), and each control stands at its own strength for the one that was chosen.
            The side effects of all of them are in the run then.

    Raises:
        UserError: no SAE for the model, one that does not fit it, a contrast without a difference, unknown names.
    """
    from elicit.methods.sae_steer import pipeline
    from elicit.methods.sae_steer.options import Search
    from probes.sae.neuronpedia import with_feature

    sae, feature = with_feature(sae, feature)
    options = Search(
        sae, feature, find, instruction, words, candidates, strengths, unit, change, when, dev, read, step, checked,
        max_new_tokens, seed, kl,
    )  # fmt: skip
    put = prompt_for(model, prompt, items)
    found = pipeline.search(model, items, put, options, progress)
    assert items is not None  # the search refuses none
    fitted, chosen = items.task.split("fit")[:read], items.task.split("dev")[:dev]
    kept = {"prompt": prompt, "asked": vars(options), "found": found.record, SEEN: seen(fitted, chosen)}
    handle = Elicited(
        model, NAME, put, Greedy(max_new_tokens), interventions=(found.intervention,), options=kept, fitted=found.on
    )
    return with_side_effects(handle) if kl else handle


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The answers that are read, and those of every candidate on dev, as long as those that are asked to think."""
    put = prompt_for(model, options["prompt"], items)
    asked = Elicited(model, NAME, put.asked(options["instruction"]), Greedy(options["max_new_tokens"]))
    strengths, whens = ((options[key]).split(",") for key in ("kl" if options["kl"] else "strengths", "when"))
    tried = 1 + (1 if options["feature"] >= 0 else options["candidates"]) * len(strengths) * len(whens)
    return Work(asked, [(asked, options["read"] + tried * options["dev"])], controls=(CONTROLS, 0))


def missing(model: str) -> str:
    """Why it has no default on this model; "" where an SAE comes with the model."""
    return "" if zoo.saes_for(model) else f"no SAE comes with {model!r}"


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """What the intervention is compared with, each as large and at the same place and time.

    `RANDOM` features that fire as often, the difference of means, the sign flipped, the best feature of a contrast that
    has nothing to do with reasoning, the first token forced (to usual openings, and to the word that steering makes
    likeliest), direct and chain-of-thought, also with the same tokens, and chain-of-thought with the intervention.

    Raises:
        UserError: a handle of another method.
    """
    check_own(handle, NAME)
    from elicit.methods.sae_steer import pipeline

    plain = replace(handle, interventions=(), options={}, fitted=None)
    thinking = replace(plain, prompt=plain.prompt.thinking())
    out = {
        direct.NAME: replace(plain, method=direct.NAME),
        cot_prompt.NAME: replace(thinking, method=cot_prompt.NAME),
        "cot-prompt + push": replace(thinking, method="cot-prompt + push", interventions=handle.interventions),
    }
    for name, intervention in pipeline.matched(handle, items, RANDOM, seed).items():
        out[name] = replace(plain, method=name, interventions=(intervention,))
    if "kl" in handle.options["found"]:
        out = {name: with_side_effects(one) if one.interventions else one for name, one in out.items()}
    for words in filter(None, dict.fromkeys([*FIRST_TOKENS, handle.options["found"]["opening"]])):
        name = f"begins {words!r}"
        out[name] = replace(plain, method=name, prompt=replace(plain.prompt, begin=words))
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """Which feature was steered along, how it was chosen, what it did to the SAE's own reading, and what speaks
    against the feature."""
    found, asked = options["found"], options["asked"]
    did, card = found["delivered"], found["falsification"]
    unsteered, *tried = found["search"]
    against = "; ".join(card["verdict"])
    budget = f" Strengths reach {found['kl']:g} nats on plain text, each control's own too." if "kl" in found else ""
    page = f" Its page: {found['neuronpedia']}." if "neuronpedia" in found else ""
    return [
        f"Feature {found['feature']} of {found['sae']}, layer {found['layer']}: {asked['change']} "
        f"{found['strength']:g} {asked['unit']} at {found['when']}, {did['share of the stream']:.2f} of the residual "
        f"stream's norm; its largest activation is {found['maximum']:.1f}, it fires at {found['density']:.1%} of "
        f"positions.{page}",
        f"Chosen on dev among {len(tried)} interventions: {found['dev_accuracy']:.0%} right, unsteered "
        f"{unsteered['accuracy']:.0%}.{budget}",
        f"Read by the SAE it goes from {did['value before']:.1f} to {did['value after']:.1f}; of the other features "
        f"{did['silenced']:.1f} fall silent and {did['woken']:.1f} wake.",
        f"Against its being a feature of reasoning: {against}."
        if against
        else "It survives paraphrase, other templates, irrelevant instructions and injected tokens.",
    ]


def findings(run: Run) -> list[str]:
    """For the report: what each arm does beside what it is for, where the strength was found by KL."""
    return side_effect_sections(run.metrics)


def report_sections(options: Mapping[str, Any]) -> list[str]:
    """For the report: all that was tried on dev, best first."""
    from elicit.evaluation.metrics.format import with_interval
    from probes.figures import table

    rows = sorted(options["found"]["search"], key=lambda row: -row["accuracy"])
    shown = [
        (
            row.get("layer", ""), row.get("feature", "unsteered"), row.get("when", ""), f"{row['strength']:g}",
            with_interval(row["accuracy"], row["interval"]), f"{row['tokens']:.0f}",
        )
        for row in rows
    ]  # fmt: skip
    head = ("layer", "feature", "when", options["asked"]["unit"], "accuracy on dev [95%]", "tokens")
    return ["<h2>The search</h2>", table(head, shown)]
