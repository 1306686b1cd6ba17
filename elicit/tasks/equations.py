"""Equations of numbers in any text, each exactly right or wrong; what is not surely an equation is left alone.

3 + 4 = 7, $1,200 × 2 = 2400, 10 / 4 = 2.5, 10 / 3 = 3.33: a result that is written with decimals is right where it is
the exact value rounded to as many. Both sides of every sign of equality are compared, so 2 + 3 = 5 = 6 is wrong.

LaTeX and Markdown are read as the same (`\\frac{6}{2} \\times 4 = 12`, `**3** + 4 = 7`, `$5 + $3 = $8`). What is a
piece of something longer is left alone: times (5:30), digits in groups (1 000), 1 1/2, powers, remainders.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import NamedTuple

LONGEST = 200  # characters; what is longer is a model gone astray, and left alone
_BLANK = r" \t\xa0\u2009\u202f"
_NUMBER = r"(?:[$€£¥] ?)?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?: ?[$€¢])?"
_REST = rf"-?{_NUMBER}(?:[{_BLANK})]*[-+*/][{_BLANK}(]*-?{_NUMBER})*(?:[{_BLANK}]*\))*"
_EQUATION = re.compile(rf"(?<![\w.,)\]}}])(?:\([{_BLANK}(]*)?{_REST}(?:[{_BLANK}]*\n?[{_BLANK}]*=[{_BLANK}(]*{_REST})+")
_OPERATION = re.compile(r"[\d)$€¢]\s*[-+*/]")
# What stands before or after a number and makes it part of something larger: a variable, a power, "half of 6 + 2",
# the hours of a time, the first digits of 1 000, the whole of 1 1/2, the number of a step.
_TIED_BEFORE = re.compile(
    r"(?:[-+*/^%(\[{\\]\s*|\d[^\S\n]+|\d:|\b(?:of|times|plus|minus|over|by|mod|than)\s*"
    r"|\b(?:step|case|part|day|week|round|line|item|question|problem|example)\s*)$",
    re.I,
)
_TIED_AFTER = re.compile(
    r"[^\S\n]*[-+*/^%(\[\\!?]|\s*\+|\n\s*[-*/][\d(]|\w|[.,:]\d|\.?\\|\.\.|…|[^\S\n]+\d"
    r"|\s*(?:of|times|plus|minus|over|mod|o'?clock|[ap]\.?m)\b",
    re.I,
)
_REMAINDER = re.compile(r"[^.\n]{0,40}?\b(?:rem|left|over|R\s*\d)", re.I)  # 10 / 3 = 3 remainder 1
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_UNSEEN = re.compile(
    r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{(?P<inner>[^{}\\]*)\}|\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?)(?=\s*[()])"
    r"|\\[()\[\],;:! ]|\\q?quad\b|&|(?<![\w)*])\*\*(?P<bold>[^*\n]+)\*\*(?![\w(*])"
)
_SIGNS = (
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])|[×·⋅]|(?<=\d) *[xX] *(?=\d)|(?<=[\d)]) +[xX] +(?=\()"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|÷"), "/"),
    (re.compile(r"[\u2212\u2013\u2010\u2011\ufe63\uff0d]"), "-"),
    (re.compile(r"\\\$"), "$"),
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")


class Equation(NamedTuple):
    """An equation in a text: characters [start, end), and what its first side really makes where it is wrong."""

    text: str
    start: int
    end: int
    right: bool
    value: Fraction


def equations(text: str) -> list[Equation]:
    """All equations of a text, in order; those that hold no operation (x = 3) are none."""
    out = []
    for found, start, end in _written(text):
        written = text[start:end].strip()
        sides = [side.strip() for side in found.group().split("=")]
        values = [value_of(side) for side in sides]
        if len(written) > LONGEST or None in values:
            continue
        known = [value for value in values if value is not None]
        right = all(_same(a, b, side) for (a, b), side in zip(pairwise(known), sides[1:], strict=True))
        if not right and "/" in found.group() and _REMAINDER.match(found.string, end):
            continue
        out.append(Equation(written, start, end, right, known[0]))
    return out


def holds_equation(text: str) -> bool:
    """Whether an equation is written out in a text, right or wrong, with numbers and an operation."""
    return any(_OPERATION.search(found.group()) for found in _EQUATION.finditer(_plain(text)))


def _written(text: str) -> Iterator[tuple[re.Match[str], int, int]]:
    """What is surely an equation, as plain text, and its characters [start, end) in the text."""
    plain = _plain(text)
    for found in _EQUATION.finditer(plain):
        start, end = found.span()
        tied = _TIED_BEFORE.search(plain[max(0, start - LONGEST) : start]) or _TIED_AFTER.match(plain, end)
        if not tied and any(_OPERATION.search(side) for side in found.group().split("=")):
            yield found, start, end


def _plain(text: str) -> str:
    """The text without mark-up, as long as it was, so that every character keeps its place."""

    def unseen(found: re.Match[str]) -> str:
        kept = found.lastgroup or 0
        inner = found[kept] if kept else ""
        return (" " * (found.start(kept) - found.start()) + inner).ljust(len(found.group()))

    plain = text.replace("\\\\", " \n")
    plain = re.sub(r"\d{1,3}(?:\{,\}\d{3})+", lambda m: m.group().replace("{,}", ",").ljust(len(m.group())), plain)
    plain = _UNSEEN.sub(unseen, plain)
    for sign, instead in _SIGNS:
        plain = sign.sub(partial(_in_place_of, instead), plain)
    return _FRACTION.sub(lambda m: f"(({m[1]})/({m[2]}))".ljust(len(m.group())), plain)


def _in_place_of(sign: str, found: re.Match[str]) -> str:
    return sign.ljust(len(found.group()))


_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def value_of(side: str) -> Fraction | None:
    """The exact value of a number or an expression, decimals, thousands and currencies included."""
    plain = re.sub(r"[$€£¥¢]|(?<=\d),(?=\d{3})", "", _plain(side)).strip()
    exact = _DECIMAL.sub(lambda m: f"({int(m[1] + m[2])}/{10 ** len(m[2])})", plain)
    if len(exact) > 2 * LONGEST:
        return None
    try:
        return _value(ast.parse(" ".join(exact.split()), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):  # also leading zeros
        return None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("not an expression of numbers")


def shown(value: Fraction) -> str:
    """A value as text: whole, with its decimals where they end, or as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    places = next((n for n in range(1, 7) if (value * 10**n).denominator == 1), None)
    return f"{float(value):.{places}f}" if places else f"{value.numerator}/{value.denominator}"


def _same(exact: Fraction, said: Fraction, side: str) -> bool:
    decimals = re.fullmatch(r"-?(?:[$€£¥] ?)?[\d,]*\.(\d+)(?: ?[$€¢])?", side)
    return exact == said or (decimals is not None and abs(exact - said) <= Fraction(1, 2 * 10 ** len(decimals[1])))
