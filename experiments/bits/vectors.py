"""A dense direction in fewer and fewer bits a coordinate: how many of them its accuracy needs.

The difference of means of prompts with the instruction and without it, at the last prompt token, as large as the
residual stream; quantised, and beside it a random direction of the same length.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.description import bits_of
from elicit.evaluation.evaluator import evaluate
from elicit.methods.baselines import cot_prompt, direct
from elicit.models.model import Model
from elicit.models.prompts import THINK, Prompt
from elicit.tasks.base import Items
from probes.description import FLOAT_BITS, quantised
from probes.sites import Site
from steering.directions import Direction
from steering.find import contrast, stream_norm
from steering.interventions import Add, Intervention, When

LAYER = 20
READ = 64  # fit questions
BITS = (32, 8, 4, 2, 1)  # a coordinate
RANDOM = "random direction"


def of_layer(model: Model, questions: Items, layer: int = LAYER) -> Direction:
    """Found on fit questions; they end in the same tokens with the instruction and without it."""
    site, fit = Site(layer, "resid_post"), questions.task.split("fit")[:READ]
    asked, plain = (
        [put.ids(item.question, model.tokenizer) for item in fit] for put in (Prompt().asked(THINK), Prompt())
    )
    found = contrast(model.lm, asked, plain, site, name="difference of means")
    return replace(found, resid_norm=stream_norm(model.lm, plain, site))


def rounded(direction: Direction, bits: int) -> Direction:
    """With so many bits a coordinate; those it is kept in are all."""
    if bits == FLOAT_BITS:
        return direction
    vector = torch.from_numpy(quantised(direction.vector.numpy(), bits)).float()
    return replace(direction, vector=vector, name=f"{direction.name}, {bits} bits")


def curve_of(model: Model, questions: Items, folder: Path, limit: int, progress: Progress) -> dict[str, Any]:
    """Bits and right answers of the direction in each precision."""
    direction = of_layer(model, questions)

    def steered(name: str, one: Direction) -> Elicited:
        push = Intervention(Add(one), 1.0, unit="resid", when=When.last_prompt_token())
        return Elicited(model, name, decoder=Greedy(limit), interventions=(push,))

    handles = {f"{bits} bits": steered(f"{bits} bits", rounded(direction, bits)) for bits in BITS}
    handles[RANDOM] = steered(RANDOM, direction.random_like(0))
    shared: dict[str, Any] = {"max_new_tokens": limit}
    first = direct.fit(model, questions, **shared)
    beside = {cot_prompt.NAME: cot_prompt.fit(model, questions, **shared), **handles}
    metrics = evaluate(first, questions, against=beside, out=folder, progress=progress).metrics
    rows = []
    for bits in BITS:
        whole = bits_of(metrics, f"{bits} bits")
        assert whole is not None
        choice = whole - FLOAT_BITS * direction.d_model
        scale = 0 if bits == FLOAT_BITS else FLOAT_BITS
        rows.append(
            {"a coordinate": bits, "bits": choice + scale + bits * direction.d_model, "choice": choice,
             "right": metrics["arms"][f"{bits} bits"]["right"]}
        )  # fmt: skip
    return {
        "model": metrics["model"], "n": len(questions), "ceiling": metrics["arms"][cot_prompt.NAME]["right"],
        "direct": metrics["arms"][direct.NAME]["right"], "random": metrics["arms"][RANDOM]["right"], "rows": rows,
    }  # fmt: skip
