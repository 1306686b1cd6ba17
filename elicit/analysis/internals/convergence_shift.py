"""Do mechanisms do the same inside the model? Shifts of the residual stream, next-token distributions, raised features.

All read the same texts: the questions, each in the handle's own prompt, followed by one fixed answer (the greedy one of
a baseline in the runs). Positions are numbered by steps, so that the same token is chosen at the same step whatever the
prompt. Held against each other:

- mean shift of `resid_post` against the base, layer by layer: cosine, its null and ceiling (`probes.shifts`);
- next-token distributions by position (first token, quarters of the answer): KL and disagreement of the argmax,
  against the base and between mechanisms; and how often two that both leave the base's argmax take the same token,
  beside the chance that they would if each drew from what the base has left;
- the SAE features that each raises most, where an SAE is given.

A mechanism that changes the decoding alone has no shift; of such a one, and of hybrid decoding, the tokens that it
chose are read in its own samples: −log p under the base (the KL of what was chosen from the base), and how often it
was not the argmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.analysis.base import Analysis, in_turn, plain
from elicit.analysis.internals.teacher_forcing import (
    AGAIN,
    MEASURES,
    SEGMENTS,
    Texts,
    chosen,
    distributions,
    reads,
    states,
)
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import Arm, arms_of, model_of, named, questions
from elicit.evaluation.run.run import Run
from elicit.models.model import Model
from elicit.models.saes import open_sae
from elicit.tasks.base import Item
from probes.errors import UserError
from probes.sae.autoencoder import SAE
from probes.shifts import raised, shift_cosine, whitening
from probes.sites import check_site, depth, width
from probes.statistics import bootstrap_mean, holm_by_name
from probes.sweep import Band, layer_sweep

NAME = "convergence-shift"
SUMMARY = "do mechanisms shift the residual stream, the next tokens and SAE features alike, beyond a matched null"
PAPER = ""


def shifts(
    runs: Sequence[Run],
    *,
    reference: str = "direct",
    limit: int = 64,
    tokens: int = 64,
    sae: str = "",
    top: int = 10,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """All that is compared, as plain data: `cosines`, `distributions`, `features`, `chosen`, `reasons`.

    Args:
        runs: of one model on the same items; of each the method under test is compared.
        reference: the arm whose answers are the texts; it must leave the model as it is.
        limit: of the items; 0 for all.
        tokens: of each answer that are read.
        sae: name of an SAE whose features are compared.
        top: how many of the features that each raises most.
        seed: of nulls, halves and bootstrap.

    Raises:
        UserError: runs that do not go together, no such reference arm, no mechanism to compare, no tokens to read.
    """
    if tokens < 1:
        raise UserError(f"tokens = {tokens} was given; give at least 1, of each answer's beginning")
    every = arms_of(runs)
    arms = [arm for arm in every if arm.key == arm.run.metrics["method"] and arm.key != reference]
    items = questions(every, limit)
    model = model_of(runs)
    base, texts = _reference(every, reference, items, tokens, model)
    opened = _fits(open_sae(sae), model) if sae else None
    handles: dict[str, Elicited] = {reference: base}
    reasons: dict[str, str] = {}
    for arm in arms:
        handle = arm.handle(model)
        assert handle is not None, "a run keeps its own method"
        if why := reads(handle, base):
            reasons[arm.name] = why
        else:
            handles[arm.name] = handle
    if not arms:
        raise UserError(f"the runs hold no method but {reference}; give runs of mechanisms to compare")
    whole, stream, features = states(base, texts, opened)
    moved: dict[str, np.ndarray] = {}
    feature_change: dict[str, np.ndarray] = {}
    for name, handle in in_turn("shifts", list(handles.items())[1:], progress):
        mean, _, raised_by = states(handle, texts, opened)
        moved[name] = mean - whole
        if opened is not None:
            feature_change[name] = raised_by - features
    white = [whitening(stream[:, layer], seed=seed) for layer in range(depth(model.lm))] if len(moved) > 1 else []
    told = None if progress is None else lambda done, total: progress("distributions", done, total)
    return {
        "items": [item.id for item in texts.items],
        "reference": reference,
        "reasons": reasons,
        "norms": {name: np.linalg.norm(some.mean(0), axis=-1) / np.linalg.norm(stream, axis=-1).mean(0)
                  for name, some in moved.items()},
        "cosines": {
            (a, b): [
                shift_cosine(moved[a][:, layer], moved[b][:, layer], white[layer], seed=seed)
                for layer in range(depth(model.lm))
            ]
            for a, b in combinations(moved, 2)
        },
        "distributions": distributions(handles, texts, told) if len(handles) > 1 else {},
        "chosen": {arm.name: chosen(arm, items) for arm in arms if arm.name in reasons},
        "features": {(a, b): raised(feature_change[a], feature_change[b], top=top, seed=seed)
                     for a, b in combinations(feature_change, 2)},
    }  # fmt: skip


def _reference(
    arms: Sequence[Arm], name: str, items: Sequence[Item], tokens: int, model: Model
) -> tuple[Elicited, Texts]:
    found = named(arms, name, "reference")
    handle = found.handle(model)
    if handle is None or handle.adapter is not None or handle.interventions or not handle.has_forward:
        raise UserError(f"reference = {name!r} changes the model; give an arm that leaves it as it is, like direct")
    answers = [tuple(trace.tokens[:tokens]) for trace in found.chosen([item.id for item in items])]
    kept = [(item, answer) for item, answer in zip(items, answers, strict=True) if answer]
    if len(kept) < 2:
        raise UserError(f"{len(kept)} answers of {name!r} have tokens; give a reference that answers")
    return handle, Texts(tuple(item for item, _ in kept), tuple(answer for _, answer in kept))


def _fits(sae: SAE, model: Model) -> SAE:
    check_site(model.lm, sae.site)
    if sae.d_model != width(model.lm):
        raise UserError(
            f"the SAE {sae.name!r} has d_model {sae.d_model} and {model.name} {width(model.lm)}; give its own"
        )
    return sae


def analyse(
    runs: Sequence[Run],
    *,
    reference: str = "direct",
    limit: int = 64,
    tokens: int = 64,
    sae: str = "",
    top: int = 10,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """`shifts` as a table and figures.

    Args:
        runs, reference, limit, tokens, sae, top, seed: as for `elicit.analysis.internals.convergence_shift.shifts`.
        progress: called with what is done.
    """
    found = shifts(
        runs, reference=reference, limit=limit, tokens=tokens, sae=sae, top=top, seed=seed, progress=progress
    )
    table = rows(found, seed=seed)
    notes = [
        "Cosine of two mechanisms' mean shifts of the residual stream on the same texts, at the layer where it is "
        "largest against its null: unrelated directions, in the stream that is whitened by the base's activations. "
        "The ceiling is the cosine of a mechanism's own halves; p is Holm's over the layers.",
        "KL and argmax disagreement with the base and between mechanisms; rounding is what the base does against "
        "itself in other batches. Same token counts positions where both leave the base's argmax, beside the chance "
        "of it.",
        "Texts are the reference's answers: what a mechanism would do on its own answers is not shown. An alike shift "
        "does not show an alike cause.",
    ]
    figures = [("Shift by layer", "Each pair against its null.", figure) for figure in _figures(found)]
    if not figures:
        figures = [("Tokens", "", _parts_figure(found, seed))]
    elif found["distributions"]:
        figures.append(("Next tokens by position", "KL from the base, in nats.", _parts_figure(found, seed)))
    data = {
        **{key: plain(found[key]) for key in ("items", "reference", "reasons", "norms", "chosen")},
        **{key: {" | ".join(pair): plain(one) for pair, one in found[key].items()}
           for key in ("cosines", "distributions", "features")},
    }  # fmt: skip
    return Analysis(NAME, table, figures[0][2], notes, data, figures[1:])


def rows(found: dict[str, Any], *, seed: int = 0) -> list[dict[str, Any]]:
    """A row a pair of mechanisms and a row each against the base; what does not apply says so."""
    table = []
    for (one, other), measures in found["distributions"].items():
        cosines = found["cosines"].get((one, other), [])
        table.append(_row(one, "itself, text by text" if other == AGAIN else other, cosines, measures, seed))
        if (one, other) in found["features"]:
            both = found["features"][one, other]
            table[-1] |= {"features shared": both.shared, "by chance": both.null, "feature p": both.p}
    for name, why in found["reasons"].items():
        row = _row(found["reference"], name, [], {}, seed)
        surprise = found["chosen"][name]["−log p"]
        row["KL"], row["argmax differs"] = _mean(surprise), _mean(found["chosen"][name]["not the argmax"])
        table.append({**row, "says": f"{why}; of its chosen tokens: −log p, and not the argmax"})
    return table


def _row(one: str, other: str, cosines: Sequence[Any], measures: dict[str, Any], seed: int) -> dict[str, Any]:
    nan = float("nan")
    defined = [n for n, c in enumerate(cosines) if not np.isnan(c.value)]
    adjusted = holm_by_name({n: cosines[n].p for n in defined})
    best = min(defined, key=lambda n: (cosines[n].p, -abs(cosines[n].value)), default=None)
    row: dict[str, Any] = {"one": one, "other": other, "layer": "–" if best is None else best}
    for name in ("value", "low", "high", "null_low", "null_high"):
        row["cosine" if name == "value" else name.replace("_", " ")] = (
            nan if best is None else getattr(cosines[best], name)
        )
    row["ceiling"] = nan if best is None else float(np.mean(cosines[best].ceiling))
    row["holm p"] = nan if best is None else adjusted[best]
    for measure in MEASURES:
        row[measure] = _mean(measures[measure]) if measures else nan
    row |= {"features shared": nan, "by chance": nan, "feature p": nan}
    row["says"] = "" if best is None else said(cosines[best].value, adjusted[best])
    return row


def said(cosine: float, p: float) -> str:
    """What a cosine of shifts with its p says; a large one below 0 is an opposition."""
    if p >= 0.05:
        return "no more than the null"
    return "alike beyond the null" if cosine > 0 else "opposed beyond the null"


def _mean(values: Float[np.ndarray, "items parts"]) -> float:
    """Over the parts of each item, then over items."""
    by_item = [row[~np.isnan(row)].mean() for row in values if not np.isnan(row).all()]
    return float(np.mean(by_item)) if by_item else float("nan")


def _figures(found: dict[str, Any]) -> Iterator[Any]:
    for (one, other), layers in found["cosines"].items():
        value, null = (
            Band([getattr(c, v) for c in layers], [getattr(c, a) for c in layers], [getattr(c, b) for c in layers])
            for v, a, b in (("value", "low", "high"), ("null_low", "null_low", "null_high"))
        )
        null = replace(null, value=[(c.null_low + c.null_high) / 2 for c in layers])
        ceiling = [float(np.mean(c.ceiling)) for c in layers]
        yield layer_sweep(
            {"cosine of the shifts": value, "ceiling: own halves": Band(ceiling)},
            nulls={"null: unrelated directions": null}, title=f"{one} and {other}", y="cosine",
        )  # fmt: skip


def _parts_figure(found: dict[str, Any], seed: int) -> Any:
    reference = found["reference"]
    told = {
        f"{other} from {one}": measures["KL"] for (one, other), measures in found["distributions"].items()
        if reference in (one, other) and other != AGAIN
    }  # fmt: skip
    told |= {f"{name}: −log p of its tokens": some["−log p"] for name, some in found["chosen"].items()}
    bands = {name: _band(values, seed) for name, values in told.items()}
    return layer_sweep(bands, layers=SEGMENTS, title="Next tokens against the base", x="part of the answer", y="nats")


def _band(values: Float[np.ndarray, "items parts"], seed: int) -> Band:
    """Means over items by part, of what is never below 0."""
    ends = []
    for column in values.T:
        some = column[~np.isnan(column)]
        if not len(some):
            ends.append((float("nan"),) * 3)
            continue
        interval = bootstrap_mean(some, seed=seed, resamples=2000)
        ends.append((float(some.mean()), float(np.maximum(interval.low, 0.0)), interval.high))
    return Band(*(list(one) for one in zip(*ends, strict=True)))
