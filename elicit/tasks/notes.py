"""A note on a number: what is said of it in brackets, 18 (9 × 2), and is no part of it.

A blank stands before its brackets, and nothing behind them that makes them a factor, or the number one of several:
2(7) and 2 (7) = 14 are products.
"""

from __future__ import annotations

import re

from elicit.tasks.numerals import MINUS, MONEY, NUMERAL
from elicit.tasks.statements import Answer, trimmed

_NOTE = re.compile(
    r"[ \t\u00a0]+(?P<note>\((?:[^()\n]|\([^()\n]*\))*\)|\[[^\[\]\n]*\])"
    r"(?!\s*(?:[+/^=\u00d7\u00f7$({\[]|\*(?!\*)|\*\*\s?\d|[-\u2212]\s?[\d(]|x\s?\d"
    r"|\\(?:[)\]]|times|cdot|div|frac|sqrt))|,?\s(?:and|or)\s[*$\\(]{0,3}\d)"
)
_FRACTION = re.compile(r"\(\s*\d+/\d+\s*\)")
# A number with what it counts; what joins it to more is no unit.
_JOINS = r"(?:and|or|in|is|at|to|of|mod|from|for|if|when|sin|cos|tan|log|ln)\b"
_COUNTED = re.compile(
    rf"[\s*_`]*(?P<said>(?:[a-z]\s?=\s?)?(?:{MONEY})?(?P<number>{NUMERAL.pattern})(?:\s?(?:\\?%|\u00b0))?"
    rf"(?:\s?(?!{_JOINS})(?:[mgshl]|[a-z]{{2,15}})(?![A-Za-z])(?:\^?[23\u00b2\u00b3])?){{0,3}})"
    r"[*_`]{0,3}(?=[ \t\u00a0]+[(\[])"
)
# Of a note: what begins it, a variable (9 x 2 has none), a point or a list.
_BEGINS = re.compile(rf".\s*[\w$\\=\u2248~{MINUS}]")
_VARIABLE = re.compile(
    r"(?<![A-Za-z\\])\d{0,9}(?:[a-wyz]\s?[-+*/^\u00b2\u00b3]|x\s?[-+^\u00b2\u00b3])|[-+*/]\s?\d{0,9}[a-wyz](?![A-Za-z])"
    r"|\d(?:[a-wyz]|x(?!\s?\d))(?![A-Za-z])"
)
_TUPLE = re.compile(r"[(\[][^A-Za-z(\[]*,[^A-Za-z]*[)\]]")


def note_end(text: str, number: str, start: int, end: int) -> int | None:
    """Where a note ends that begins here, behind a number."""
    found = _NOTE.match(text, start, end)
    # 3 (1/2) may be a number and its fraction
    return None if not found or (number.isdigit() and _FRACTION.fullmatch(found["note"])) else found.end()


def noted(text: str, start: int, end: int, found_by: str) -> Answer | None:
    """The number at the beginning of a region with what it counts, where a note on it follows.

    None where the brackets may be a factor, or a point: 3 (x + 1), 2 points (3, 4).
    """
    found = _COUNTED.match(text, start, end)
    stop = note_end(text, found["number"], found.end(), end) if found else None
    if found is None or stop is None:
        return None
    note = text[found.end() : stop].strip()
    pair = found["said"][-1:].isalpha() and _TUPLE.fullmatch(note)
    if pair or _VARIABLE.search(note) or not _BEGINS.match(note):
        return None
    return trimmed(text, *found.span("said"), found_by)


def note_around(text: str, start: int, end: int, place: int) -> int | None:
    """Where the note begins that stands around a place and ends its sentence."""
    opened = text.rfind("(", start, place)
    if opened <= start or not text[opened - 1].isspace():
        return None
    found = _NOTE.match(text, opened - 1, end)
    return opened if found and found.end() > place and not text[found.end() : end].strip(" .!*_\n") else None
