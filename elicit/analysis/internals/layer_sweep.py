"""Two prompts of a task, layer by layer: how well a difference-of-means direction separates held-out questions.

The direction is the mean difference of the two prompts' last-token activations over half of the questions (arXiv
2310.06824; its null and interval are ours); it is judged on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from elicit.analysis.base import Analysis, halves
from elicit.analysis.internals.inputs import contrast, items_of, last_activations
from elicit.models.model import Model
from elicit.models.zoo import task_for
from probes.sites import Site, depth
from probes.sweep import Band, layer_sweep

NAME = "layer-sweep"
SUMMARY = "at which layers a direction tells a chain-of-thought prompt from a direct one, on held-out questions"
PAPER = "2310.06824"
RESAMPLES = 1000
SLACK = 1e-9  # what rounding leaves of nothing
PERMUTATIONS = 200


def analyse(
    model: Model,
    *,
    task: str = "",
    split: str = "fit",
    limit: int = 64,
    prompt: Sequence[str] = (),
    point: str = "resid_post",
    seed: int = 0,
) -> Analysis:
    """Separation of two prompts by layer.

    Args:
        task, split, limit: the questions (without a task, the model's own); half fit the direction, half judge it.
        prompt: names of the two prompts (see `elicit.analysis.internals.inputs.contrast`).
        point: hook point.
        seed: of the halves, the bootstrap and the permutations.
    """
    (plain_name, direct), (thought_name, thought) = contrast(model, prompt)
    task = task or task_for(model.name)
    items = items_of(task, split, limit)
    sites = [Site(layer, point) for layer in range(depth(model.lm))]
    embedding = Site(0, "resid_pre")
    ids = [p.ids(item.question, model.tokenizer) for p in (direct, thought) for item in items]
    read = last_activations(model, ids, [*sites, embedding] if embedding not in sites else sites)
    fit = halves(len(items), seed)
    found = []
    for site in [embedding, *sites]:
        values = read[site].double().numpy().reshape(2, len(items), -1)
        found.append(separation(values[0], values[1], fit, seed=seed))
    tokens, layers = found[0], found[1:]
    table = [{"layer": layer, **row} for layer, row in enumerate(layers)]
    held = int((~fit).sum())
    notes = [
        f"{plain_name} against {thought_name}, at the last prompt token ({point}): the direction from "
        f"{int(fit.sum())} questions of {task}, AUROC on {held} others, 95% bootstrap interval by question.",
        "Null: the two prompts exchanged at random within each question, direction and AUROC computed anew; "
        "the band holds 95%.",
        "d′ is the difference of the two means on the direction, in standard deviations: it still grows at AUROC 1.",
    ]
    if tokens["auroc"] > 0.9:
        notes.append(
            "The two prompts end in different tokens: their embeddings alone tell them apart. "
            "Compare prompts with the same last token (a chat template's) to see what the layers add."
        )
    figure = layer_sweep(
        {"AUROC, held-out questions": _band(layers, "auroc", "low", "high")},
        nulls={"null: prompts exchanged": _band(layers, "null", "null low", "null high")},
        references={"last token's embedding alone": tokens["auroc"]},
        title=f"{thought_name} against {plain_name}: separation by layer",
        y="AUROC",
    )
    figure.update_yaxes(range=[0.0, 1.04])
    effect = layer_sweep(
        {"d′": Band([row["d′"] for row in layers])},
        title="Distance of the means by layer",
        y="d′ (standard deviations)",
    )
    data = {
        "task": task,
        "split": split,
        "prompts": [plain_name, thought_name],
        "point": point,
        "items": [item.id for item in items],
        "fitted": fit.tolist(),
        "embedding": tokens,
        "layers": layers,
    }
    return Analysis(NAME, table, figure, notes, data, [("Distance", "On the same held-out questions.", effect)])


def _band(rows: Sequence[dict[str, float]], value: str, low: str, high: str) -> Band:
    return Band(*([row[key] for row in rows] for key in (value, low, high)))


def separation(
    direct: Float[np.ndarray, "items d_model"],
    thought: Float[np.ndarray, "items d_model"],
    fit: Bool[np.ndarray, " items"],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC of the difference-of-means direction on the items that did not fit it, its interval and its null."""
    rng = np.random.default_rng(seed)
    difference = thought - direct
    axis = difference[fit].mean(0)
    held = ~fit
    low_scores, high_scores = direct[held] @ axis, thought[held] @ axis
    beats = (high_scores[:, None] > low_scores) + 0.5 * (high_scores[:, None] == low_scores)
    n = len(low_scores)
    # A question that is drawn twice counts twice in both classes.
    weight = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    resampled = ((weight @ beats) * weight).sum(1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    if high - low < SLACK:  # all draws alike, which n questions cannot vouch for: as in probes.statistics
        reach = 1 - 0.025 ** (1 / n)
        low, high = max(0.0, low - reach), min(1.0, high + reach)
    spread = np.sqrt((low_scores.var(ddof=1) + high_scores.var(ddof=1)) / 2)

    sign = rng.choice([-1.0, 1.0], size=(PERMUTATIONS, len(fit)))
    axes = (sign[:, fit] @ difference[fit]) / fit.sum()  # [permutations, d_model]
    scores = np.concatenate([direct[held] @ axes.T, thought[held] @ axes.T])  # [2 held, permutations]
    positive = np.concatenate([sign[:, held] < 0, sign[:, held] > 0], axis=1).T
    ranks = stats.rankdata(scores, axis=0)
    null = ((ranks * positive).sum(0) - n * (n + 1) / 2) / n**2
    return {
        "auroc": float(beats.mean()),
        "low": float(low),
        "high": float(high),
        "null": float(null.mean()),
        "null low": float(np.quantile(null, 0.025)),
        "null high": float(np.quantile(null, 0.975)),
        "d′": float((high_scores.mean() - low_scores.mean()) / spread) if spread > 0 else 0.0,
    }
