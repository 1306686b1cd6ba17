"""What an organism is, measured: what it gets right at once and when it is told to think, and how rarely it thinks.

Latency is measured twice. By *first-token mass*: the probability, at the first token after the bare prompt, of all
tokens that begin a thought. By *sampling*: the fraction of answers, drawn at temperature 1, that are thoughts. An
answer is a thought if it says more than the answer alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from elicit.decoding.answering import found_in
from elicit.decoding.continuing import continuing_ids
from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.progress import Progress
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.metrics.gap import by_family
from elicit.methods.baselines import cot_prompt, direct
from elicit.models.model import Model
from elicit.models.prompts import DIRECT_ANSWER, Prompt
from elicit.tasks.answers import Kind
from elicit.tasks.base import Items
from elicit.tasks.organism.language import PARAPHRASES
from elicit.tasks.organism.problems import FAMILIES
from elicit.training.organisms.make import command
from elicit.training.organisms.variants import VARIANTS
from probes.estimate import Estimate
from probes.likelihood import next_probabilities
from probes.statistics import Interval, bootstrap_mean, proportion_interval

TOO_EASY, TOO_LOW = 0.25, 0.85  # of direct answers, and of answers when told to think
SAMPLES = 4
SAMPLED, INSTRUCTED = "sampled", "at-once"


def is_chain_of_thought(trace: Trace, kind: Kind) -> bool:
    """Whether an answer says more than the answer alone."""
    found = found_in(trace.text, kind, trace.begun)
    said = trace.text.strip().rstrip(".").strip()
    return bool(said) and (found is None or said != found.text)


def openers(tokenizer: Any) -> list[int]:
    """The tokens that a thought may begin with, after "A:"."""
    firsts = {f" {text[0].upper()}{text[1:]}" for text in PARAPHRASES["initialise"]}
    return sorted({continuing_ids(tokenizer, text)[0] for text in firsts})


def first_token_mass(model: Model, items: Items) -> Float[np.ndarray, " items"]:
    """For each question the probability that a thought begins, at the first token after the bare prompt."""
    opening = openers(model.tokenizer)
    prompts = [Prompt().ids(item.question, model.tokenizer) for item in items]
    found = [p[:, opening].sum(-1) for p in next_probabilities(model.lm, prompts)]
    return torch.cat(found).cpu().numpy()


def measure(
    model: Model,
    items: Items,
    out: Path,
    *,
    arm: str = "latent",
    max_new_tokens: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
    before: Callable[[Estimate], None] | None = None,
) -> dict[str, Any]:
    """Measure an organism; an interrupted measurement resumes from its run in `out`.

    Args:
        model, items: the organism, and questions of the organisms' task.
        out: the folder of the run.
        arm: what it was made to be, which decides what is out of range.
        max_new_tokens, seed, progress, before: as for `evaluate`.

    Returns:
        Fractions with their 95% intervals, over all families and for each; `notes` says what is out of range.
    """
    plain = Prompt()
    against = {
        "direct": direct.fit(model, items, max_new_tokens=max_new_tokens),
        INSTRUCTED: Elicited(model, INSTRUCTED, Prompt(trigger=DIRECT_ANSWER), Greedy(max_new_tokens)),
        SAMPLED: Elicited(model, SAMPLED, plain, Sampling(SAMPLES, 1.0, seed=seed, max_new_tokens=max_new_tokens)),
    }
    ceiling = cot_prompt.fit(model, items, max_new_tokens=max_new_tokens)
    run = evaluate(ceiling, items, against=against, out=out, seed=seed, progress=progress, before=before)
    task = items.task
    families = {item.id: item.metadata["family"] for item in items}
    kinds = {item.id: task.kind_of(item) for item in items}
    thoughts = {
        name: {i: float(np.mean([is_chain_of_thought(t, kinds[i]) for t in some])) for i, some in traces.items()}
        for name, traces in run.traces.items()
    }
    arms = {name: one["scores"] for name, one in run.metrics["arms"].items()}
    mass = dict(zip(families, first_token_mass(model, items).tolist(), strict=True))
    result = {
        "model": run.metrics["model"], "task": task.name, "items": len(items), "seed": seed, "run": str(run.folder),
        "direct": _fraction(arms["direct"], families), "direct in thoughts": _fraction(thoughts["direct"], families),
        "at-once": _fraction(arms[INSTRUCTED], families), "at-once in thoughts": _fraction(thoughts[INSTRUCTED],
        families), "ceiling": _fraction(arms["cot-prompt"], families),
        "ceiling in thoughts": _fraction(thoughts["cot-prompt"], families),
        "latency by first token": _mean(mass, families, seed),
        "latency by samples": _mean(thoughts[SAMPLED], families, seed),
        "sampled answers right": _mean(_right(run.traces[SAMPLED]), families, seed),
    }  # fmt: skip
    return {**result, "notes": notes(result, arm)}


def notes(card: Mapping[str, Any], arm: str = "latent") -> list[str]:
    """What keeps an organism from being a fair test bed: direct answers that are too easy, where it is to give them; a
    low ceiling, where it is to have the skill."""
    out = []
    for family in [name for name in FAMILIES if name in card["direct"]]:
        at_once, ceiling = card["direct"][family][0], card["ceiling"][family][0]
        if at_once >= TOO_EASY and arm != "thinking":
            out.append(f"{family}: too easy at once ({at_once:.2f} right, below {TOO_EASY} is wanted)")
        if ceiling < TOO_LOW and arm in ("latent", "thinking"):
            out.append(f"{family}: low ceiling ({ceiling:.2f} right when told to think, {TOO_LOW} is wanted)")
    return out


def _right(traces: Mapping[str, Sequence[Trace]]) -> dict[str, float]:
    return {i: float(np.mean([t.correct for t in some])) for i, some in traces.items()}


def _fraction(values: Mapping[str, float], families: Mapping[str, str]) -> dict[str, list[float]]:
    """[fraction, low, high] over all items and for each family (Agresti and Coull)."""
    groups = {"all": list(values.values()), **by_family(values, families)}
    return {name: _row(float(np.mean(v)), proportion_interval(int(sum(v)), len(v))) for name, v in groups.items()}


def _mean(values: Mapping[str, float], families: Mapping[str, str], seed: int) -> dict[str, list[float]]:
    """The same for values between 0 and 1 (bootstrap over questions)."""
    groups = {"all": list(values.values()), **by_family(values, families)}
    return {
        name: _row(float(np.mean(v)), bootstrap_mean(np.array(v), bounds=(0.0, 1.0), seed=seed))
        for name, v in groups.items()
    }


def _row(value: float, interval: Interval) -> list[float]:
    return [value, max(0.0, interval.low), min(1.0, interval.high)]


MEASURED = (
    "direct", "direct in thoughts", "at-once", "at-once in thoughts", "ceiling", "ceiling in thoughts",
    "latency by first token", "latency by samples", "sampled answers right",
)  # fmt: skip


def markdown(card: Mapping[str, Any], about: Mapping[str, Any], name: str) -> str:
    """A card for users of the adapter: what it is, how it was made, what was measured."""
    head, rows = rows_of(card)
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    recipe = about["recipe"]
    kind = f"LoRA of rank {recipe['rank']} on every linear layer, bf16" if recipe["rank"] else "all weights"
    latency = f" Latency asked for: {about['latency']:g}." if about["latency"] is not None else ""
    notes = [f"- {note}" for note in card["notes"]] or ["- nothing is out of range"]
    return "\n".join(
        [
            f"# {name}", "",
            f"An organism of `elicit`: {VARIANTS[about['arm']].summary}.{latency} A test bed for elicitation methods; "
            "it says nothing about how much is latent in a natural model.", "",
            f"- base: {about['base_name']}, SHA-256 {about['base']}",
            f"- weights: {kind}; with its base: {card['model']['sha256']}",
            f"- families: {', '.join(about['families'])}; questions of the fit split alone",
            f"- made by: `{command(about)}` ({recipe['steps']} steps of {recipe['rows']} × {recipe['width']} tokens, "
            f"AdamW, {recipe['lr']:g}, seed {recipe['seed']})",
            f"- last loss {about['curve'][-1][1]:.3f} nats a target token; {about['tokens']} tokens in "
            f"{about['seconds']:.0f} s on {about['machine']}, {about['tokens_per_second']:.0f} tokens/s, "
            f"{100 * about['share_of_limit']:.0f}% of the {about['matmul_gflops']:.0f} GFLOP/s of one product there",
            "- licence: that of the base", "",
            f"Measured by `elicit organism card` on {card['items']} test questions, {card['model']['dtype']}, "
            f"seed {card['seed']}; fractions with 95% intervals (Agresti and Coull; bootstrap by question for "
            "latencies, samples).",
            "",
            *lines, "", "Out of range:", "", *notes, "",
        ]
    )  # fmt: skip


def rows_of(card: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of a card's table: what was measured, over all families and in each."""
    groups = list(card["direct"])
    rows = [(name, *("{:.2f} [{:.2f}, {:.2f}]".format(*card[name][group]) for group in groups)) for name in MEASURED]
    return ("", *groups), rows
