"""Equations of numbers in any text, each exactly right or wrong; what is not surely an equation is left alone.

3 + 4 = 7, $1,200 × 2 = 2400, 10 / 4 = 2.5, 10 / 3 = 3.33: a result that is written with decimals is right where it is
the exact value rounded to as many. Both sides of every sign of equality are compared, so 2 + 3 = 5 = 6 is wrong.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from elicit.tasks.answers import expression_value, number_value

LONGEST = 200  # characters; what is longer is a model gone astray, and left alone
_NUMBER = r"[$€£]?\d+(?:,\d{3})*(?:\.\d+)?"
_SIDE = rf"[(\s]*-?{_NUMBER}(?:[\s)]*[-+*/×÷\u2212][\s(]*{_NUMBER})*(?:\s*\))*"
_EQUATION = re.compile(rf"(?<![\w.,)]){_SIDE}(?:\s*=\s*{_SIDE})+")
# What stands before or after a number and makes it part of something larger: a variable, a power, "half of 6 + 2".
_TIED_BEFORE = re.compile(r"(?:[-+*/×÷\u2212^%·(\[{\\]|\b(?:of|times|plus|minus|over|by|mod|than))\s*$", re.I)
_TIED_AFTER = re.compile(r"\s*[-+*/×÷\u2212^%·(\[\\!]|\w|[.,]\d|\s*(?:of|times|plus|minus|over|mod)\b", re.I)
_DECIMAL = re.compile(r"(\d+)\.(\d+)")


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
    for found in _EQUATION.finditer(text):
        start = found.start() + len(found.group()) - len(found.group().lstrip())
        written = found.group().strip()
        if len(written) > LONGEST or _TIED_BEFORE.search(text[:start]) or _TIED_AFTER.match(text, found.end()):
            continue
        sides = [side.strip() for side in written.split("=")]
        values = [value_of(side) for side in sides]
        if not any(re.search(r"\d[\s)]*[-+*/×÷\u2212]", side) for side in sides) or None in values:
            continue
        known = [value for value in values if value is not None]
        right = all(_same(a, b, side) for (a, b), side in zip(pairwise(known), sides[1:], strict=True))
        out.append(Equation(written, start, found.end(), right, known[0]))
    return out


def value_of(side: str) -> Fraction | None:
    """The exact value of a number or an expression, decimals and thousands included."""
    plain = re.sub(r"[$€£]|(?<=\d),(?=\d{3})", "", side).strip()
    number = number_value(plain)
    if number is not None:
        return number
    exact = _DECIMAL.sub(lambda m: f"({int(m[1] + m[2])}/{10 ** len(m[2])})", plain)
    exact = re.sub(r"^(\(*)\s*-", r"\g<1>0 -", exact)
    found = expression_value(exact)
    return found[0] if found else None


def shown(value: Fraction) -> str:
    """A value as text: whole, with its decimals where they end, or as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    places = next((n for n in range(1, 7) if (value * 10**n).denominator == 1), None)
    return f"{float(value):.{places}f}" if places else f"{value.numerator}/{value.denominator}"


def _same(exact: Fraction, said: Fraction, side: str) -> bool:
    decimals = re.fullmatch(r"-?[$€£]?[\d,]*\.(\d+)", side)
    return exact == said or (decimals is not None and abs(exact - said) <= Fraction(1, 2 * 10 ** len(decimals[1])))
