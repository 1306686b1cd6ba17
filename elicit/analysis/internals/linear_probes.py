"""Linear probes at the last prompt token: will the answer be right, and how hard is the question?

Before a token is written, does the residual stream say whether the answer will be right (arXiv 2207.05221), and how
hard the question is? A probe is fitted on the base (the reference arm) and judged under every handle, with its adapter
and interventions on and in its own prompt, against that handle's own answers. Difficulty is the fraction of all other
arms that fail the question.

What a probe finds may be in the question's length or its place in the data; so the same probe on surface features alone
stands beside it, and labels permuted and fitted anew, with the best layer of each permutation beside the best layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from elicit.analysis.base import Analysis, in_turn, shown
from elicit.analysis.continuations import applied_handle, cannot
from elicit.analysis.internals.inputs import last_activations
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import Arm, arms_of, model_of, named, questions
from elicit.evaluation.run.run import Run
from elicit.tasks.base import Item
from probes.errors import UserError
from probes.linear import auroc_columns, crossfit, folds_of, spearman_columns
from probes.sites import Site, depth
from probes.statistics import Interval, holm_by_name
from probes.sweep import Band, layer_sweep

NAME = "probes"
SUMMARY = "does the last prompt token say whether the answer will be right and how hard it is, beyond length"
PAPER = "2207.05221"
TARGETS = ("will be right", "difficulty")
SURFACE = ("tokens", "characters", "numbers", "largest number's digits", "place")
LEAST, RESAMPLES = 20, 1000
COLUMNS = ("layer", "value [95%]", "null", "p (Holm)", "surface", "beyond surface [95%]")


@dataclass(frozen=True, eq=False)
class Probe:
    """How well a probe does under one handle, by layer, with what it is held against.

    Args:
        value, low, high: AUROC (or Spearman) of each layer and its interval by question.
        null: of each layer under permuted labels.
        chosen: the same where each fold is predicted at the layer that is best on the other folds, with its interval.
        surface: of the surface features alone.
        beyond: `chosen` minus `surface`, with its interval.
        best: the best layer.
        p: chance of a best layer as good under permuted labels.
    """

    value: Float[np.ndarray, " layers"]
    low: Float[np.ndarray, " layers"]
    high: Float[np.ndarray, " layers"]
    null: Float[np.ndarray, "layers permutations"]
    chosen: tuple[float, float, float]
    surface: float
    beyond: tuple[float, float, float]
    best: int
    p: float


def probe(
    train: Float[np.ndarray, "layers items d_model"],
    labels: Float[np.ndarray, " items"],
    tests: Sequence[Float[np.ndarray, "layers items d_model"]],
    outcomes: Sequence[Float[np.ndarray, " items"]],
    surface: Float[np.ndarray, "items features"],
    groups: Sequence[Any],
    *,
    ranked: bool = False,
    seed: int = 0,
) -> list[Probe]:
    """Fit a probe a layer on the base and judge it on each test set.

    Args:
        train, labels: the base's activations and labels.
        tests, outcomes: activations under each handle, and what came of it there.
        surface: features of the questions that need no model.
        groups: the question of each item.
        ranked: Spearman's correlation instead of AUROC.
        seed: of folds, permutations and bootstrap.
    """
    folds = folds_of(groups, seed)
    measure = spearman_columns if ranked else auroc_columns
    layers = [crossfit(x, labels, [t[n] for t in tests], folds, seed=seed) for n, x in enumerate(train)]
    plain = crossfit(surface, labels, [surface], folds, permutations=0, seed=seed).scores[0]
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(labels), size=(RESAMPLES, len(labels)))
    out = []
    for n, outcome in enumerate(outcomes):
        by_layer = np.column_stack([layer.scores[n] for layer in layers])
        scores = np.column_stack([by_layer, _nested(by_layer, outcome, folds, measure), plain])
        value = measure(scores, outcome)
        drawn = np.array([measure(scores[d], outcome[d]) for d in draws])  # NaN where a draw holds one class
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        null = np.stack([measure(layer.null[n], outcome) for layer in layers])
        best = int(np.argmax(value[:-2]))
        ends = np.nanquantile(drawn[:, -2] - drawn[:, -1], [0.025, 0.975])
        p = float((1 + (null.max(0) >= value[best]).sum()) / (1 + null.shape[1]))
        chosen = (float(value[-2]), float(low[-2]), float(high[-2]))
        beyond = (float(value[-2] - value[-1]), float(ends[0]), float(ends[1]))
        out.append(Probe(value[:-2], low[:-2], high[:-2], null, chosen, float(value[-1]), beyond, best, p))
    return out


def _nested(
    scores: Float[np.ndarray, "items layers"],
    outcome: Float[np.ndarray, " items"],
    folds: Int[np.ndarray, " items"],
    measure: Callable[..., Float[np.ndarray, " layers"]],
) -> Float[np.ndarray, " items"]:
    """Each fold at the layer that is best on the others: the best of many layers would be good by being chosen."""
    out = np.empty(len(scores))
    for fold in np.unique(folds):
        others = folds != fold
        best = int(np.argmax(np.nan_to_num(measure(scores[others], outcome[others]), nan=-1.0)))
        out[~others] = scores[~others, best]
    return out


def surface_of(handle: Elicited, items: Sequence[Item]) -> Float[np.ndarray, "items features"]:
    """What can be said of each question without a model; see `SURFACE`."""
    rows = []
    for place, item in enumerate(items):
        numbers = re.findall(r"\d+", item.question)
        rows.append(
            [len(handle.prompt_ids(item)), len(item.question), len(numbers), max(map(len, numbers), default=0), place]
        )
    return np.array(rows, dtype=float)


def activations(handle: Elicited, items: Sequence[Item]) -> Float[np.ndarray, "layers items d_model"]:
    """The residual stream after each layer at the last prompt token, with what the handle does to it."""
    sites = [Site(layer) for layer in range(depth(handle.model.lm))]
    with applied_handle(handle):
        read = last_activations(handle.model, [handle.prompt_ids(item) for item in items], sites)
    return np.stack([read[site].double().numpy() for site in sites])


def analyse(
    runs: Sequence[Run],
    *,
    reference: str = "direct",
    limit: int = 0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Probes fitted on the reference arm, judged under every arm.

    Args:
        runs: of one model on the same items.
        reference: the arm that the probes are fitted on; it must leave the model as it is.
        limit: of the items; 0 for all.
        seed: of folds, permutations and bootstrap.

    Raises:
        UserError: runs that do not go together, no such arm, too few items, a reference that is all right or all wrong.
    """
    arms = arms_of(runs)
    items = questions(arms, limit)
    if len(items) < LEAST:
        raise UserError(f"the runs share {len(items)} items; a probe needs at least {LEAST}, give runs of more")
    model = model_of(runs)
    base = named(arms, reference, "reference")
    handle = base.handle(model)
    if handle is None or handle.adapter is not None or handle.interventions or not handle.has_forward:
        raise UserError(f"reference = {reference!r} changes the model; give one that leaves it as it is, like direct")
    ids = [item.id for item in items]
    right = base.right(ids)
    if right.all() or not right.any():
        raise UserError(
            f"{reference} is {'right' if right.all() else 'wrong'} on all {len(items)} items, so that no probe can be "
            "fitted; give runs on items that it solves in part"
        )
    train, surface = activations(handle, items), surface_of(handle, items)
    groups = [item.question for item in items]
    table: list[dict[str, Any]] = []
    judged: list[tuple[Arm, Float[np.ndarray, "layers items d_model"]]] = []
    for arm in in_turn(NAME, arms, progress):
        other = arm.handle(model)
        if why := cannot(other):
            table.append(_row(arm.name, "–", why))
            continue
        assert other is not None
        judged.append((arm, train if arm is base else activations(other, items)))
    found: dict[str, dict[str, Probe]] = {target: {} for target in TARGETS}
    able: list[tuple[Arm, Float[np.ndarray, "layers items d_model"], Float[np.ndarray, " items"]]] = []
    for arm, read in judged:
        outcome = arm.right(ids)
        if outcome.all() or not outcome.any():
            said = "right" if outcome.all() else "wrong"
            table.append(_row(arm.name, TARGETS[0], f"does not apply: {said} on all {len(items)} items"))
        else:
            able.append((arm, read, outcome.astype(float)))
    probes = probe(
        train, right.astype(float), [x for _, x, _ in able], [y for _, _, y in able], surface, groups, seed=seed
    )
    found[TARGETS[0]] = {arm.name: one for (arm, _, _), one in zip(able, probes, strict=True)}
    hard = {arm.name: _difficulty(arms, arm, ids) for arm, _ in judged}
    varied = [(arm, read) for arm, read in judged if np.ptp(hard[arm.name]) > 0 and np.ptp(hard[base.name]) > 0]
    for arm, _ in judged:
        if all(arm is not one for one, _ in varied):
            table.append(_row(arm.name, TARGETS[1], "does not apply: the other arms find all questions equally hard"))
    if varied:
        probes = probe(train, hard[base.name], [x for _, x in varied], [hard[arm.name] for arm, _ in varied], surface,
                       groups, ranked=True, seed=seed)  # fmt: skip
        found[TARGETS[1]] = {arm.name: one for (arm, _), one in zip(varied, probes, strict=True)}
    adjusted = holm_by_name({(target, arm): one.p for target, some in found.items() for arm, one in some.items()})
    table = [*(_row(arm, target, (found[target][arm], p)) for (target, arm), p in adjusted.items()), *table]
    notes = [
        f"Probes fitted on {base.name} and judged out of fold; AUROC for {TARGETS[0]} against the arm's own answers, "
        f"Spearman for {TARGETS[1]} against the fraction of the other arms that fail. 95% intervals by question.",
        "Null: labels permuted and fitted anew, best layer against best layer (the null's mean; p is Holm's over the "
        "rows). Values are of layers chosen on the other folds. What length and place alone say "
        f"({', '.join(SURFACE)}) is the level to beat: only beyond it does the residual stream know more than how the "
        "question looks.",
        "What a probe reads is not shown to be used.",
    ]
    main, *more = [(target, *_figure(target, some)) for target, some in found.items() if some]
    data = {
        "items": ids,
        "right": {arm.name: arm.right(ids).tolist() for arm, _ in judged},
        "difficulty": {name: one.tolist() for name, one in hard.items()},
        "probes": {t: {a: _data(one) for a, one in some.items()} for t, some in found.items()},
    }
    return Analysis(NAME, table, main[2], notes, data, more)


def _difficulty(arms: Sequence[Arm], but: Arm, ids: Sequence[str]) -> Float[np.ndarray, " items"]:
    """The fraction of the other arms that fail each question; of all where there is no other."""
    others = [arm for arm in arms if arm is not but] or list(arms)
    return 1 - np.mean([arm.right(ids) for arm in others], axis=0)


def _row(arm: str, target: str, judged: tuple[Probe, float] | str) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm, "target": target}
    if isinstance(judged, str):
        return {**row, **dict.fromkeys(COLUMNS, "–"), "says": judged}
    found, p = judged
    says = "no more than the null"
    if p < 0.05:
        says = "reads more than the surface" if found.beyond[1] > 0 else "no more than the surface"
    value, beyond = (shown(mean, Interval(low, high)) for mean, low, high in (found.chosen, found.beyond))
    cells = (found.best, value, float(found.null.max(0).mean()), p, found.surface, beyond)
    return {**row, **dict(zip(COLUMNS, cells, strict=True)), "says": says}


def _data(one: Probe) -> dict[str, Any]:
    null = {"mean": one.null.mean(1), "low": np.quantile(one.null, 0.025, 1), "high": np.quantile(one.null, 0.975, 1)}
    kept = {"value": one.value, "low": one.low, "high": one.high, **{f"null {k}": v for k, v in null.items()}}
    lists = {name: values.tolist() for name, values in kept.items()}
    return {**lists, "chosen": one.chosen, "surface": one.surface, "beyond": one.beyond, "best": one.best, "p": one.p}


def _figure(target: str, some: dict[str, Probe]) -> tuple[str, Any]:
    first = next(iter(some.values()))
    null = Band(first.null.mean(1).tolist(), *(np.quantile(first.null, q, 1).tolist() for q in (0.025, 0.975)))
    figure = layer_sweep(
        {arm: Band(one.value.tolist(), one.low.tolist(), one.high.tolist()) for arm, one in some.items()},
        nulls={"null: labels permuted": null},
        references={"surface features alone": first.surface},
        title=f"{target}, from the last prompt token",
        y="AUROC" if target == TARGETS[0] else "Spearman",
    )
    return "Beside permuted labels, and surface features of the question alone.", figure
