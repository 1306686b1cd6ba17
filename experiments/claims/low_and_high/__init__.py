"""Does reasoning sit in the upper layers? Where fast and slow prompts part, against a fast prompt in other words.

Two measures by layer, each with its interval by question and its null of paraphrases (`elicit analyse layers`): CKA of
the last prompt token's activations, and how much of the slow prompt's next token its stream carries into the fast
prompt's forward. The last layer carries all of the way by construction and is left out. A layer *diverges* by CKA where
it lies at least 0.05 below the paraphrases, and it *carries* where it brings at least a tenth of the way itself and
beyond what the paraphrases bring: a layer that carries nothing does not come to carry because a paraphrase leads away.
Each is so, is not so, or is open, by its interval; more questions close what is open and add nothing else.

Confirmed: by both measures at most a quarter of the layers of the lower half diverge and at least three quarters of the
upper half, whatever the open ones are, and the twin without the skill does not show the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elicit.analysis.base import shown
from elicit.analysis.internals import layers
from elicit.models.zoo import task_for
from experiments.claims.base import Finding, Study
from experiments.claims.rules import CONFIRMED, NOT_CONFIRMED, Condition, Judgement
from probes.statistics import Interval
from probes.sweep import Band, layer_sweep

FEW, MOST = 0.25, 0.75
LESS_ALIKE, CARRIES = 0.05, 0.1  # by how much CKA must fall, and which fraction of the way a layer must carry
SLACK = 1e-9  # a quarter of the layers is at most a quarter
MEASURES = {"cka": "CKA", "carried": "carried"}


def measure(study: Study) -> Finding:
    models = [study.model] + ([study.load(study["twin"])] if study["twin"] else [])
    found = {}
    for model in models:
        study.log(f"layers of {model.name}: {study['limit']} questions")
        task = study["task"] or task_for(study["model"])  # the same questions for the twin
        found[model.name] = layers.analyse(
            model, task=task, limit=study["limit"], seed=study.seed, progress=study.told
        )  # fmt: skip
    curves = {name: {key: one.data[key] for key in MEASURES} for name, one in found.items()}
    parted = {name: {key: halves(curve, key) for key, curve in some.items()} for name, some in curves.items()}
    line = "; ".join(
        f"{name}: " + ", ".join(
            f"{MEASURES[key]} {_share(low)} of the lower and {_share(up)} of the upper layers"
            for key, (low, up) in both.items()
        )
        for name, both in parted.items()
    )  # fmt: skip
    main = found[study.model.name]
    table = [
        {"layer": n, **{f"{MEASURES[key]}{' of ' + name if name != study.model.name else ''}": _cell(one.data[key], n)
                        for name, one in found.items() for key in MEASURES}}
        for n in range(len(main.data["cka"]["value"]))
    ]  # fmt: skip
    notes = [
        *main.notes,
        "A cell is the measure, and what goes beyond the paraphrases with its 95% interval by question.",
    ]
    return Finding(
        judged(*parted.values()), line, table, _figure({name: one.data["cka"] for name, one in found.items()}), notes,
        {"parted": parted, "curves": curves},
    )  # fmt: skip


Parted = Mapping[str, tuple[Interval, Interval]]


def judged(own: Parted, twin: Parted | None = None) -> Judgement:
    """The conditions, of the layers that `halves` counts on the model and on its twin."""
    conditions = []
    for key, (low, up) in own.items():
        fewer = Interval(-low.high, -low.low)
        conditions.append(Condition(f"{MEASURES[key]}: few of the lower layers", -low.low, fewer, -FEW - SLACK, -FEW))
        conditions.append(Condition(f"{MEASURES[key]}: most of the upper layers", up.low, up, MOST - SLACK, MOST))
    if twin is not None:
        same = judged(twin).verdict
        ends = Interval(float(same == NOT_CONFIRMED), float(same != CONFIRMED))
        conditions.append(Condition("the twin does not show the same", ends.low, ends, 0.5, 0.5, unit=""))
    return Judgement(tuple(conditions))


def halves(curve: Mapping[str, Sequence[float]], key: str) -> tuple[Interval, Interval]:
    """The fraction of the lower and of the upper layers that diverge or carry: of those that do for certain, and of
    those that may."""
    low, high, least = (np.array(curve[end]) for end in ("beyond low", "beyond high", "low"))
    if key == "cka":
        does, may = high <= -LESS_ALIKE, low <= -LESS_ALIKE
    else:
        does = (low > 0) & (least >= CARRIES)
        may = (high > 0) & (np.array(curve["high"]) >= CARRIES)
    middle = (len(low) - 1) // 2
    parts = (slice(None, middle), slice(middle, -1))
    lower, upper = (Interval(*(float(np.mean(some[part])) if some[part].size else 0.0 for some in (does, may)))
                    for part in parts)  # fmt: skip
    return lower, upper


def _share(one: Interval) -> str:
    return f"{one.low:.0%}" if one.low == one.high else f"{one.low:.0%} to {one.high:.0%}"


def _cell(curve: dict[str, list[float]], n: int) -> str:
    beyond = shown(curve["beyond"][n], Interval(curve["beyond low"][n], curve["beyond high"][n]))
    return f"{curve['value'][n]:.3f}; beyond {beyond}"


def _figure(curves: dict[str, dict[str, list[float]]]) -> Any:
    def bands(before: str, *keys: str) -> dict[str, Band]:
        return {f"{before}: {name}": Band(*(one[key] for key in keys)) for name, one in curves.items()}

    return layer_sweep(
        bands("slow against fast", "value", "low", "high"),
        nulls=bands("null, fast in other words", "null", "null low", "null high"),
        title="CKA, fast against slow", y="CKA",
    )  # fmt: skip
