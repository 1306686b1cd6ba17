"""Grade responses that anybody's model gave: a JSON Lines file of `gold` and `response`, without a model or a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elicit.tasks.answers import KINDS, Kind, find_answer
from elicit.tasks.base import Item
from elicit.tasks.grading import check_kind, grader_for, infer_kind
from probes.errors import UserError

WHY = {
    "raised": "the scorer could not read it",
    "time": "it used up the scorer's time",
    "memory": "it used up the scorer's memory",
    "died": "it ended the scorer's process, twice",
}


class Response(NamedTuple):
    """A gold answer, what a model said, and the kind of answer that is asked for (None: as the gold answers show)."""

    gold: str
    response: str
    kind: Kind | None


class Judged(NamedTuple):
    """The answer that was found (None: none) and how, whether it is right, and why."""

    answer: str | None
    found_by: str
    right: bool
    why: str


def judge(
    responses: Sequence[Response],
    kind: Kind | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> list[Judged]:
    """Find and judge the answer of each response.

    Args:
        responses: to be graded.
        kind: of those that have none of their own; unless given, what their gold answers show.
        progress: called with the responses done, and of how many.
    """
    kind = kind or infer_kind([one.gold for one in responses if one.kind is None])
    out = []
    for number, one in enumerate(responses):
        progress("responses", number, len(responses))
        out.append(_judged(one, one.kind or kind))
    return out


def _judged(one: Response, kind: Kind) -> Judged:
    found = find_answer(one.response, kind)
    grade = grader_for(kind).grade(Item("response", "", one.gold, "test"), found.text if found else None)
    if found is None:
        return Judged(None, "none", False, f"no answer of kind {kind}")
    verdict = WHY[grade.unjudged] if grade.unjudged else f"{'the same as' if grade.correct else 'not'} {one.gold}"
    return Judged(found.text, found.found_by, grade.correct, f"{verdict}, as {kind}")


def read_responses(path: Path) -> list[Response]:
    """Read a file of responses.

    Raises:
        UserError: no such file, no text, a line that is no object or lacks a field, an unknown kind; the line is named.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror}); give a JSON Lines file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} is no UTF-8 text ({error.reason}); save it as UTF-8") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{str(path)!r} holds no responses; give at least one line with gold and response")
    return [_response(f"{path}, line {number}", line) for number, line in lines]


def _response(where: str, line: str) -> Response:
    try:
        data: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{where}: not JSON ({error}); mend or remove the line") from error
    if not isinstance(data, dict):
        raise UserError(f"{where}: a {type(data).__name__}, expected an object with gold and response")
    gold, response, kind = data.get("gold"), data.get("response"), data.get("kind")
    if isinstance(gold, bool) or not isinstance(gold, str | int | float) or not str(gold).strip():
        raise UserError(f"{where}: no 'gold', expected text or a number; add it or remove the line")
    if not isinstance(response, str):
        raise UserError(f"{where}: no 'response', expected text; add it or remove the line")
    if kind is not None:
        try:
            check_kind(kind, KINDS)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return Response(str(gold), response, kind)
