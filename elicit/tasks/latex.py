"""Mathematics as LaTeX writes it, in one spelling and taken apart: words, brackets, matrices, lists."""

from __future__ import annotations

import re

from elicit.tasks.numerals import MINUS, RAISED, groups_joined, in_full, multiplied

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

    Words stand between the characters 2 and 3, and character 4 ends a row of a matrix: what no text has. Groups of
    thousands are joined outside brackets (see `thousands_joined`).
    """
    plain = re.sub(rf"[{MINUS}]", "-", re.sub(r"[\x02-\x04]", "", in_full(text)).strip().strip("*`").strip())
    for sign, name in _SIGNS.items():
        plain = plain.replace(sign, name)
    plain = re.sub(r"√\s?(\w+|\([^()]*\))", r"\\sqrt{\1}", plain)
    plain = re.sub(
        r"([\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+)", lambda m: f"^{{{m[1].translate(RAISED)}}}", plain
    )
    plain = _LINED.sub(lambda m: _last_line(m["lines"]), plain)
    plain = re.sub(r"\\\\(?:\s?\[[^\]]*\])?", "\x04" if "\\begin" in plain else " ", plain)
    plain = re.sub(r"(?<![\\A-Za-z])sqrt\s?\(([^()]*)\)", r"\\sqrt{\1}", plain).replace("**", "^")
    plain = re.sub(r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi ", plain)
    plain = re.sub(r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " ", plain)
    plain = re.sub(r"\\(?:boxed|fbox)\s?\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1", plain)
    plain = re.sub(
        r"\\(?:left|right)\s?\.|\\(?:left|middle|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![A-Za-z])"
        r"|\\(?:tiny|small|normalsize|[lL]arge|LARGE|[hH]uge|checkmark)(?![A-Za-z])|\\(?:text)?color\s?\{[^{}]*\}",
        "",
        plain,
    )
    plain = re.sub(
        r"\\([A-Za-z]+)",
        lambda m: "\\" + _NAMES[m[1]] if _NAMES.get(m[1], "<")[0] not in "<>/" else _NAMES.get(m[1], m[0]),
        plain,
    )
    plain = re.sub(
        r"\^\s?(?:\{\s?(?:\\(?:circ|degree)|o)\s?\}|o(?![a-z])|\\(?:circ|degree)(?![a-z]))|\\degree(?![a-z])|\u00b0|\u00ba",
        " \x02degree\x03 ",
        plain,
    )
    plain = re.sub(r"\\langle(?![A-Za-z])|\u27e8", "(", re.sub(r"\\rangle(?![A-Za-z])|\u27e9", ")", plain))
    plain = thousands_joined(_ungrouped(_fractions(_BARE_ARM.sub(_braced, plain))))
    plain = re.sub(r"\\[,;:!> ]|~|\\q?quad(?![a-z])|\\(?:hspace|phantom)\{[^{}]*\}", " ", plain)
    plain = plain.replace("\\%", " \x02%\x03 ").replace("%", " \x02%\x03 ").replace("\x02 \x02%\x03 \x03", "\x02%\x03")
    plain = _WORD.sub("\x02\\1\x03", _WORD.sub("\x02\\1\x03", _RAISED_UNIT.sub(r"\1}\2", plain)))
    plain = re.sub(r"\x02\s*([,;]|\d+)\s*\x03", r"\1 ", plain)  # \text{, }
    plain = re.sub(r"\x02([eidxyzn])\x03", r"\1", plain)  # upright constants and variables
    plain = _ungrouped(re.sub(r"\\(?:text|mathrm|(?:math|text)bf|mathsf|boldsymbol|bm|underline)\s?(?=\{)", "", plain))
    plain = _UNIT.sub("\x02\\1/\\2\x03\\3", _IN_DEGREES.sub(r"\\\1\2(\\frac{\3\\pi}{180})", plain))
    plain = _TOLD.sub("", " ".join(plain.split()).rstrip(".,;: "))
    return multiplied(re.sub(r"^\x02([^\x02\x03]*)\x03$", r"\1", plain).strip())


# \text{in^2} for \text{in}^2.
_RAISED_UNIT = re.compile(r"(\\(?:text|textrm|mathrm|mbox|rm)\s?\{\s?[A-Za-z]+)\s?(\^\s?(?:\{\s?\d\s?\}|\d))\s?\}")
_TOLD = re.compile(r"^\x02?\s?(?:the )?(?:final |correct )?answer(?: is|:| =)[:\s\x03]+(?=\S)", re.I)
# Lines of a derivation; metres over seconds; an angle that a function is taken of.
_LINED = re.compile(
    r"\\begin\{(?P<name>(?:aligned|align|gathered|gather|split|equation|eqnarray)\*?)\}"
    r"(?P<lines>(?:(?!\\begin).)*?)\\end\{(?P=name)\}",
    re.S,
)
_UNIT = re.compile(r"\\frac\s?\{\s?\x02([^\x02\x03]*)\x03\s?\}\s?\{\s?\x02([^\x02\x03]*)\x03\s?(\^\s?\{?\d\}?)?\s?\}")
_IN_DEGREES = re.compile(
    r"\\(sin|cos|tan|cot|sec|csc)(\s?\^\s?\{?\s?\d\s?\}?)?[\s({]{0,3}(\d+(?:\.\d+)?)\s?\x02degree\x03[\s)}]{0,2}"
)


# Before a line of a derivation: its place, and that it follows; after it: why it does.
_LED_IN = re.compile(
    r"^(?:[&~\s]|\\q?quad(?![a-z])|\\[,;:! ]|\\text\s?\{\s*\}"
    r"|\\(?:implies|iff|(?:[Ll]ong)?(?:[Ll]eft)?[Rr]ightarrow)(?![A-Za-z]))+"
)
_REMARKED = re.compile(r"(?<!^)&\s*(?:\\q?quad\s*)*\\(?:text|mbox)\s?\{[^{}]*\}\s*$")


def _last_line(lines: str) -> str:
    """What lines of a derivation come to: each variable's value, else the last of them with those that it goes on."""
    told: list[str] = []
    for line in re.split(r"\\\\(?:\s?\[[^\]]*\])?", lines):
        line = _LED_IN.sub("", _REMARKED.sub("", line.strip().rstrip(".,")).strip().rstrip(".,"))
        if told and line.startswith(("=", "\\approx", "\\equiv")):
            told[-1] += f" {line}"
        elif line:
            told.append(line)
    told = [line.replace("&", " ").strip() for line in told]
    named = [re.match(r"([A-Za-z])\s*=", line) for line in told]
    names = {found[1] for found in named if found}
    return ", ".join(told) if len(names) == len(told) else told[-1] if told else ""


def _ungrouped(plain: str) -> str:
    """The mathematics without braces around all of it; with commas they are a set's, without its backslashes."""
    while (plain := plain.strip())[:1] == "{" and plain[-1:] == "}" and _whole(plain):
        inner = plain[1:-1]
        if len(split(inner, ",")) > 1:
            return rf"\{{{inner}\}}"
        plain = inner
    return plain


def _whole(plain: str) -> bool:
    """Whether the first brace is closed by the last character."""
    depth, before = 0, ""
    for at, char in enumerate(plain):
        if before != "\\":
            depth += (char == "{") - (char == "}")
        if depth == 0:
            return at == len(plain) - 1
        before = char if before != "\\" else ""
    return False


def _fractions(plain: str) -> str:
    r"""The mathematics with {a \over b} as \frac{a}{b}."""
    return _OVER.sub(r"\\frac{\1}{\2}", plain)


_COMMAND = r"\\(?:pi|theta|alpha|beta)(?![A-Za-z])|\\sqrt\s?(?:\{[^{}]*\}|\d)"
_BARE_ARM = re.compile(
    rf"\\frac\s?(?P<top>\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|{_COMMAND}|\d)\s?"
    rf"(?P<bottom>\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|{_COMMAND}|\d)"
)


def _braced(found: re.Match[str]) -> str:
    r"""A fraction with braces around an arm that is one command: \frac\pi2, \frac{1}\pi."""
    arms = [found["top"], found["bottom"]]
    return (
        found.group()
        if not any(arm[0] == "\\" for arm in arms)
        else "\\frac" + "".join(arm if arm[0] == "{" else f"{{{arm}}}" for arm in arms)
    )


_PART = r"((?:[^{}\\]|\\(?!over(?![A-Za-z]))|\{(?:[^{}]|\{[^{}]*\})*\})*)"
_OVER = re.compile(rf"\{{{_PART}\\over(?![A-Za-z]){_PART}\}}")

_OPEN = {"(": "(", "[": "[", "\\{": "{", "]": "("}  # ]0, 1[ is (0, 1)
_CLOSE = {")": ")", "]": "]", "\\}": "}", "[": ")"}
_BRACKET = re.compile(r"(?P<open>[(\[]|\\\{)|[)\]]|\\\}")
# Before a bracket: what takes several arguments, such as f, P, gcd.
_TAKES = re.compile(r"(?:(?<![\\A-Za-z])[A-Za-z]|gcd|lcm|max|min|\x03)\s?\Z")


def thousands_joined(text: str, *, within: bool = False) -> str:
    """The text with groups of thousands joined: by a bare comma outside brackets alone, else everywhere.

    In mathematics brackets hold members: (3,512) is the point (3, 512) and [100,200] an interval, whether a blank
    follows the comma or not. No gold answer puts one number in brackets, so (1,234) is a pair as well; in plain text,
    where a number is asked for, it is read without its brackets and is 1234 (`elicit.tasks.read_numbers`).

    Args:
        text: mathematics.
        within: whether brackets are factors, such as 5(1,234), but for arguments: f(1,234).
    """
    kept, depth, at = bytearray(len(text)), 0, 0
    opened: list[bool] = []
    for found in _BRACKET.finditer(text):
        start = found.start()
        if any(opened[-1:]) if within else depth:
            kept[at:start] = b"\1" * (start - at)
        at = start
        depth += 1 if found["open"] else -1
        if found["open"]:
            opened.append(any(opened[-1:]) or _TAKES.search(text, max(0, start - 5), start) is not None)
        elif opened:
            opened.pop()
    if any(opened[-1:]) if within else depth:
        kept[at:] = b"\1" * (len(text) - at)
    return groups_joined(text, lambda place: not kept[place])


def members(middle: str) -> list[str]:
    """The members of what stands in brackets, each from comma to comma.

    Where a blank follows some commas, those without one stand for thousands if all of them can: (1,000, 2,000); and so
    where two bounds are left of which one is infinite.
    """
    parts, joined = split(middle, ","), split(groups_joined(middle), ",")
    spaced = all(part[:1].isspace() for part in joined[1:])
    bounds = len(joined) == 2 and "\\infty" in middle
    return joined if len(joined) > 1 and (spaced or bounds) else parts


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
