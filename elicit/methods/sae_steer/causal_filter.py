"""From scores to a feature: candidates from the fit split, each steered on the dev split (the causal filter)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.run.run import Run
from elicit.evaluation.strength_sweep import UNSTEERED
from elicit.methods.sae_steer.contrast import ContrastActivations, Text
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from probes.errors import UserError
from probes.sae.autoencoder import SAE, Feature
from probes.sae.scores import REASONING_WORDS, Firing, Scores, both, contrast, firing, reason_score, word_windows
from steering.interventions import Add, Intervention, ScaleFeature, SetFeature, When

FINDS = {
    "contrast": "fires more with the instruction than without, where the first token is chosen",
    "reason": "ReasonScore: fires around reasoning words, over many of them",
    "both": "high in both",
}
CHANGES: dict[str, Any] = {"add": Add, "set": SetFeature, "scale": ScaleFeature}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A feature with what its scores were read from."""

    sae: SAE
    index: int
    score: float
    firing: Firing
    activations: ContrastActivations

    @property
    def name(self) -> str:
        return f"{self.sae.site.layer}/{self.index}"

    def feature(self) -> Feature:
        """The feature with its largest activation and the residual stream's norm, both over the thoughts that were
        read.

        Raises:
            UserError: a feature that never fires there, so that its maximum is no unit.
        """
        maximum = float(self.firing.maximum[self.index])
        if maximum <= 0:
            raise UserError(
                f"feature {self.index} of {self.sae.name!r} fires at none of {self.firing.positions} positions, so a "
                "strength in its maxima has no size; give another feature, or a strength in unit resid"
            )
        return self.sae.feature(self.index, maximum, self.activations.resid_norm)

    def intervention(self, strength: float, *, unit: str, change: str, when: When) -> Intervention:
        return Intervention(CHANGES[change](self.feature()), strength, unit, when)


def score(
    how: str,
    sae: SAE,
    activations: ContrastActivations,
    thoughts: Sequence[Text],
    words: Sequence[str] = REASONING_WORDS,
) -> Scores:
    """All features by one of `FINDS`.

    Raises:
        UserError: prompts without a difference, none of the words in the thoughts.
    """
    by_contrast = contrast(sae, activations.positive, activations.negative) if how != "reason" else None
    if how == "contrast":
        assert by_contrast is not None
        return by_contrast
    tables, found = word_windows([text.tokens for text in thoughts], words)
    by_words = reason_score(sae, activations.thoughts, activations.labels(tables))
    by_words.about["found"] = found
    return by_words if by_contrast is None else both(by_contrast, by_words)


def candidates(
    how: str,
    saes: Sequence[SAE],
    by_site: dict[Any, ContrastActivations],
    thoughts: Sequence[Text],
    count: int,
    words: Sequence[str],
) -> list[Candidate]:
    """The best `count` features of each SAE.

    Raises:
        UserError: as `score`; no feature with a score above 0.
    """
    out = []
    for sae in saes:
        activations = by_site[sae.site]
        found = score(how, sae, activations, thoughts, words)
        fires = firing(sae, activations.thoughts)
        top = found.top(count)
        if not top:
            raise UserError(f"no feature of {sae.name!r} has a {found.name} score above 0; give other prompts or words")
        out += [Candidate(sae, i, float(found.values[i]), fires, activations) for i in top]
    return out


@dataclass(frozen=True)
class Choice:
    """What the dev items chose, and the table that it was chosen from."""

    candidate: Candidate
    strength: float
    when: str
    accuracy: float
    rows: list[dict[str, Any]]
    run: Path


def choose(
    model: Model,
    dev: Items,
    tried: Sequence[Candidate],
    strengths: Mapping[str, Sequence[float]],
    whens: Sequence[str],
    *,
    unit: str,
    change: str,
    prompt: Prompt,
    max_new_tokens: int,
    seed: int,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Steer every candidate at each of its strengths and at every time on the dev items; the most accurate wins.

    Of equals the one that says less wins, then the weaker intervention, then the better score. One resumable run.

    Raises:
        UserError: a time twice, or strengths of one candidate that are the same to six digits.
    """
    base = Elicited(model, UNSTEERED, prompt, Greedy(max_new_tokens))
    arms: dict[str, Elicited] = {}
    rows: list[dict[str, Any]] = []
    made: list[tuple[Candidate, str, float]] = []
    for one in tried:
        for when in whens:
            for strength in strengths[one.name]:
                plan = (one.intervention(strength, unit=unit, change=change, when=When.parse(when)),)
                arms[f"{one.name} × {strength:g} {when}"] = replace(base, method="sae-search", interventions=plan)
                made.append((one, when, strength))
    if len(arms) < len(made):
        given = {name: [f"{x:g}" for x in some] for name, some in strengths.items()}
        raise UserError(f"times {list(whens)} and strengths {given} were given; give distinct ones")
    run = evaluate(base, dev, against=arms, out=out, seed=seed, progress=progress)
    for (one, when, strength), name in zip(made, arms, strict=True):
        found = {"layer": one.sae.site.layer, "feature": one.index, "score": one.score, "when": when}
        rows.append({**found, "strength": strength, **_measured(run, name)})
    best = min(range(len(rows)), key=lambda i: (-rows[i]["accuracy"], rows[i]["tokens"], abs(rows[i]["strength"]), i))
    chosen, when, strength = made[best]
    every = [{"strength": 0.0, **_measured(run, UNSTEERED)}, *rows]
    return Choice(chosen, strength, when, rows[best]["accuracy"], every, run.folder)


def _measured(run: Run, arm: str) -> dict[str, Any]:
    found = run.metrics["arms"][arm]
    return {"accuracy": found["accuracy"], "interval": found["interval"], "tokens": found["tokens_per_item"]}
