"""Items of lm-eval's tasks: their ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from elicit.tasks.base import content_id


def sample_ids(docs: Sequence[tuple[str | None, int | None, Any]]) -> list[str]:
    """An id for each document of a task, from its content: the same wherever it stands, and whatever else is asked.

    Args:
        docs: for each the task's name, the number that lm-eval gave it, and the document. What has one task and number
            is one document; others of the same content get a number of their own.
    """
    numbers: dict[str, list[int | None]] = {}
    out = []
    for task, number, doc in docs:
        text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
        name = f"{task or 'text'}-{content_id(text)}"
        seen = numbers.setdefault(name, [])
        if number not in seen:
            seen.append(number)
        at = seen.index(number)
        out.append(f"{name}-{at + 1}" if at else name)
    return out
