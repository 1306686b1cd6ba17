"""Graders: each compares keys (`elicit.tasks.equality`), or asks a data set's own scorer.

Expressions are worked out, and reasoning-gym's scorers run, in a process that can be killed (`elicit.tasks.worker`).
An answer that gets no verdict is not right, and `Grade.unjudged` says why: the scorer `raised`, it used up its `time`
or `memory`, or the worker `died` of it twice. Only a worker that cannot start is an error.
"""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from elicit.tasks.answers import Kind, expression_value, number_value
from elicit.tasks.base import Grade, Grader, Item
from elicit.tasks.equality import (
    Form,
    Key,
    code_key,
    expression_key,
    form_of,
    math_key,
    number_key,
    option_key,
    text_key,
    whole_key,
)
from elicit.tasks.worker import WORKER as WORKER
from elicit.tasks.worker import DeadlineExceeded as DeadlineExceeded
from elicit.tasks.worker import OutOfMemory as OutOfMemory
from elicit.tasks.worker import Unjudged, WorkerDied
from elicit.tasks.worker import Worker as Worker
from elicit.tasks.worker import WorkerHangs as WorkerHangs
from probes.errors import UserError

# What decides which answer is found and how it is judged; the hash of these files is the version of both.
SOURCES = (
    "answers", "equality", "grader_process", "grading", "latex", "notes", "numerals", "read_maths", "read_numbers",
    "read_options", "statements", "units", "worker",
)  # fmt: skip


def _version() -> str:
    texts = [(Path(__file__).parent / f"{name}.py").read_bytes() for name in SOURCES]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


VERSION = _version()


def _asked(operation: str, **arguments: Any) -> Any:
    """The worker's result. A worker that dies or hangs is replaced once: something else may have killed it.

    Raises:
        Unjudged: as `Worker.ask`.
    """
    try:
        return WORKER.ask(operation, **arguments)
    except (WorkerDied, WorkerHangs):
        return WORKER.ask(operation, **arguments)


@lru_cache(maxsize=65536)
def _math_value(text: str, name: str) -> tuple[Key | None, str]:
    """The key of an expression, and why there is none where it could not be worked out."""
    try:
        found = _asked("math_value", text=text, name=name)
    except Unjudged as error:
        return None, error.reason
    return (None if found is None else tuple(found)), ""


@lru_cache(maxsize=65536)
def _math_key(text: str, form: Form) -> tuple[Key, str]:
    """The key of an answer of mathematics, and why it is only that of its text where it could not be worked out."""
    reasons: list[str] = []

    def evaluate(expression: str, name: str) -> Key | None:
        key, reason = _math_value(expression, name)
        reasons.extend([reason] if reason else [])
        return key

    return math_key(text, form, evaluate), reasons[0] if reasons else ""


class KeyGrader:
    """Answers are the same where their keys are (`elicit.tasks.equality`)."""

    key: Callable[[str], Key]

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(
            float(answer is not None and item.answer is not None and self.key(answer) == self.key(item.answer))
        )

    def groups(self, answers: Sequence[str]) -> list[int]:
        return _group_by_key([self.key(answer) for answer in answers])


class NumberGrader(KeyGrader):
    """Exact equality of the numbers written, without their units: 1,234 = 1234.00, and 0.33 is not 1/3."""

    key = staticmethod(lru_cache(maxsize=65536)(number_key))


class TextGrader(KeyGrader):
    """Equality of the texts, without regard to case, blanks, kinds of quotes and dashes, and a closing period."""

    key = staticmethod(text_key)


class OptionGrader(KeyGrader):
    """Equality of the letters: (A), A., A) and a are the same."""

    key = staticmethod(option_key)


class CodeGrader(KeyGrader):
    """Equality of the lines, without regard to blanks at their ends."""

    key = staticmethod(code_key)


class WholeGrader(KeyGrader):
    """Equality of every character between the first and the last that is no blank."""

    key = staticmethod(whole_key)


class ExpressionGrader:
    """Any expression of the item's `numbers` (each at most once, two or more) that makes its `target`; with items whose
    metadata have neither, a number or an expression of the gold answer's exact value.
    """

    def grade(self, item: Item, answer: str | None) -> Grade:
        if "target" not in item.metadata:
            said, gold = _exact(answer), _exact(item.answer)
            return Grade(float(said is not None and said == gold))
        found = expression_value(answer)
        if found is None:
            return Grade(0.0)
        value, used = found
        fits = len(used) > 1 and not Counter(used) - Counter(item.metadata["numbers"])
        return Grade(float(fits and value == item.metadata["target"]))

    def groups(self, answers: Sequence[str]) -> list[int]:
        """Numbers by value; expressions by value and the numbers that they use."""
        return _group_by_key([expression_key(answer) for answer in answers])


class MathGrader:
    """Equality of mathematics in the form that the gold answer has; expressions are read by math-verify."""

    @property
    def depends(self) -> dict[str, Any]:
        return {"math-verify": version("math-verify")}

    def grade(self, item: Item, answer: str | None) -> Grade:
        if answer is None or item.answer is None:
            return Grade(0.0)
        if item.answer.strip() == answer.strip():
            return Grade(1.0)
        form = form_of([item.answer])
        (gold, unread), (said, reason) = _math_key(item.answer, form), _math_key(answer, form)
        return Grade(float(gold == said), "" if gold == said else reason or unread)

    def groups(self, answers: Sequence[str]) -> list[int]:
        form = form_of(answers)
        return _group_by_key([_math_key(answer, form)[0] for answer in answers])


class ReasoningGymGrader:
    """The data set's own scorer; it grades partially, and only 1.0 is right."""

    def __init__(self, dataset: str, seed: int, params: dict[str, Any]) -> None:
        self.arguments = {"dataset": dataset, "seed": seed, "params": params}
        self._score = lru_cache(maxsize=65536)(self._ask)

    @property
    def depends(self) -> dict[str, Any]:
        return {**self.arguments, "reasoning-gym": version("reasoning-gym")}

    def _ask(self, index: int, answer: str) -> Grade:
        try:
            return Grade(float(_asked("reasoning_gym_score", **self.arguments, index=index, answer=answer)))
        except Unjudged as error:
            return Grade(0.0, error.reason)

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(0.0) if answer is None else self._score(item.metadata["index"], answer)

    def groups(self, answers: Sequence[str]) -> list[int]:
        return _group_by_key([number_key(answer) for answer in answers])


def identity_of(grader: Grader) -> dict[str, Any]:
    """What a grader's verdicts rest on: its name, the version of how answers are found and judged, and what it says
    that it `depends` on."""
    return {"name": type(grader).__qualname__, "version": VERSION, **getattr(grader, "depends", {})}


def grader_for(kind: Kind) -> Grader:
    return _GRADERS[kind]()


_GRADERS: dict[Kind, Callable[[], Grader]] = {
    "number": NumberGrader,
    "last-number": NumberGrader,
    "expression": ExpressionGrader,
    "option": OptionGrader,
    "math": MathGrader,
    "text": TextGrader,
    "code": CodeGrader,
    "whole": WholeGrader,
}


def infer_kind(golds: Sequence[str | None]) -> Kind:
    """The kind of answer that a task asks for, from its gold answers."""
    known = [g for g in golds if g is not None]
    if not known:
        return "text"
    if all(number_value(g) is not None and "frac" not in g for g in known):
        return "number"
    letters = string.ascii_uppercase + string.ascii_lowercase[:10]  # x and y are variables
    if all(len(core := g.strip("(). ")) == 1 and core in letters for g in known):
        return "option"
    if any("\\" in g or number_key(g)[0] == "number" for g in known):
        return "math"
    return "text"


def check_kind(kind: object, known: Sequence[str]) -> None:
    """Refuse what names no kind of answer: in a file it may be anything."""
    if not isinstance(kind, str) or kind not in known:
        raise UserError(f"answer kind {kind!r} was given; give one of {', '.join(known)}")


def _exact(text: str | None) -> Fraction | None:
    number, found = number_value(text), expression_value(text)
    return number if number is not None else found[0] if found else None


def _group_by_key(keys: Sequence[Any]) -> list[int]:
    first: dict[Any, int] = {}
    return [first.setdefault(key, i) for i, key in enumerate(keys)]
