"""Items of lm-eval's tasks: their ids."""

from __future__ import annotations

import json
from typing import Any

from elicit.tasks.base import content_id


class SampleIds:
    """Ids for the documents of tasks, from their content: the same wherever one stands, and whatever else is asked.

    What has one task and number is one document; others of the same content get a number of their own.
    """

    def __init__(self) -> None:
        self.numbers: dict[str, list[int | None]] = {}

    def of(self, task: str | None, number: int | None, doc: Any) -> str:
        """The id of a document: its task's name, the number that lm-eval gave it, and what it holds."""
        text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
        name = f"{task or 'text'}-{content_id(text)}"
        seen = self.numbers.setdefault(name, [])
        if number not in seen:
            seen.append(number)
        at = seen.index(number)
        return f"{name}-{at + 1}" if at else name
