"""Boxes of LaTeX, in which a solution of a mathematical problem puts its answer."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(-?\d+(?:[.,/]\d+)*))")


def in_box(text: str) -> str | None:
    """What stands in the last box of a text that is closed and holds something, or None.

    `\\boxed{12}`, `\\boxed {12}`, `\\fbox{12}`, and a number without braces, `\\boxed 12`.
    """
    for found in reversed(list(_BOX.finditer(text))):
        inside = found[1] or _closed(text, found.end())
        if inside is not None and inside.strip(" \t\n.$…"):
            return inside
    return None


def _closed(text: str, start: int) -> str | None:
    """The text up to the brace that closes one which was opened before `start`."""
    depth, at = 1, start
    while at < len(text):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
        at += 2 if text[at] == "\\" else 1
    return None
