"""Tasks: items in three fixed splits, the answers they ask for, and graders that prove themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.tasks.base import Grade as Grade
    from elicit.tasks.base import Grader as Grader
    from elicit.tasks.base import Item as Item
    from elicit.tasks.base import Items as Items
    from elicit.tasks.base import Task as Task
    from elicit.tasks.base import Validation as Validation
    from elicit.tasks.base import corrupt as corrupt
    from elicit.tasks.base import validate as validate
    from elicit.tasks.registry import load_task as load_task
    from elicit.tasks.registry import restored as restored
    from elicit.tasks.registry import task_names as task_names

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Grade": "elicit.tasks.base",
        "Grader": "elicit.tasks.base",
        "Item": "elicit.tasks.base",
        "Items": "elicit.tasks.base",
        "Task": "elicit.tasks.base",
        "Validation": "elicit.tasks.base",
        "corrupt": "elicit.tasks.base",
        "validate": "elicit.tasks.base",
        "load_task": "elicit.tasks.registry",
        "restored": "elicit.tasks.registry",
        "task_names": "elicit.tasks.registry",
    },
)
