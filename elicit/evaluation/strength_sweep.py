"""Trying a direction: one plan at several strengths, beside the unsteered model and matched random directions.

Every strength is an arm of an ordinary run, so it resumes, is paired by question, and proves its delivery. `dose` then
measures what steering is known to cost: the perplexity that the unsteered model gives to the steered answers, and
the share of answers that degenerate (empty, or with seq-rep-4 above a half; arXiv 1908.04319).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.run.run import Run
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Grade, Item, Items, Task
from probes.errors import UserError
from probes.figures import BLUE, MUTED, ORANGE, styled
from probes.likelihood import mean_losses, repeated_share
from probes.statistics import paired, wilson
from steering.directions import Direction
from steering.interventions import Add, Intervention, Plan, When

UNSTEERED = "unsteered"
DEGENERATE = 0.5  # of an answer's 4-grams came before in it
COLOURS = (BLUE, ORANGE)


class Ungraded:
    """The grader of free text: nothing is right or wrong."""

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(0.0)

    def groups(self, answers: Sequence[str]) -> list[int]:
        return [list(answers).index(a) for a in answers]


def free_text(texts: Sequence[str]) -> Items:
    """Prompts without a right answer, as items; put as they are with `Prompt("template", template="{question}")`.

    Raises:
        UserError: none, or an empty one.
    """
    if not texts or not all(text.strip() for text in texts):
        raise UserError("no prompt, or an empty one, was given; give text to go on from")
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
    items = tuple(Item(f"prompt-{i}", text, None, "test") for i, text in enumerate(texts))
    return Items(Task(f"text-{name}", items, Ungraded(), "text", {"family": "text"}), items)


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
    """A series, and the same with random directions of the same sites and lengths in place of its own.

    Raises:
        UserError: controls are asked for and the plan does something else than add directions.
    """
    out = [series]
    for seed in range(controls):
        plan = []
        for one in series.plan:
            if not isinstance(one.what, Add) or not isinstance(one.what.source, Direction):
                raise UserError(f"a random direction cannot take the place of {one.kind!r}; ask for no random ones")
            plan.append(replace(one, what=Add(one.what.source.random_like(seed))))
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
) -> Run:
    """Greedy answers of the unsteered model and of every series at every strength, as one resumable run.

    Raises:
        UserError: a strength of 0 or twice the same, names that are not distinct, a plan that does not fit the model.
    """
    if not strengths or 0 in strengths or len({f"{x:g}" for x in strengths}) < len(strengths):
        raise UserError(f"strengths {list(strengths)} were given; give distinct ones, without 0 (it is always there)")
    if len({s.name for s in series}) < len(series):
        raise UserError("two series have one name; give each its own")
    base = Elicited(model, UNSTEERED, prompt, Greedy(max_new_tokens))
    arms = {
        arm_name(s.name, x): replace(base, method="steer", interventions=s.at(x)) for s in series for x in strengths
    }
    if out is None:
        keys = [base.decode_key, *(a.decode_key for a in arms.values()), *(i.id for i in items), str(seed)]
        digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]
        out = Path("runs") / f"steer-{items.task.name}-{Path(model.name).name}-{digest}"
    return evaluate(base, items, against=arms, out=out, seed=seed, fresh=fresh, progress=progress)


def arm_name(name: str, strength: float) -> str:
    """What a series at a strength is called in its run."""
    return f"{name} × {strength:g}"


def dose(run: Run, model: Model, items: Items, series: Sequence[Series], strengths: Sequence[float]) -> dict[str, Any]:
    """What each strength did: accuracy with its paired difference, tokens, perplexity, degeneration, size of the push.

    Kept as `dose.json` in the run's folder. `accuracy` is None for text without right answers.
    """
    graded = not isinstance(items.task.grader, Ungraded)
    unsteered = _scores(run, UNSTEERED, items)
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
            "degenerate": sum(not t.text.strip() or repeated_share(t.tokens) > DEGENERATE for t in traces),
            "repeated_share": float(np.mean([repeated_share(t.tokens) for t in traces])),
            "changed": sum(
                t.tokens != run.traces[UNSTEERED][i.id][0].tokens for t, i in zip(traces, items, strict=True)
            ),
            "n": len(traces),
            "push": float(np.mean([max(t.moved, default=0.0) for t in traces])),
            "accuracy": None,
        }
        if graded:
            scores = _scores(run, arm, items)
            interval = wilson(int(scores.sum()), len(scores))
            gain = paired(scores, unsteered, seed=run.metrics["seed"])
            row |= {
                "accuracy": float(scores.mean()),
                "interval": interval.pair,
                "difference": gain.difference,
                "difference_interval": gain.interval.pair,
            }
        rows.append(row)
    result = {"task": items.task.name, "model": model.describe(), "seed": run.metrics["seed"], "rows": rows}
    run.store.write("dose.json", json.dumps(result, indent=2))
    return result


def _scores(run: Run, arm: str, items: Items) -> np.ndarray:
    return np.array([float(run.traces[arm][item.id][0].correct) for item in items])


PANELS = (
    ("accuracy", "accuracy", ".0%"),
    ("tokens", "tokens an answer", None),
    ("perplexity", "perplexity, unsteered model", None),
    ("degenerate", "degenerate answers", ".0%"),
)


def dose_response(result: Mapping[str, Any]) -> go.Figure:
    """Four panels against strength; the grey band is what the random directions do, from least to most."""
    rows = list(result["rows"])
    graded = any(row["accuracy"] is not None for row in rows)
    panels = PANELS if graded else PANELS[1:]
    columns = 2 if graded else 3
    figure = make_subplots(
        rows=-(-len(panels) // columns),
        cols=columns,
        subplot_titles=[title for _, title, _ in panels],
        horizontal_spacing=0.1,
        vertical_spacing=0.16,
    )
    origin = next(row for row in rows if row["series"] == UNSTEERED)
    for place, (key, _, form) in enumerate(panels):
        where = {"row": place // columns + 1, "col": place % columns + 1}
        controls = _by_strength([r for r in rows if r["control"]], key)
        if controls:
            xs = [0.0, *controls]
            low = [_value(origin, key), *(min(v) for v in controls.values())]
            high = [_value(origin, key), *(max(v) for v in controls.values())]
            order = sorted(range(len(xs)), key=lambda i: xs[i])
            figure.add_scatter(
                x=[xs[i] for i in order] + [xs[i] for i in reversed(order)],
                y=[high[i] for i in order] + [low[i] for i in reversed(order)],
                mode="lines",
                fill="toself",
                fillcolor="rgba(123,135,148,0.22)",
                line={"width": 0},
                name=f"{len({r['series'] for r in rows if r['control']})} random directions",
                legendgroup="random",
                showlegend=place == 0,
                hoverinfo="skip",
                **where,
            )
        names = list(dict.fromkeys(r["series"] for r in rows if not r["control"] and r["series"] != UNSTEERED))
        for colour, name in zip(COLOURS, names, strict=False):
            some = sorted([origin, *(r for r in rows if r["series"] == name)], key=lambda r: r["strength"])
            some = [r for r in some if _value(r, key) is not None]
            error = None
            if key == "accuracy":
                error = {
                    "type": "data",
                    "symmetric": False,
                    "array": [r["interval"][1] - r["accuracy"] for r in some],
                    "arrayminus": [r["accuracy"] - r["interval"][0] for r in some],
                    "color": colour,
                    "thickness": 1,
                }
            figure.add_scatter(
                x=[r["strength"] for r in some],
                y=[_value(r, key) for r in some],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                error_y=error,
                name=name,
                legendgroup=name,
                showlegend=place == 0,
                **where,
            )
        figure.add_hline(y=_value(origin, key), line={"color": MUTED, "dash": "dot", "width": 1}, **where)
        figure.update_yaxes(tickformat=form, rangemode="tozero", **where)
        figure.update_xaxes(title="strength", **where)
    figure.update_layout(legend={"orientation": "h", "y": -0.15})
    return styled(figure, height=680 if graded else 400)


def _by_strength(rows: Sequence[Mapping[str, Any]], key: str) -> dict[float, list[float]]:
    out: dict[float, list[float]] = {}
    for row in rows:
        value = _value(row, key)
        if value is not None:
            out.setdefault(row["strength"], []).append(value)
    return out


def _value(row: Mapping[str, Any], key: str) -> Any:
    return row["degenerate"] / row["n"] if key == "degenerate" else row[key]
