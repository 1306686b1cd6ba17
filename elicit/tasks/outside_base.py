"""What the process of `elicit.tasks.outside` knows of a task that another module holds."""

from __future__ import annotations

from typing import Any, Protocol

PROVED = 4  # items for which a form of the gold answer must be right
# How a model may state the gold answer; the first, or best, that the module's own grader finds right proves the grader.
FORMS = ("{}", "ANSWER: {}", "The answer is {}.", "\\boxed{{{}}}", "<answer>{}</answer>")


class Refused(Exception):
    """What a task asks for and cannot be honoured, in words."""


class Outside(Protocol):
    """A task that another module holds.

    `rows` are its items: `question`, `gold` (the right answer), `answer` (a response that its grader finds right), `id`
    and `split` where it has them, `metadata`. `own` says whether it has a grader.
    """

    rows: list[dict[str, Any]]
    own: bool

    def score(self, index: int, response: str) -> float:
        """The verdict on a response to an item, in [0, 1]."""
        ...
