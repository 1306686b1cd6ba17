"""Activation patching of two prompts: where the clean prompt's answer is carried, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elicit.analysis.base import Analysis, plain
from elicit.analysis.internals.inputs import one_token, piece, token_ids
from elicit.models.model import Model
from probes.errors import UserError, unknown
from probes.lens import visible
from probes.sweep import Band, layer_sweep
from steering.patching import POINTS, Patching, patch, patching_map

NAME = "patching"
SUMMARY = "which layer and position carry the difference between two prompts: clean activations in the corrupted run"
PAPER = "2309.16042"
CLEAN, CORRUPTED = "The capital of France is", "The capital of Italy is"
UNRELATED = 4


def analyse(
    model: Model,
    *,
    prompt: Sequence[str] = (CLEAN,),
    corrupt: str = CORRUPTED,
    answer: str | None = None,
    wrong: str | None = None,
    layer: int | None = None,
    point: str = "resid_post",
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Patch each layer × position, or with `point="all"` each layer × hook point at the last position.

    Args:
        prompt: the clean prompt.
        corrupt: the corrupted one, of as many tokens.
        answer, wrong: what each should say next, a token each; what it does say unless given.
        layer: this one alone.
        point: `resid_post`, `attn_out`, `mlp_out` or `all`.
        seed: of the random prompts of the null.
    """
    if len(prompt) != 1:
        raise UserError(f"{len(prompt)} clean prompts were given; give one --prompt and one --corrupt")
    if point not in (*POINTS, "all"):
        raise unknown("hook point to patch", point, [*POINTS, "all"])
    tokens = [None if text is None else one_token(model, text) for text in (answer, wrong)]
    every = point == "all"
    found = patch(
        model.lm,
        token_ids(model, prompt[0]),
        token_ids(model, corrupt),
        *tokens,
        points=POINTS if every else (point,),
        positions=(-1,) if every else None,
        layers=None if layer is None else (layer,),
        unrelated=UNRELATED,
        special=frozenset(int(i) for i in model.tokenizer.all_special_ids),
        seed=seed,
        progress=None if progress is None else lambda done, total: progress("patching", done, total),
    )

    def text(token: int) -> str:
        return piece(model, token)

    names = [
        p if every else f"{text(found.clean[at])!r} at {at}" for at, p in found.cells
    ]  # of the columns, for the table
    table = [_row(found, row, names) for row in reversed(range(len(found.layers)))]
    right, false = (visible(text(token)) for token in (found.answer, found.wrong))
    notes = [
        f"Logit difference of “{right}” against “{false}” at the last position: clean {found.clean_difference:+.2f}, "
        f"corrupted {found.corrupted_difference:+.2f}. An effect of 0 is the corrupted run and 1 the clean one.",
        f"Null: activations of {found.unrelated} prompts of random tokens in the same cells. What merely wipes out the "
        f"corrupted answer ends without a preference, at {found.no_preference:.2f}.",
    ]
    if found.clean_difference < 0:
        notes.append("The clean run itself prefers the wrong answer; read the map with that in mind.")
    if found.by_position and not every:
        notes.append(
            f"Before position {found.first_difference} the prompts are alike and clean activations change nothing."
        )
    more = [] if len(found.layers) == 1 else [("Layer by layer", _explain(every), _sweep(found))]
    return Analysis(
        NAME, table, patching_map(found, text), notes, {"prompts": [prompt[0], corrupt], **plain(found)}, more
    )


def _row(found: Patching, row: int, names: Sequence[str]) -> dict[str, Any]:
    best = int(np.argmax(found.effect[row]))
    assert found.null is not None and found.null_spread is not None
    return {
        "layer": found.layers[row],
        "best cell": names[best],
        "effect": float(found.effect[row, best]),
        "null there": float(found.null[row, best]),
        "± over prompts": float(found.null_spread[row, best]),
    }


def _explain(every: bool) -> str:
    if every:
        return "Each hook point at the last position."
    return "The positions where the prompts differ, patched one at a time (their best), and the last position."


def _sweep(found: Patching) -> Any:
    """Series along the layers; each with the null of the same cell, of which the band is one standard deviation."""
    assert found.null is not None and found.null_spread is not None
    names = [str(layer) for layer in found.layers]
    values: dict[str, Band] = {}
    nulls: dict[str, Band] = {}
    last = len(found.clean) - 1
    if found.by_position:
        differ = [c for c, (at, _) in enumerate(found.cells) if found.clean[at] != found.corrupted[at] and at != last]
        columns = {"where the prompts differ": differ, "last position": [len(found.cells) - 1]}
    else:
        columns = {point: [c] for c, (_, point) in enumerate(found.cells)}
    for name, chosen in columns.items():
        if not chosen:
            continue
        best = np.array(chosen)[found.effect[:, chosen].argmax(1)]
        rows = np.arange(len(best))
        null, spread = found.null[rows, best], found.null_spread[rows, best]
        values[name] = Band(found.effect[rows, best].tolist())
        nulls[f"null: {name}"] = Band(null.tolist(), (null - spread).tolist(), (null + spread).tolist())
    return layer_sweep(
        values,
        nulls=nulls,
        references={"no preference (logit difference 0)": found.no_preference},
        layers=names,
        title="Effect of patching by layer",
        y="0 corrupted … 1 clean",
    )
