"""Documents that thought is trained on, and next-token training on the same ones: what `rlp` and `quiet-star` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from elicit.decoding.progress import Progress, Silent, measure
from elicit.evaluation.description import ids_bits, signal
from elicit.evaluation.run.store import folder_for
from elicit.methods.base import NeedsItems
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items, content_id
from elicit.tasks.organism.language import write
from elicit.tasks.organism.solver import family_of, solve
from elicit.tasks.texts import read_texts
from elicit.training.recipe import Example, Recipe
from elicit.training.saved import train_and_save
from probes.errors import UserError
from probes.files import digest
from steering.adapters import Tuned

SUPERVISED = "same tokens, supervised"  # the control


def documents_of(
    name: str, model: Model, items: Items | None, prompt: Prompt, text: str, most: int, *, worked: bool
) -> tuple[list[str], Items | None]:
    """The documents as texts, and the items that they are of, where they are.

    Args:
        name: of the method.
        model, items, prompt: whose fit items are documents unless `text` names some, each a question with its answer.
        text: a source of `elicit.tasks.texts`, or "".
        most: how many are taken, the first ones.
        worked: of items their worked solutions instead of their bare answers.

    Raises:
        UserError: neither text nor items with answers; `worked` without solutions; as `read_texts`.
    """
    if text:
        return read_texts(text, most), None
    if items is None:
        raise NeedsItems(f"{name} trains on texts", "text=FILE")
    answered = [item for item in items.task.solved if item.answer is not None][:most]
    if not answered:
        raise UserError(f"task {items.task.name!r} has no fit items with answers to make documents of; give text=FILE")
    put = [prompt.text(item.question, model.tokenizer) for item in answered]
    told = [f"{text}{blank_after(text)}{answer_in(item, worked)}" for text, item in zip(put, answered, strict=True)]
    return told, Items(items.task, tuple(answered))


def blank_after(prompt: str) -> str:
    """What stands between a prompt and an answer to it: a blank, unless the prompt ends in one or in a line end."""
    return "" if prompt[-1:].isspace() else " "


def answer_in(item: Item, worked: bool) -> str:
    """What stands after an item's question in its document: the bare answer or, where it is `worked`, the solution.

    Raises:
        UserError: `worked`, and the task does not say how.
    """
    if not worked:
        return str(item.answer)
    solution = solution_of(item)
    if solution is None:
        raise UserError(f"worked was given and {item.id} has no worked solution; leave it out, or give text=FILE")
    return solution


def solution_of(item: Item) -> str | None:
    """A worked solution: of an organism's item in its words, else the task's own; None where there is none."""
    if family_of(item) is not None:
        return write(solve(item), np.random.default_rng([*content_id(item.id).encode()])).text
    solution = item.metadata.get("solution")
    return solution if isinstance(solution, str) else None


def told_by(model: Model, documents: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """What a fit's `options[SIGNAL]` holds: the documents as the base codes them, since rewards follow from them."""
    return signal("documents", sum(ids_bits(model, ids) for ids in documents))


def record(told: Sequence[str], documents: Sequence[Sequence[int]], here: Items) -> dict[str, Any]:
    """What a fit keeps of its documents.

    Args:
        told: as texts.
        documents: as tokens.
        here: their positions.
    """
    return {
        "documents": len(documents), "positions": len(here), "tokens": sum(map(len, documents)),
        "sha256": digest(documents), "shown": [one[:400] for one in told[:2]],
    }  # fmt: skip


def supervised(
    name: str,
    model: Model,
    documents: Sequence[Sequence[int]],
    rows: int,
    recipe: Recipe,
    progress: Progress | None,
    *,
    warmup: int,
) -> tuple[Tuned, dict[str, Any]]:
    """Next-token training on documents: `rows` of the longest one's length an update.

    Args:
        name: of the method whose control it is.
        model, documents: what is trained on what.
        rows: of an update.
        recipe: of the method's own training; how many updates, and how fast. Its rate stays constant, as the
            method's does.
        progress: reports each update.
        warmup: of the learning rate.
    """
    width = max(map(len, documents))
    recipe = replace(recipe, rows=rows, width=width, part=min(5, rows), warmup=warmup, schedule="constant")
    about = {"base": model.provenance.sha256, "dtype": model.dtype, "documents": digest(documents)}
    folder = folder_for(f"{name}-sft", about["documents"], model.name, [recipe.kept(), about])
    examples = [Example(list(ids[:1]), list(ids[1:])) for ids in documents if len(ids) > 1]

    def on_step(step: int, loss: float, tokens_per_second: float) -> None:
        (progress or Silent()).training(SUPERVISED, step + 1, recipe.steps, f"loss {loss:.3f}")
        measure(progress, SUPERVISED, step, {"loss": loss, "tokens_per_second": tokens_per_second})

    made, curve = train_and_save(model, examples, recipe, folder, identity=about, on_step=on_step)
    tokens = sum(point.tokens for point in curve)
    return made, {"folder": folder.name, "losses": [round(point.loss, 4) for point in curve], "trained": tokens}
