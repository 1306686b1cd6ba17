"""Any JSON Lines file with `question` and `answer` (and, if there, `id` and `split`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elicit.tasks.answers import KINDS, LONGEST
from elicit.tasks.base import SPLITS, Item, Task, content_id, split_of
from elicit.tasks.grading import check_kind, grader_for, infer_kind
from probes.errors import UserError
from probes.files import sha256_of


def load(path: Path, params: dict[str, Any]) -> Task:
    """Read a file; `kind=` sets the kind of answer where the gold answers do not show it.

    Raises:
        UserError: a line that is no JSON object or lacks a field (its number is given), a repeated id.
    """
    unknown_keys = set(params) - {"kind"}
    if unknown_keys:
        raise UserError(f"a task file has no parameter {sorted(unknown_keys)[0]!r}; it has kind")
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip():
            item = _item(path, number, line)
            if item.id in seen:
                raise UserError(
                    f"{path}, line {number}: id {item.id!r} stands on line {seen[item.id]} already; "
                    "give each item its own"
                )
            seen[item.id] = number
            items.append(item)
    if not items:
        raise UserError(f"task file {str(path)!r} holds no items; give at least one line")
    kind = params.get("kind") or infer_kind([item.answer for item in items])
    check_kind(kind, KINDS)
    source = {"family": "file", "file": path.name, "sha256": sha256_of(path)}
    return Task(path.stem, tuple(items), grader_for(kind), kind, source)


def _item(path: Path, number: int, line: str) -> Item:
    where = f"{path}, line {number}"
    try:
        data = json.loads(line, parse_int=_whole)
        json.dumps(data, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, column {error.colno}); mend or remove the line") from error
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise UserError(f"{where}: half a character ({half!r}, a lone surrogate); mend or remove the line") from error
    except RecursionError as error:
        raise UserError(f"{where}: brackets nested too deep to be read; mend or remove the line") from error
    if not isinstance(data, dict):
        raise UserError(f"{where}: a {type(data).__name__}, expected an object with question and answer")
    for field in ("question", "answer"):
        if not isinstance(data.get(field), str | int | float) or not str(data[field]).strip():
            raise UserError(f"{where}: no {field!r}, expected text or a number; add it or remove the line")
    question = str(data["question"])
    split = data.get("split") or split_of(question)
    if split not in SPLITS:
        raise UserError(f"{where}: split {split!r}, expected one of {', '.join(SPLITS)}")
    rest = {k: v for k, v in data.items() if k not in ("id", "question", "answer", "split", "solution")}
    return Item(str(data.get("id") or content_id(question)), question, str(data["answer"]), split, rest)


def _whole(digits: str) -> int | str:
    """A whole number of JSON; one that is too long to be a number stays the text that it is."""
    return digits if len(digits) > LONGEST else int(digits)
