"""Does reasoning sit in the upper layers? Where fast and slow prompts part, against a fast prompt in other words.

Two measures by layer, each with its interval by question and its null of paraphrases (`elicit analyse layers`): CKA of
the last prompt token's activations, and how much of the slow prompt's next token its stream carries into the fast
prompt's forward. A layer parts where it goes beyond the paraphrases by its interval. The last layer carries all of the
way by construction and is left out.

Confirmed: by both measures at most a quarter of the layers of the lower half part and at least three quarters of the
upper half, and the twin without the skill does not show the same.
"""

from __future__ import annotations

from typing import Any

from elicit.analysis.base import shown
from elicit.analysis.internals import layers
from elicit.models.zoo import task_for
from experiments.claims.base import CONFIRMED, NOT_CONFIRMED, Finding, Study
from probes.statistics import Interval
from probes.sweep import Band, layer_sweep

FEW, MOST = 0.25, 0.75
MEASURES = {"cka": "CKA", "carried": "carried"}


def measure(study: Study) -> Finding:
    models = [study.model] + ([study.load(study["twin"])] if study["twin"] else [])
    found = {}
    for model in models:
        study.log(f"layers of {model.name}: {study['limit']} questions")
        task = study["task"] or task_for(study["model"])  # the same questions for the twin
        found[model.name] = layers.analyse(model, task=task, limit=study["limit"], seed=study.seed)
    parted = {name: {key: halves(one.data[key], key) for key in MEASURES} for name, one in found.items()}
    high = {name: all(low <= FEW and up >= MOST for low, up in both.values()) for name, both in parted.items()}
    own, *twin = high.values()
    lines = [
        f"{name}: beyond the paraphrases by "
        + ", ".join(
            f"{MEASURES[key]} {low:.0%} of the lower and {up:.0%} of the upper layers"
            for key, (low, up) in both.items()
        )
        for name, both in parted.items()
    ]
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
        CONFIRMED if own and not any(twin) else NOT_CONFIRMED, "; ".join(lines), table,
        _figure({name: one.data["cka"] for name, one in found.items()}), notes, {"parted": parted, "high": high},
    )  # fmt: skip


def halves(curve: dict[str, list[float]], key: str) -> tuple[float, float]:
    """The fraction of the lower and of the upper layers that go beyond the paraphrases: less alike, or carrying
    more."""
    beyond = [high < 0 for high in curve["beyond high"]] if key == "cka" else [low > 0 for low in curve["beyond low"]]
    beyond = beyond[:-1]
    middle = len(beyond) // 2
    return sum(beyond[:middle]) / max(1, middle), sum(beyond[middle:]) / max(1, len(beyond) - middle)


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
