"""A task of Inspect on the organism's questions, under their own ids; `inspect eval tests/inspect/task.py` runs it."""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from elicit.tasks.registry import load_task


@task
def organism(items: int = 6, split: str = "test") -> Task:
    """The first questions of a split."""
    asked = load_task("organism", limit=items).split(split)
    samples = [Sample(id=item.id, input=item.question, target=item.answer or "") for item in asked]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=includes())
