"""Any JSON Lines file with `question` and `answer` (and, if there, `id` and `split`).

Rows of GSM8K and MATH are read as they are published: an answer that ends in `#### 12` is 12, and a `problem` without
an answer has that of the last box of its `solution`; what was worked out is kept as `metadata["solution"]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elicit.tasks.answers import KINDS, LONGEST, Kind, find_boxed
from elicit.tasks.base import SPLITS, Item, Task, content_id, is_found, mixed, split_of
from elicit.tasks.grading import check_kind, grader_for, infer_kind
from elicit.tasks.hub import about_problem
from probes.errors import UserError
from probes.files import sha256_of

_STATED = re.compile(r"(?:^|\n)[ \t]*####[ \t]*(\S[^\n]*?)\s*$")


def load(path: Path, params: dict[str, Any]) -> Task:
    """Read a file; `kind=` sets the kind of answer where the gold answers do not show it.

    Fit and dev items are mixed (`base.mixed`), but for those whose `split` the file states and whose `subject` it does
    not: their order is the author's.

    Raises:
        UserError: a line that is no JSON object or lacks a field (its number is given), a repeated id.
    """
    unknown_keys = set(params) - {"kind"}
    if unknown_keys:
        raise UserError(f"a task file has no parameter {sorted(unknown_keys)[0]!r}; it has kind")
    items: list[Item] = []
    ordered: set[str] = set()
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # JSON may hold other ends of lines, like U+2028
    except UnicodeDecodeError as error:
        raise UserError(f"task file {str(path)!r} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            item, stated = _item(path, number, line)
            if item.id in seen:
                raise UserError(
                    f"{path}, line {number}: id {item.id!r} stands on line {seen[item.id]} already; "
                    "give each item its own"
                )
            seen[item.id] = number
            items.append(item)
            if stated and "subject" not in item.metadata:
                ordered.add(item.id)
    if not items:
        raise UserError(f"task file {str(path)!r} holds no items; give at least one line")
    kind = params.get("kind") or _kind_of(items)
    check_kind(kind, KINDS)
    source = {"family": "file", "file": path.name, "sha256": sha256_of(path)}
    return Task(path.stem, mixed(items, ordered), grader_for(kind), kind, source)


def _kind_of(items: Sequence[Item]) -> Kind:
    """The kind that the gold answers are of; whole responses where they are texts that are not found otherwise."""
    kind = infer_kind([item.answer for item in items])
    if kind == "text" and not all(is_found(item, grader_for(kind), kind) for item in items):
        return "whole"
    return kind


def _item(path: Path, number: int, line: str) -> tuple[Item, bool]:
    """An item, and whether its split is the file's."""
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
    data, kept = _as_published(data)
    for field in ("question", "answer"):
        if not isinstance(data.get(field), str | int | float) or not str(data[field]).strip():
            raise UserError(f"{where}: no {field!r}, expected text or a number; add it or remove the line")
    question = str(data["question"])
    split = data.get("split") or split_of(question)
    if split not in SPLITS:
        raise UserError(f"{where}: split {split!r}, expected one of {', '.join(SPLITS)}")
    rest = {k: v for k, v in data.items() if k not in ("id", "question", "answer", "split", "solution")}
    name = content_id(question) if data.get("id") in (None, "") else str(data["id"])
    return Item(name, question, str(data["answer"]), split, {**rest, **kept}), bool(data.get("split"))


def _as_published(row: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row of GSM8K or MATH with a question and an answer, and what its item keeps beside them; any other as it is."""
    question, answer, solution = (row.get(name) for name in ("problem", "answer", "solution"))
    stated = _STATED.search(answer) if isinstance(answer, str) else None
    if stated:
        return {**row, "answer": stated[1]}, {"solution": answer}
    if "question" in row or not isinstance(question, str):
        return row, {}
    data = {key: value for key, value in row.items() if key != "problem"} | {"question": question}
    boxed = find_boxed(solution) if isinstance(solution, str) else None
    if "answer" in row or boxed is None:
        return data, about_problem(row)
    return {**data, "answer": boxed.text}, {**about_problem(row), "solution": solution}


def _whole(digits: str) -> int | str:
    """A whole number of JSON; one that is too long to be a number stays the text that it is."""
    return digits if len(digits) > LONGEST else int(digits)
