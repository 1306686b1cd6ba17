"""A task of Inspect on the organism's questions, under their own ids; `inspect eval tests/inspect/task.py` runs it."""

from __future__ import annotations

from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from elicit.tasks.base import Items
from elicit.tasks.registry import load_task


def as_task(items: Items, **options: Any) -> Task:
    """The same questions, each with its id and the kind of its answer."""
    samples = [
        Sample(
            id=item.id,
            input=item.question,
            target=item.answer or "",
            metadata={"elicit_kind": items.task.kind_of(item)},
        )
        for item in items
    ]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=includes(), **options)


@task
def organism(items: int = 6, split: str = "test") -> Task:
    """The first questions of a split."""
    return as_task(load_task("organism", limit=items).split(split))
