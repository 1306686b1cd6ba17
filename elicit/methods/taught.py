"""A teacher's answers to fit questions, and training on texts: what `backward-reasoning` and `dpo-teacher` share.

The teacher is the base itself unless another model is named. What it says goes over as text and is put into the base's
own tokens, so that a teacher may have any tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.continuing import continuing_ids
from elicit.decoding.progress import Progress, Silent, measure
from elicit.elicited import Elicited
from elicit.evaluation.run.store import folder_for
from elicit.methods.base import NeedsItems, check_counts
from elicit.methods.documents import blank_after
from elicit.models.identity import grounds
from elicit.models.model import Model, load_model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.training.objectives import as_many_tokens
from elicit.training.recipe import Example, Recipe
from elicit.training.saved import train_and_save
from elicit.training.sft import Backward
from probes.errors import UserError
from probes.files import digest
from steering.adapters import Tuned

Batch = Callable[[int], list[Example]]
ASKS = {"both": "half of each", "plain": "the bare prompt", "think": "asked to think step by step"}
RECIPE = ("steps", "rows", "lr", "rank", "part", "checkpointing", "seed")  # options that a recipe is made of
ROWS = 64  # answers that are decoded together


class Said(NamedTuple):
    """What was answered: the text, the answer found in it, whether that is right, and whether it came to its end."""

    text: str
    answer: str | None
    correct: bool
    ended: bool


def teacher_of(model: Model, name: str) -> Model:
    """The base itself, or a model by name, hub id or folder."""
    return load_model(name, device=str(model.lm.device)) if name else model


def questions_of(name: str, items: Items | None, most: int) -> Items:
    """The first fit items with answers.

    Raises:
        UserError: no items, none with an answer, fewer than one asked for.
    """
    check_counts(name, questions=most)
    if items is None:
        raise NeedsItems(f"{name} trains on fit items of a task")
    some = tuple(item for item in items.task.solved if item.answer is not None)[:most]
    if not some:
        raise UserError(f"task {items.task.name!r} has no fit items with answers to train on; give a task that has")
    return Items(items.task, some)


def said(handle: Elicited, items: Items, progress: Progress | None) -> list[list[Said]]:
    """For each item what a handle answers; empty texts are left out."""
    progress = progress or Silent()
    progress.arm(handle.method, len(items), 0)
    each = max(1, ROWS // handle.decoder.branches)
    out = []
    for start in range(0, len(items), each):
        some = handle.answer(items[start : start + each], progress.step)
        progress.advance(len(some), sum(trace.spent for traces in some for trace in traces))
        for traces in some:
            found = [Said(t.text.strip(), t.answer, t.correct, t.finish != "length") for t in traces]
            out.append([one for one in found if one.text])
    return out


def example(tokenizer: PreTrainedTokenizerBase, put: Prompt, question: str, text: str, ended: bool = True) -> Example:
    """A question as it is put, and a text that is learned after it, with its end where it came to one.

    Raises:
        UserError: a tokenizer without an end token.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise UserError("the tokenizer has no end token, so no end of an answer is learned; use another model")
    if put.base == "chat" and not put.begin:  # a template says itself what stands before an answer
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
    else:
        ids = continuing_ids(tokenizer, blank_after(put.text(question, tokenizer)) + text)
    return Example(put.ids(question, tokenizer), [*ids, end] if ended else ids)


def in_cycle(some: Sequence[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Each of them with another one, which is each taken once: one cycle through all."""
    order = [some[int(i)] for i in rng.permutation(len(some))]
    return list(zip(order, [*order[1:], *order[:1]], strict=True))


def recipe_of(
    each: int, *, steps: int, rows: int, lr: float, rank: int, part: int, checkpointing: bool, seed: int
) -> Recipe:
    """How a method trains whose step takes `rows` groups of `each` examples."""
    return Recipe(
        steps, each * rows, part=part, lr=lr, warmup=max(1, steps // 10), rank=rank, alpha=max(1, 2 * rank), seed=seed,
        checkpointing=checkpointing,
    )  # fmt: skip


def holding(recipe: Recipe, examples: Sequence[Example]) -> Recipe:
    """The recipe with rows of the longest example's length."""
    return replace(recipe, width=max(e.tokens for e in examples))


def trained(
    name: str,
    arm: str,
    model: Model,
    items: Items,
    examples: Sequence[Example],
    batch: Batch,
    recipe: Recipe,
    progress: Progress | None,
    *,
    loss: Callable[[PreTrainedModel], Backward] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[Tuned, dict[str, Any]]:
    """Train one arm; the same call resumes it.

    Args:
        name, arm: of the method, and of the arm under which steps are reported.
        model, items: the base, and what the examples are of.
        examples: all of them.
        batch: of a step.
        recipe: how, with a width that holds the longest example (`holding`).
        progress: reports each step.
        loss: as for `elicit.training.saved.train_and_save`.
        settings: what else decides the weights.

    Returns:
        The training, and what a fit keeps of it.
    """
    about = {
        "base": model.provenance.sha256, "dtype": model.dtype, "arm": arm, "examples": digest(list(examples)),
        **(settings or {}), **grounds(items, [model]),
    }  # fmt: skip
    folder = folder_for(f"{name}-fit", items.task.name, model.name, [recipe.kept(), about])

    def on_step(step: int, loss: float, tokens_per_second: float) -> None:
        (progress or Silent()).training(arm, step + 1, recipe.steps, f"loss {loss:.3f}")
        measure(progress, arm, step, {"loss": loss, "tokens_per_second": tokens_per_second})

    made, curve = train_and_save(model, batch, recipe, folder, identity=about, on_step=on_step, loss=loss)
    return made, {
        "folder": folder.name, "curve": [round(point.loss, 4) for point in curve],
        "trained": sum(point.tokens for point in curve), "seconds": round(sum(point.seconds for point in curve), 1),
    }  # fmt: skip


def supervised(
    name: str,
    arm: str,
    model: Model,
    items: Items,
    examples: Sequence[Example],
    other: Batch,
    recipe: Recipe,
    progress: Progress | None,
) -> tuple[Tuned, dict[str, Any]]:
    """Cross-entropy on examples, each step with as many tokens as the same step of `other` has."""
    batch = as_many_tokens(examples, other, recipe.seed)
    tokens = digest([sum(e.tokens for e in other(step)) for step in range(recipe.steps)])
    settings = {"tokens": tokens}
    return trained(name, arm, model, items, examples, batch, recipe, progress, settings=settings)


def sections(found: Mapping[str, Any], columns: Sequence[str], loss: str) -> list[Any]:
    """For the report: the training, and the first texts that it saw."""
    import plotly.graph_objects as go

    from probes.figures import styled, table

    figure = go.Figure(go.Scatter(y=found["curve"], mode="lines", name="loss"))
    figure.update_layout(xaxis_title="step", yaxis_title="loss, nats")
    shown = ["<h2>What it was trained on</h2>", table(tuple(columns), found["shown"], prose=True)]
    return [("Training", loss, styled(figure)), *shown]
