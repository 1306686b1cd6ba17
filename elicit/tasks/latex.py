"""Mathematics as LaTeX writes it, in one spelling and taken apart: words, brackets, matrices, lists."""

from __future__ import annotations

import re

from elicit.tasks.numerals import MINUS, RAISED, groups_joined

_WORD = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|operatorname\*?|rm|bf)\s?\{([^{}]*)\}")
_SIGNS = {
    "×": r"\times ", "·": r"\cdot ", "÷": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∞": r"\infty ",
    "π": r"\pi ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "θ": r"\theta ", "≈": r"\approx ",
    "∅": r"\emptyset ", "\u2220": r"\angle ",
}  # fmt: skip
_NAMES = {
    "leqslant": "le", "leq": "le", "geqslant": "ge", "geq": "ge", "lt": "<", "gt": ">", "neq": "ne", "dfrac": "frac",
    "tfrac": "frac", "cfrac": "frac", "varnothing": "emptyset", "lbrace": "{", "rbrace": "}", "lvert": "vert",
    "rvert": "vert", "approxeq": "approx", "simeq": "approx", "div": "/", "land": "text{ and }", "lor": "text{ or }",
}  # fmt: skip


def undressed(text: str) -> str:
    """Mathematics in one spelling, without delimiters, sizes and blanks of LaTeX.

    Words stand between the characters 2 and 3, and character 4 ends a row of a matrix: what no text has.
    """
    plain = re.sub(rf"[{MINUS}]", "-", re.sub(r"[\x02-\x04]", "", text).strip().strip("*`").strip())
    for sign, name in _SIGNS.items():
        plain = plain.replace(sign, name)
    plain = re.sub(r"√\s?(\w+|\([^()]*\))", r"\\sqrt{\1}", plain)
    plain = re.sub(
        r"([\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+)", lambda m: f"^{{{m[1].translate(RAISED)}}}", plain
    )
    plain = re.sub(r"\\\\(?:\s?\[[^\]]*\])?", "\x04" if "\\begin" in plain else " ", plain)
    plain = re.sub(r"(?<![\\A-Za-z])sqrt\s?\(([^()]*)\)", r"\\sqrt{\1}", plain).replace("**", "^")
    plain = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", plain)
    plain = re.sub(r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " ", plain)
    plain = re.sub(r"\\(?:boxed|fbox)\s?\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1", plain)
    plain = re.sub(
        r"\\(?:left|right)\s?\.|\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])",
        "",
        plain,
    )
    plain = re.sub(
        r"\\([A-Za-z]+)",
        lambda m: "\\" + _NAMES[m[1]] if _NAMES.get(m[1], "<")[0] not in "<>/" else _NAMES.get(m[1], m[0]),
        plain,
    )
    plain = re.sub(r"\^\s?\{?\s?\\(?:circ|degree)\s?\}?|\\degree(?![a-z])|\u00b0|\u00ba", " \x02degree\x03 ", plain)
    plain = groups_joined(plain)
    plain = re.sub(r"\\[,;:!> ]|~|\\q?quad(?![a-z])|\\(?:hspace|phantom)\{[^{}]*\}", " ", plain)
    plain = plain.replace("\\%", " \x02%\x03 ").replace("%", " \x02%\x03 ").replace("\x02 \x02%\x03 \x03", "\x02%\x03")
    plain = _WORD.sub("\x02\\1\x03", _WORD.sub("\x02\\1\x03", plain))
    plain = re.sub(r"\x02([eidxyzn])\x03", r"\1", plain)  # upright constants and variables
    plain = " ".join(plain.split()).rstrip(".,;: ")
    return re.sub(r"^\x02([^\x02\x03]*)\x03$", r"\1", plain).strip()


_OPEN = {"(": "(", "[": "[", "\\{": "{", "\\langle": "("}
_CLOSE = {")": ")", "]": "]", "\\}": "}", "\\rangle": ")"}


def split(text: str, pattern: str) -> list[str]:
    """The parts between what matches the pattern outside brackets and words."""
    parts, depth, start, at = [], 0, 0, 0
    found = re.compile(pattern)
    while at < len(text):
        char = text[at]
        if depth == 0 and (cut := found.match(text, at)) and cut.end() > at:
            parts.append(text[start:at])
            start = at = cut.end()
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif text.startswith("\\begin", at):
            depth += 1
        elif text.startswith("\\end", at):
            depth -= 1
        at += (
            2 if char == "\\" and text[at + 1 : at + 2] not in ("{", "}") and not text[at + 1 : at + 2].isalpha() else 1
        )
    return [*parts, text[start:]]


def enclosed(plain: str) -> tuple[str, str, str] | None:
    """A bracket that is closed by the last character, with what it holds."""
    opened = next((name for name in _OPEN if plain.startswith(name)), None)
    closed = next((name for name in _CLOSE if plain.endswith(name)), None)
    if opened is None or closed is None or (opened == "\\{") != (closed == "\\}"):
        return None
    middle = plain[len(opened) : len(plain) - len(closed)]
    depth = 0
    for char in middle:
        depth += (char in "([{") - (char in ")]}")
        if depth < 0:
            return None
    return (_OPEN[opened], middle, _CLOSE[closed]) if depth == 0 and middle.strip() else None


def matrix(plain: str) -> list[list[str]] | None:
    found = re.fullmatch(r"\\begin\{([pbB]?(?:small)?matrix|array)\}(?:\{[clr|]*\})?(.*)\\end\{\1\}", plain, re.S)
    if not found or "\\begin" in found[2]:
        return None
    rows = [row for row in found[2].split("\x04") if row.strip()]
    return [row.split("&") for row in rows]
