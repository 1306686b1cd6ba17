"""What a training leaves on disk: an adapter or all weights, at its end and, where asked for, every so many updates.

    …/adapter/ or …/model/                    at the end
    …/steps/000020/adapter/ or …/model/       after 20 updates

A step is written before the state of the training that stands for it, so a training that was killed writes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.zoo import ADAPTER, WHOLE
from elicit.training.lora import save_adapter
from elicit.training.recipe import Example, OnStep, Point, Recipe
from elicit.training.sft import Backward, batches, cross_entropy, to_train, train
from probes.errors import UserError
from probes.files import inner_folder, make_folder, whole_files
from steering.adapters import Adapter, Tuned, Weights, silent

STEPS = "steps"
ONE_FILE = "100TB"  # a shard is never this large


def save_trained(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    folder: Path,
    base: str,
    dtype: torch.dtype = torch.float32,
    state: Mapping[str, Tensor] | None = None,
) -> Tuned:
    """The adapter as PEFT saves it, or all weights and the tokenizer, which `load_model` reads as well.

    Args:
        lm, tokenizer, recipe, base: what was trained and how, and the name of what it was trained from.
        folder: in which `adapter/` or `model/` is made.
        dtype: of the adapter; whole weights are kept as they were trained.
        state: the weights, where they were gathered from several processes; unless given, the model's own.
    """
    make_folder(folder)
    if recipe.rank:
        save_adapter(lm, recipe, folder / ADAPTER, base, dtype, None if state is None else dict(state))
        return Adapter(folder / ADAPTER)
    with whole_files(folder / WHOLE) as part, silent():
        lm.save_pretrained(part, state_dict=None if state is None else dict(state), max_shard_size=ONE_FILE)
        tokenizer.save_pretrained(part)
    return Weights(folder / WHOLE)


def train_and_save(
    model: Model,
    examples: Sequence[Example] | Callable[[int], list[Example]],
    recipe: Recipe,
    folder: Path,
    *,
    identity: dict[str, Any],
    on_step: OnStep | None = None,
    loss: Callable[[PreTrainedModel], Backward] | None = None,
) -> tuple[Tuned, list[Point]]:
    """Train an adapter, or all weights, on examples and save them; the base is as it was afterwards.

    Args:
        model: the base.
        examples: in batches as the recipe says, or a function from a step's number to its examples.
        recipe, folder, identity, on_step: as for `elicit.training.sft.train`.
        loss: from the model before anything is trained, what makes a step's gradient; unless given, cross-entropy.

    Raises:
        UserError: as `elicit.training.sft.train`.
    """
    with to_train(model.lm, recipe.rank) as lm:
        batch = examples if callable(examples) else batches(examples, recipe.rows, recipe.width, recipe.seed)
        backward = cross_entropy if loss is None else loss(lm)
        curve = train(lm, batch, recipe, folder, identity=identity, on_step=on_step, backward=backward)
        return save_trained(lm, model.tokenizer, recipe, folder, model.name), curve


def step_folder(folder: Path, updates: int) -> Path:
    """Where a training keeps what it had after so many updates."""
    inner_folder(make_folder(folder) / STEPS)
    return folder / STEPS / f"{updates:06d}"


def due(updates: int, every: int) -> bool:
    """Whether what is trained is saved after so many updates."""
    return every > 0 and updates % every == 0


def saved_steps(handle: Elicited) -> dict[int, Elicited]:
    """A trained handle as it was after each number of updates that its training saved (`save_every`).

    Args:
        handle: of a method that trains; what it was trained into is where it was.

    Returns:
        By the number of updates, in order; each is a handle as any other.

    Raises:
        UserError: a handle that nothing was saved of.
    """
    name = handle.options.get("found", {}).get("folder")
    places = [] if name is None else [Path(name), Path("runs") / name]
    steps = next((place / STEPS for place in places if (place / STEPS).is_dir()), None)
    if steps is None:
        raise UserError(
            f"nothing was saved in the middle of the training of {handle.method}"
            + (f" (there is no {str(places[0] / STEPS)!r})" if places else "")
            + "; train with save_every of 1 or more, and read it in the folder that holds runs/"
        )
    found: dict[int, Elicited] = {}
    for place in sorted(steps.iterdir()):
        tuned: Tuned = Adapter(place / ADAPTER) if (place / ADAPTER).is_dir() else Weights(place / WHOLE)
        found[int(place.name)] = replace(handle, adapter=tuned)
    return found
