"""Find the answer in a response, as characters and as token ids.

What counts as the answer depends on its kind: the last number, the last arithmetic expression, the last option letter,
the last `\\boxed{}`, or the text after "answer is" (else the last line). The span is then carried onto the *original*
token ids through each token's place in the decoded text; nothing is tokenised again, so no index shifts.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal["number", "expression", "option", "math", "text"]
KINDS: tuple[Kind, ...] = ("number", "expression", "option", "math", "text")

LONGEST = 500  # characters of a number: what is longer is compared as text (Python reads no more than 4,300 digits)

# A number does not begin inside a word or another number; a minus after a digit or bracket is an operator.
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<![\d)\]}])[-\u2212])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+(?![\d/]))?|(?<![\w.])\.\d+"
)
# Whole numbers joined by signs, with brackets where they are.
_EXPRESSION = re.compile(r"(?<![\w.)])[(\s]*\d+(?:[\s)]*[-+*/×÷\u2212][\s(]*\d+)+(?:\s*\))*")
_OPTION = re.compile(
    r"\(([A-J])\)|(?:answer(?:\s+is)?:?\s*)\(?([A-J])\b|(?:^|\n)\s*\(?([A-J])(?:[).:]|\s*(?:$|\n))", re.I
)
_MARKER = re.compile(r"(?:answer\s*(?:is|:|=)\s*:?)[ \t]*(?P<rest>[^\n]+)", re.I)
_DOLLARS = re.compile(r"\$([^$\n]+)\$")


class Answer(NamedTuple):
    """An answer and where it stands: characters [start, end) of the text."""

    text: str
    start: int
    end: int


def find_answer(text: str, kind: Kind) -> Answer | None:
    """The last answer of this kind in the text, or None."""
    if kind == "number":
        return _last_number(text)
    if kind == "expression":
        return _last_expression(text)
    if kind == "option":
        return _last_option(text)
    if kind == "math":
        return _last_boxed(text) or _after_marker(text, math=True) or _last_dollars(text) or _last_number(text)
    return _after_marker(text, math=False) or _last_line(text)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(reversed(list(pattern.finditer(text))), None)


def _last_number(text: str) -> Answer | None:
    found = _last(_NUMBER, text)
    return Answer(found.group(), found.start(), found.end()) if found else None


def _last_expression(text: str) -> Answer | None:
    found = _last(_EXPRESSION, text)
    return _trimmed(text, found.start(), found.end()) if found else None


def _last_option(text: str) -> Answer | None:
    found = _last(_OPTION, text)
    if found is None:
        return None
    group = found.lastindex or 0
    return Answer(found.group(group).upper(), found.start(group), found.end(group))


def _last_boxed(text: str) -> Answer | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return _trimmed(text, start, end)
    return None


def _after_marker(text: str, *, math: bool) -> Answer | None:
    found = _last(_MARKER, text)
    if found is None:
        return None
    start, end = found.span("rest")
    if math:
        inner = _DOLLARS.search(text, start, end)
        if inner:
            return _trimmed(text, *inner.span(1))
        sentence = re.search(r"\.(?:\s|$)", text[start:end])
        end = start + sentence.start() if sentence else end
    return _trimmed(text, start, end)


def _last_dollars(text: str) -> Answer | None:
    found = _last(_DOLLARS, text)
    return _trimmed(text, *found.span(1)) if found else None


def _last_line(text: str) -> Answer | None:
    end = len(text.rstrip())
    start = text.rfind("\n", 0, end) + 1
    return _trimmed(text, start, end)


def _trimmed(text: str, start: int, end: int) -> Answer | None:
    """The span without surrounding blanks, quotes, stars and a closing period; None if nothing is left."""
    while start < end and text[start] in " \t\n\"'*`":
        start += 1
    while end > start and text[end - 1] in " \t\n\"'*`.":
        end -= 1
    return Answer(text[start:end], start, end) if end > start else None


@lru_cache(maxsize=65536)  # a run gives the same answers again and again
def number_value(text: str | None) -> Fraction | None:
    """The exact value of a written number (1,234 = 1234.00, $5, 50%, 1/3), or None if it is none.

    One of more than `LONGEST` characters is held for none: it equals itself, as a text, and no other.
    """
    if text is None:
        return None
    plain = text.strip().replace("\u2212", "-").strip("$€£ ").removesuffix("%").replace(",", "").strip()
    if len(plain) > LONGEST or not re.fullmatch(r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:/\d+)?", plain):
        return None
    numerator, _, denominator = plain.partition("/")
    if denominator and int(denominator) == 0:
        return None
    return Fraction(numerator) / Fraction(denominator) if denominator else Fraction(numerator)


_SIGNS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def expression_value(text: str | None) -> tuple[Fraction, list[int]] | None:
    """The exact value of an expression of whole numbers and + - * / with brackets, and its numbers in order.

    None where it is no such expression, or divides by 0.
    """
    if text is None or len(text) > 200:
        return None
    plain = text.replace("×", "*").replace("÷", "/").replace("\u2212", "-").strip()
    try:
        tree = ast.parse(plain, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # also NUL, lone surrogates, brackets too deep
        return None
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction | None:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            numbers.append(node.value)
            return Fraction(node.value)
        if not isinstance(node, ast.BinOp) or type(node.op) not in _SIGNS:
            return None
        left, right = value(node.left), value(node.right)
        if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0):
            return None
        return _SIGNS[type(node.op)](left, right)

    total = value(tree)
    return None if total is None else (total, numbers)


def token_span(ends: Sequence[int], answer: Answer) -> tuple[int, int]:
    """The tokens [first, last) that hold at least one character of the answer."""
    first = next(i for i, end in enumerate(ends) if end > answer.start)
    last = next((i + 1 for i, end in enumerate(ends) if end >= answer.end), len(ends))
    return first, max(last, first + 1)
