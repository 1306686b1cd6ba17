"""Trying a direction: one plan at several strengths, beside the unsteered model and matched random directions.

Every strength is an arm of an ordinary run, so it resumes, is paired by question, and has its manipulation check.
`dose` then measures what steering is known to cost: the perplexity that the unsteered model gives to the steered
answers, and the fraction of answers that degenerate (empty, or with seq-rep-4 above a half; arXiv 1908.04319).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.run import Run
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.tasks.free_text import Ungraded
from probes.errors import UserError
from probes.estimate import Estimate
from probes.likelihood import mean_losses, repeated_fraction
from probes.statistics import paired, proportion_interval
from steering.directions import Direction
from steering.interventions import Add, Intervention, Plan, When

UNSTEERED = "unsteered"
DRAWS = 1_000  # seeds between the random directions of two sites
DEGENERATE = 0.5  # of an answer's 4-grams came before in it


@dataclass(frozen=True)
class Series:
    """A plan whose strength is varied, under a name; `control` marks what it is compared with."""

    name: str
    plan: Plan
    control: bool = False

    def at(self, strength: float) -> Plan:
        return tuple(one.times(strength) for one in self.plan)


def series_of(direction: Direction, *, when: When, unit: str = "resid", controls: int = 3) -> list[Series]:
    """A direction and `controls` random directions of its site and length, at strength 1."""
    return with_controls(Series(direction.name, (Intervention(Add(direction), 1.0, unit, when),)), controls)


def with_controls(series: Series, controls: int) -> list[Series]:
    """A series, and the same with random directions of the same sites and lengths in place of its own, another at each
    site: one direction in several layers would add up as no random one does.

    Raises:
        UserError: controls are asked for and the plan does something else than add directions.
    """
    out = [series]
    places = list(dict.fromkeys(str(one.home) for one in series.plan))
    for seed in range(controls):
        plan = []
        for one in series.plan:
            if not isinstance(one.what, Add) or not isinstance(one.what.source, Direction):
                raise UserError(f"a random direction cannot take the place of {one.kind!r}; ask for no random ones")
            drawn = one.what.source.random_like(seed + DRAWS * places.index(str(one.home)))
            plan.append(replace(one, what=Add(drawn)))
        out.append(Series(f"random {seed}", tuple(plan), control=True))
    return out


def sweep(
    model: Model,
    items: Items,
    series: Sequence[Series],
    strengths: Sequence[float],
    *,
    prompt: Prompt,
    max_new_tokens: int = 64,
    out: Path | str | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: Progress | None = None,
    before: Callable[[Estimate], None] | None = None,
) -> Run:
    """Greedy answers of the unsteered model and of every series at every strength, as one resumable run.

    `before` is called as `evaluate` calls it.

    Raises:
        UserError: a strength of 0 or twice the same, names that are not distinct, or that of what is not steered, a
            plan that does not fit the model.
    """
    if not strengths or 0 in strengths or len({f"{x:g}" for x in strengths}) < len(strengths):
        raise UserError(f"strengths {list(strengths)} were given; give distinct ones, without 0 (it is always there)")
    if len({s.name for s in series}) < len(series):
        raise UserError("two series have one name; give each its own")
    if UNSTEERED in (s.name for s in series):
        raise UserError(f"a series is named {UNSTEERED!r}, as what is not steered is; give it another name")
    base = Elicited(model, UNSTEERED, prompt, Greedy(max_new_tokens))
    arms = {
        arm_name(s.name, x): replace(base, method="steer", interventions=s.at(x)) for s in series for x in strengths
    }
    if out is None:
        keys = [base.decode_key, *(a.decode_key for a in arms.values()), *arms, *(i.id for i in items), str(seed)]
        digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]
        out = Path("runs") / f"steer-{items.task.name}-{Path(model.name).name}-{digest}"
    return evaluate(base, items, against=arms, out=out, seed=seed, fresh=fresh, progress=progress, before=before)


def arm_name(name: str, strength: float) -> str:
    """What a series at a strength is called in its run."""
    return f"{name} × {strength:g}"


def dose(run: Run, model: Model, items: Items, series: Sequence[Series], strengths: Sequence[float]) -> dict[str, Any]:
    """What each strength did: accuracy with its paired difference, tokens, perplexity, degeneration, perturbation.

    Kept as `dose.json` in the run's folder. `accuracy` is None for text without right answers, and where too many of
    them have no verdict: `stated` is False then, and `least` is the least that it may be.
    """
    graded = not isinstance(items.task.grader, Ungraded)
    unsteered = _scores(run, UNSTEERED, items)
    stated = {name: is_accuracy(one, len(items)) for name, one in run.metrics["arms"].items()}
    prompt = Prompt.from_dict(run.store.config["arms"][UNSTEERED]["prompt"])
    prompts = [prompt.ids(item.question, model.tokenizer) for item in items]
    rows = []
    for name, control, strength in [(UNSTEERED, False, 0.0)] + [
        (s.name, s.control, x) for s in series for x in strengths
    ]:
        arm = UNSTEERED if strength == 0 else arm_name(name, strength)
        traces = [run.traces[arm][item.id][0] for item in items]
        losses = mean_losses(
            model.lm, [p + t.tokens for p, t in zip(prompts, traces, strict=True)], [len(p) for p in prompts]
        )
        weights = [len(t.tokens) for t in traces]
        known = [(value, w) for value, w in zip(losses, weights, strict=True) if value is not None]
        mean = sum(v * w for v, w in known) / sum(w for _, w in known) if known else None
        row: dict[str, Any] = {
            "series": name,
            "control": control,
            "strength": strength,
            "tokens": float(np.mean([t.spent for t in traces])),
            "perplexity": math.exp(mean) if mean is not None else None,
            "degenerate": sum(not t.text.strip() or repeated_fraction(t.tokens) > DEGENERATE for t in traces),
            "repeated_share": float(np.mean([repeated_fraction(t.tokens) for t in traces])),
            "changed": sum(
                t.tokens != run.traces[UNSTEERED][i.id][0].tokens for t, i in zip(traces, items, strict=True)
            ),
            "n": len(traces),
            "push": float(np.mean([max(t.moved, default=0.0) for t in traces])),
            "accuracy": None,
            "stated": stated[arm],
        }
        if graded:
            scores = _scores(run, arm, items)
            interval = proportion_interval(int(scores.sum()), len(scores))
            if stated[arm]:
                row |= {"accuracy": float(scores.mean()), "interval": interval.pair}
            else:
                row |= {"least": float(scores.mean())}
            if stated[arm] and stated[UNSTEERED]:
                gain = paired(scores, unsteered, seed=run.metrics["seed"])
                row |= {"difference": gain.difference, "difference_interval": gain.interval.pair}
        rows.append(row)
    result = {"task": items.task.name, "model": model.describe(), "seed": run.metrics["seed"], "rows": rows}
    run.store.write("dose.json", json.dumps(result, indent=2))
    return result


def _scores(run: Run, arm: str, items: Items) -> np.ndarray:
    return np.array([float(run.traces[arm][item.id][0].correct) for item in items])
