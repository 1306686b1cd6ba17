"""Principal components of last-token activations of a task under two prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elicit.analysis.base import Analysis, halves, plain
from elicit.analysis.internals.inputs import contrast, items_of, last_activations
from elicit.models.model import Model
from elicit.models.zoo import task_for
from probes.geometry import activation_pca, pca_figure
from probes.sites import Site, depth

NAME = "activation-pca"
SUMMARY = (
    "activations of a task's questions under a direct and a chain-of-thought prompt, on their principal components"
)
PAPER = ""


def analyse(
    model: Model,
    *,
    task: str = "",
    split: str = "fit",
    limit: int = 64,
    prompt: Sequence[str] = (),
    layer: int | None = None,
    point: str = "resid_post",
    seed: int = 0,
) -> Analysis:
    """Components of the last prompt token's activations, fitted on half of the questions.

    Args:
        task, split, limit: the questions, unless given the model's own task.
        prompt: names of the two prompts (see `elicit.analysis.internals.inputs.contrast`).
        layer: the middle one unless given.
        point: hook point.
        seed: of the halves and the permutations.
    """
    pair = contrast(model, prompt)
    site = Site(depth(model.lm) // 2 if layer is None else layer, point)
    task = task or task_for(model.name)
    items = items_of(task, split, limit)
    ids = [p.ids(item.question, model.tokenizer) for _, p in pair for item in items]
    labels = [name for name, _ in pair for _ in items]
    values = last_activations(model, ids, [site])[site]
    fit = halves(len(items), seed)
    projection = activation_pca(
        values,
        labels,
        fit=[*fit.tolist(), *fit.tolist()],
        positions=[len(i) - 1 for i in ids],
        groups=[item.id for _ in pair for item in items],
        seed=seed,
    )
    shown = [item.question if len(item.question) < 80 else item.question[:79] + "…" for _ in pair for item in items]
    low, high = projection.null_interval
    share = np.cumsum(projection.explained)
    table = [
        {"component": n + 1, "share of variance": float(e), "cumulative": float(c)}
        for n, (e, c) in enumerate(zip(projection.explained, share, strict=True))
    ]
    notes = [
        f"Last prompt token at {site}; components from {int(projection.fitted.sum())} activations, "
        f"{projection.measure} {projection.separation:.3f} on the {int((~projection.fitted).sum())} others.",
        f"Null: the prompts' names exchanged at random within each question: {low:.3f} to {high:.3f} (95%), "
        f"p = {projection.p_value:.3f}.",
        "Left out: " + ", ".join(f"{n} {why}" for why, n in projection.left_out.items()) + ".",
    ]
    if len({i[-1] for i in ids}) > 1:
        notes.append("The prompts end in different tokens, which is enough to separate them at any layer.")
    return Analysis(
        NAME,
        table,
        pca_figure(projection, hover=shown, title=f"Activations at {site}, {len(items)} questions"),
        notes,
        {
            "task": task,
            "split": split,
            "site": str(site),
            "p_value": projection.p_value,
            "items": [item.id for _ in pair for item in items],
            **plain(projection),
        },
    )
