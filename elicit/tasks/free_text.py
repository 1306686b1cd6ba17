"""Prompts without a right answer, as items."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from elicit.tasks.base import Grade, Item, Items, Task
from probes.errors import UserError


class Ungraded:
    """The grader of free text: nothing is right or wrong."""

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(0.0)

    def groups(self, answers: Sequence[str]) -> list[int]:
        return [list(answers).index(a) for a in answers]


def free_text(texts: Sequence[str]) -> Items:
    """Prompts without a right answer, as items; put as they are with `Prompt("template", template="{question}")`.

    Raises:
        UserError: none, or an empty one.
    """
    if not texts or not all(text.strip() for text in texts):
        raise UserError("no prompt, or an empty one, was given; give text to continue")
    name = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
    items = tuple(Item(f"prompt-{i}", text, None, "test") for i, text in enumerate(texts))
    return Items(Task(f"text-{name}", items, Ungraded(), "text", {"family": "text"}), items)
