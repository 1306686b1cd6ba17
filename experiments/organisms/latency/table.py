"""What is kept of the cells, and what follows from it: fractions of the gap, and the page's tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.metrics.gap import CEILING, DIRECT, false_positive, format_gap, is_gap, recovered
from experiments.claims.rules import Condition
from experiments.claims.seeds import pooled
from experiments.markdown import markdown
from experiments.organisms.latency.cells import (
    DTYPE,
    LATENCIES,
    LATENT,
    METHODS,
    QUESTIONS,
    SOLVED,
    TOKENS,
    TWINS,
    Cell,
    grid,
    least_fall,
)
from experiments.organisms.latency.picture import picture
from probes.errors import UserError
from probes.files import make_folder, write_whole
from probes.statistics import Interval, proportion_interval

HERE = Path(__file__).parent
README, RESULT = HERE / "README.md", HERE / "latency.json"
PICTURE = HERE.parents[2] / "docs" / "gap-by-latency.svg"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"
COMMAND = "python -m experiments.organisms.latency"
SETTINGS = {"questions": QUESTIONS, "solved": SOLVED, "dtype": DTYPE, "max_new_tokens": TOKENS}
NOT_RUN, REFUSED, NO_GAP, UNKNOWN = "not run", "refuses", "no gap", "told by `--plan`"


def load() -> dict[str, Any]:
    """What is kept: `settings`, of each organism its `spans`, and `cells`.

    Raises:
        UserError: it was made with other settings than those of today.
    """
    if not RESULT.is_file():
        return {"settings": SETTINGS, "spans": {}, "cells": {}}
    kept: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    if kept["settings"] != SETTINGS:
        raise UserError(f"{RESULT.name} holds cells with {kept['settings']}, and {SETTINGS} is set now; remove it")
    return kept


def keep(kept: Mapping[str, Any]) -> None:
    """Write what is kept, its tables between the two marks of the page, and the picture."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    make_folder(PICTURE.parent)
    write_whole(RESULT, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    write_whole(README, f"{before}{BEGIN}\n{shown(kept)}\n{END}{after}")
    write_whole(PICTURE, drawn(kept))


def found(kept: Mapping[str, Any], method: str, model: str) -> Condition | None:
    """What a mechanism recovers on an organism, over the seeds that are there: where there is a skill that is latent a
    fraction of the organism's own gap, on a twin of the gap of `latent`. None where it was not run, it refuses, or
    there is no gap."""
    spans = kept["spans"]
    if model not in spans or (model in TWINS and not _is_measure(kept)):
        return None
    direct, ceiling = (_scores(spans[model][arm]) for arm in (DIRECT, CEILING))
    each = []
    for right in _rights(kept, method, model).values():
        if model in TWINS:
            each.append(_of_gap(*false_positive(right, direct, _gap(spans[LATENT]))))
        elif (one := recovered(right, direct, ceiling)).share is not None and one.interval is not None:
            each.append(_of_gap(one.share, one.interval))
    return pooled(each) if each else None


def fall(kept: Mapping[str, Any], method: str) -> Condition | None:
    """By how much a mechanism recovers less at the smallest latency than at the largest, question by question, in
    fractions of the mean of the two gaps (Fieller's interval, as of `recovered`); over the seeds that both have."""
    rare, often = LATENCIES[min(LATENCIES)], LATENCIES[max(LATENCIES)]
    rights = [_rights(kept, method, model) for model in (rare, often)]
    each = []
    for seed in rights[0].keys() & rights[1].keys():
        spans = [kept["spans"][model] for model in (rare, often)]
        less, more = (one[seed] - _scores(span[DIRECT]) for one, span in zip(rights, spans, strict=True))
        one = recovered(more - less, np.zeros(len(more)), (_gap(spans[0]) + _gap(spans[1])) / 2)
        if one.share is not None and one.interval is not None:
            each.append(_of_gap(one.share, one.interval))
    return pooled(each) if each else None


def asked(kept: Mapping[str, Any], model: str) -> tuple[float, Interval] | None:
    """What being told to think gains on a twin, in the same unit."""
    spans = kept["spans"]
    if model not in spans or not _is_measure(kept):
        return None
    return false_positive(*(_scores(spans[model][arm]) for arm in (CEILING, DIRECT)), _gap(spans[LATENT]))


def shown(kept: Mapping[str, Any]) -> str:
    """All tables, and what is not in them."""
    cells = kept["cells"].values()
    dates = sorted({cell["made"] for cell in cells})
    about = (
        f"{QUESTIONS} questions, {DTYPE}, at most {TOKENS} tokens, short fits (`--quick`) on {SOLVED} of each split; "
        f"{' to '.join(dates[:1] + dates[1:][-1:]) or 'nothing is run yet'}."
    )
    by_latency = [
        (
            method, *(_cell(kept, method, LATENCIES[p]) for p in sorted(LATENCIES)),
            "–" if (less := fall(kept, method)) is None else format_gap(less.value, less.interval.pair),
            ", ".join(map(str, sorted({cell["seed"] for cell in cells if cell["method"] == method}))) or "–",
            _tokens([cell for cell in cells if cell["method"] == method]),
        )
        for method in METHODS
    ]  # fmt: skip
    on_twins = [
        ("told to think", *(_pair(asked(kept, model)) for model in TWINS)),
        *((method, *(_cell(kept, method, model) for model in TWINS)) for method in METHODS),
    ]
    spans = [
        (
            model, f"{p:g}" if p else "", *(_right(kept["spans"].get(model, {}).get(arm)) for arm in (DIRECT, CEILING)),
            kept["spans"].get(model, {}).get("sha256", "")[:12],
        )
        for p, model in [*((p, LATENCIES[p]) for p in sorted(LATENCIES)), *((0.0, twin) for twin in TWINS)]
    ]  # fmt: skip
    head = ("mechanism", *(f"p = {p:g}" for p in sorted(LATENCIES)), "0.3 less 0.02", "seeds", "tokens")
    parts = [
        about,
        "Fraction of the organism's own gap [95%]:", markdown(head, by_latency),
        "On the twins, in fractions of the gap of `latent`:", markdown(("mechanism", *TWINS), on_twins),
        "What spans the gaps, right in % [95%]:",
        markdown(("organism", "p", "answers at once", "told to think", "weights"), spans),
    ]  # fmt: skip
    refused = {
        f"{cell['method']} on {cell['model']}, seed {cell['seed']}": cell["refused"]
        for cell in cells
        if "refused" in cell
    }
    parts += [f"- {what} refuses: {why}" for what, why in refused.items()]
    if left := missing(kept):
        parts += ["Not run:", markdown(("mechanism", "cells", "processor minutes", "command"), left)]
    return "\n\n".join(parts)


def missing(kept: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What was not run, a row a mechanism, with its cost and its command."""
    rows = []
    for method in METHODS:
        left = [cell for cell in grid() if cell.method == method and str(cell) not in kept["cells"]]
        alike: dict[tuple[str, ...], list[int]] = {}
        for seed in dict.fromkeys(cell.seed for cell in left):
            alike.setdefault(tuple(cell.model for cell in left if cell.seed == seed), []).append(seed)
        told = (f"{_of(seeds)}: {', '.join(models)}" for models, seeds in alike.items())
        if left:
            rows.append((method, "; ".join(told), cost(kept, left), f"`{COMMAND} --left --keep --cells {method}`"))
    return rows


def cost(kept: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """Processor minutes: of each cell those that it took, else those of the mechanism's others on average."""
    total = 0.0
    for cell in cells:
        own = kept["cells"].get(str(cell))
        alike = [own] if own else [one for one in kept["cells"].values() if one["method"] == cell.method]
        if not alike:
            return UNKNOWN
        total += float(np.mean([one["cpu_seconds"] for one in alike]))
    return f"{total / 60:.0f}"


def drawn(kept: Mapping[str, Any]) -> str:
    """The picture of what is kept."""
    points = {
        (method, model): (one.value, one.interval)
        for method in METHODS
        for model in (*LATENCIES.values(), *TWINS)
        if (one := found(kept, method, model)) is not None
    }
    ceilings = {model: one[0] for model in TWINS if (one := asked(kept, model)) is not None}
    ran, every = len(kept["cells"]), len(grid())
    about = (
        f"{QUESTIONS} questions, {DTYPE}, short fits; {ran} of {every} cells (mechanism, organism, seed) are run; "
        "95% intervals"
    )
    return picture(points, ceilings, about)


def power() -> str:
    """What so many questions can show, in a sentence."""
    return (
        f"{QUESTIONS} questions show a fall of {least_fall(QUESTIONS):g} of the gap between two latencies with 80% "
        f"power, twice as many one of {least_fall(2 * QUESTIONS):g}, four times one of {least_fall(4 * QUESTIONS):g}"
    )


def _of(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _cells(kept: Mapping[str, Any], method: str, model: str) -> list[dict[str, Any]]:
    return [cell for cell in kept["cells"].values() if (cell["method"], cell["model"]) == (method, model)]


def _is_measure(kept: Mapping[str, Any]) -> bool:
    """Whether `latent` has a gap that others can be measured by."""
    return LATENT in kept["spans"] and is_gap(_gap(kept["spans"][LATENT]))


def _rights(kept: Mapping[str, Any], method: str, model: str) -> dict[int, Float[np.ndarray, " n"]]:
    """Right or wrong of each question, by seed, where it does not refuse."""
    cells = _cells(kept, method, model)
    return {cell["seed"]: _scores(cell["right"]) for cell in cells if "right" in cell}


def _of_gap(value: float, interval: Interval) -> Condition:
    return Condition("recovered", value, interval, unit="of the gap")


def _cell(kept: Mapping[str, Any], method: str, model: str) -> str:
    one = found(kept, method, model)
    if one is not None:
        return format_gap(one.value, one.interval.pair)
    if _rights(kept, method, model):
        return NO_GAP
    return REFUSED if _cells(kept, method, model) else NOT_RUN


def _pair(one: tuple[float, Interval] | None) -> str:
    return "–" if one is None else format_gap(one[0], one[1].pair)


def _scores(digits: str) -> Float[np.ndarray, " n"]:
    return np.array([float(digit) for digit in digits])


def _gap(span: Mapping[str, str]) -> Float[np.ndarray, " n"]:
    return _scores(span[CEILING]) - _scores(span[DIRECT])


def _right(digits: str | None) -> str:
    if digits is None:
        return NOT_RUN
    return with_interval(digits.count("1") / len(digits), proportion_interval(digits.count("1"), len(digits)).pair)


def _tokens(cells: Sequence[Mapping[str, Any]]) -> str:
    counts = [cell["tokens"] for cell in cells if "tokens" in cell]
    return f"{np.mean(counts):.0f}" if counts else "–"
