"""Critique fine-tuning on TRL's `SFTTrainer` (trainer `trl`): the same examples in the same steps, the same loss.

A step of ours is the sum of cross-entropies over its critiques' tokens, divided by their number, whatever number of
examples its rows hold. TRL's steps have a number of examples that is always the same: shorter ones are filled up with
rows without a target, which have no part in sum or number. Examples are not packed: each is a row of its own. Nothing
is dropped, as in ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from elicit.models.model import Model
from elicit.models.processes import first, processes
from elicit.training import trl_common
from elicit.training.recipe import Example, OnStep, Point, Recipe
from elicit.training.trl_state import Checkpoint
from probes.errors import as_expected
from probes.files import write_whole

NONE = -100  # what has no target
STATE = "trl.json"


def rows(batch: Callable[[int], list[Example]], steps: int, size: int) -> tuple[list[dict[str, list[int]]], int]:
    """All steps' rows in order, and how many a step has: a multiple of `size`."""
    drawn = [batch(step) for step in range(steps)]
    each = -(-max(map(len, drawn)) // size) * size
    out: list[dict[str, list[int]]] = []
    for some in drawn:
        out += [{"input_ids": e.prompt + e.target, "labels": [NONE] * len(e.prompt) + e.target} for e in some]
        empty = {"input_ids": some[0].prompt[:1], "labels": [NONE]}
        out += [empty] * (each - len(some))
    return out, each


def trainer(
    model: Model,
    batch: Callable[[int], list[Example]],
    recipe: Recipe,
    folder: Path,
    given: Mapping[str, Any],
    state: Checkpoint | None = None,
    **more: Any,
) -> Any:
    """TRL's trainer of this recipe, and the model that it trains.

    Raises:
        UserError: options that TRL refuses.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if recipe.checkpointing:
        given = {**given, "activation_checkpointing": True}
    part = given.get(trl_common.PART, recipe.part)
    data, each = rows(batch, recipe.steps, part * processes())
    decided = {
        trl_common.PART: trl_common.part_of(each, recipe.part, given),
        "gradient_accumulation_steps": each // processes() // part,
        "train_sampling_strategy": "sequential", "max_length": None, "packing": False,
    }  # fmt: skip
    args = trl_common.arguments(SFTConfig, decided, given, model, recipe, folder, state)
    return trl_common.trainer(
        SFTTrainer, recipe.rate, model, recipe, args, state, train_dataset=Dataset.from_list(data), **more
    )  # fmt: skip


def train(
    model: Model,
    batch: Callable[[int], list[Example]],
    recipe: Recipe,
    folder: Path,
    *,
    identity: Mapping[str, Any],
    given: Mapping[str, Any] = trl_common.NOTHING,
    save_every: int = 0,
    state_every: int = 10,
    on_step: OnStep | None = None,
) -> list[Point]:
    """Train, resume what was stopped, or read the curve of a finished training; every process calls it and gets the
    same.

    Args:
        model: the base; it is as it was afterwards.
        batch: the examples of a step, a function of its number alone.
        recipe: how; its rows and width are the batch's affair.
        folder: for what `elicit.training.saved` writes, the curve and the state; its name says what decides the
            training.
        identity: what else decides the result (data, base); a state of another is refused.
        given: options of TRL's `SFTConfig` that the recipe does not decide.
        save_every: steps between two savings of what is trained; 0: none.
        state_every: steps between two states.
        on_step: called after each step.

    Raises:
        UserError: what TRL refuses; the state of another training.
    """
    from transformers import TrainerCallback
    from trl import __version__

    if (folder / STATE).is_file():
        return _kept(folder)
    kept = {**recipe.kept(), "checkpointing": recipe.checkpointing}
    wanted = {"recipe": kept, **identity, "trl": dict(given), "version": __version__}
    resumed = trl_common.checkpoint(folder, wanted, state_every, given)
    curve = [Point(*point) for point in resumed.kept or ()]
    resumed.more = lambda: curve
    clock = [time.perf_counter()]

    class Callback(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs:
                return
            step, seconds = state.global_step - 1, time.perf_counter() - clock[-1]
            tokens = sum(e.tokens for e in batch(step))
            curve.append(Point(step, logs["loss"], logs["grad_norm"], tokens, seconds))
            if on_step is not None:
                on_step(step, logs["loss"], tokens / seconds)

    saver = trl_common.saver(save_every, recipe, folder, model, torch.bfloat16)
    made, lm = trainer(model, batch, recipe, folder, given, resumed, callbacks=[Callback(), saver])
    saver.made, saver.lm = made, lm
    trl_common.run(made, recipe.steps, resumed)
    trl_common.save(made, lm, recipe, folder, model, torch.bfloat16)
    if first():
        write_whole(folder / STATE, json.dumps(curve))
        resumed.remove()
    made.accelerator.wait_for_everyone()
    return _kept(folder)


def _kept(folder: Path) -> list[Point]:
    with as_expected(repr(str(folder / STATE)), "give another folder"):
        return [Point(*point) for point in json.loads((folder / STATE).read_text(encoding="utf-8"))]
