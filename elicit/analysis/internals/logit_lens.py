"""Logit lens of a prompt: what each layer would say next, and at which layer the answer is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from elicit.analysis.base import Analysis, plain
from elicit.analysis.internals.inputs import one_token, piece, token_ids
from elicit.models.model import Model
from probes.errors import UserError
from probes.lens import lens_grid, visible
from probes.lens import logit_lens as read
from probes.sweep import Band, layer_sweep

NAME = "logit-lens"
SUMMARY = "the next token that each layer of a prompt already holds, read with the model's own head"
PAPER = "2303.08112"
PROMPT = "The capital of France is Paris. The capital of Italy is"
GRID = 16  # positions drawn, the last ones


def analyse(model: Model, *, prompt: Sequence[str] = (PROMPT,), answer: str | None = None) -> Analysis:
    """Read every layer at every position.

    Args:
        prompt: texts; the grid shows the first, the sweep all of them.
        answer: a token to follow; the model's own next token at each position unless given.
    """
    if not prompt:
        raise UserError("no prompt was given; give --prompt")
    target = None if answer is None else one_token(model, answer)
    lenses = [read(model.lm, token_ids(model, text), target=target) for text in prompt]

    def text(token: int) -> str:
        return piece(model, token)

    first = lenses[0]
    start = max(0, len(first.ids) - GRID)
    names = first.layers
    stacked = {
        name: np.concatenate([getattr(lens, name) for lens in lenses], axis=1)
        for name in ("top", "probability", "rank", "other", "kl")
    }
    positions = stacked["probability"].shape[1]
    agree = (stacked["top"] == stacked["top"][-1]).mean(1)
    table = [
        {
            "layer": names[row],
            "top token": visible(text(int(first.top[row, -1]))),
            "p(target)": float(stacked["probability"][row].mean()),
            "null": float(stacked["other"][row].mean()),
            "rank": int(np.median(stacked["rank"][row])),
            "KL": float(stacked["kl"][row].mean()),
            "agrees": float(agree[row]),
        }
        for row in reversed(range(len(names)))
    ]
    follows = "the model's own next token" if target is None else f"“{visible(text(target))}”"
    prompts = f"{len(lenses)} prompts" if len(lenses) > 1 else "1 prompt"
    notes = [
        f"The target is {follows}. Means over {positions} positions of {prompts}, of the rank the median; KL in nats; "
        "agrees: fraction of positions whose likeliest token is already the output's. "
        "The top token is that of the first prompt's last position.",
        f"Uniform over the vocabulary would be p = {1 / model.vocab_size:.1e}.",
    ]
    if start:
        notes.append(f"The grid shows the last {GRID} of {len(first.ids)} positions; the data hold all.")
    if target is None:
        notes.insert(1, "Null: the mean probability of the targets of other positions.")
    colour = "top_probability" if target is None else "probability"
    return Analysis(
        name=NAME,
        table=table,
        figure=lens_grid(first, text, colour=colour, first=start),
        notes=notes,
        data={
            "prompts": list(prompt),
            "target": target,
            "layers": names,
            "by_layer": table,
            "lenses": plain(lenses),
        },
        more=[
            ("How far from the output", "Colour: KL to the model's own distribution.",
             lens_grid(first, text, colour="kl", first=start)),
            ("Layer by layer", f"Probability of {follows}; the band is the middle half of the positions.",
             _sweep(stacked, names)),
        ],
    )  # fmt: skip


def _sweep(stacked: dict[str, np.ndarray], names: Sequence[str]) -> go.Figure:
    p = stacked["probability"]
    low, high = np.quantile(p, [0.25, 0.75], axis=1)
    other = stacked["other"]
    return layer_sweep(
        {"target": Band(p.mean(1).tolist(), low.tolist(), high.tolist())},
        nulls={} if np.isnan(other).any() else {"null: targets of other positions": Band(other.mean(1).tolist())},
        layers=names,
        title="Probability of the target by layer",
        y="probability",
    )
