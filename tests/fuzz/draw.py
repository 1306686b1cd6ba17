"""Random inputs, drawn from the pieces that parsers look for: texts with answers, JSON values, lines of TOML."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

NUMBERS = (
    "0", "7", "12", "-3", "+5", "3.14", ".5", "5.", "1,234", "1,2", "1 234 567", "1{,}234", "1\\,000", "1e5", "1e-7",
    "1e99999", "10^6", "2^{10}", "3 1/2", "1/0", "22/7", "\\frac{1}{2}", "\\dfrac12", "50%", "$5", "-$5", "\\$1.50",
    "10:30", "²", "①", "٣", "１２", "½", "∞", "NaN", "−7", "–7", "1_000", "0x1f", "twenty-one", "one hundred and five",
    "seven",
)  # fmt: skip
MARKS = (
    "The answer is ", "the final answer is: ", "Answer: ", "**Answer:** ", "答案：", "#### ", "\\boxed{", "\\boxed ",
    "\\fbox{", "}", "{", "<answer>", "</answer>", "<think>", "</think>", "Option ", "(A)", "B.", "[C]", "`D`",
    "\\text{", "\\(", "\\)", "\\[", "\\]", "$", "$$", "```", "```python\n", "Q: ", "\n\nQuestion: ", "So ", "Wait, ",
    " I hope it is correct. ", "Final Answer: ", "Human: ", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\",
)  # fmt: skip
SIGNS = (
    "+", "-", "*", "/", "=", "×", "·", "÷", "^", "**", "(", ")", "[", "]", ",", ";", ":", ".", "!", "?", "%", "<",
    ">", "\\le ", "\\cdot ", "\\sqrt{", "\\sqrt[3]{", "\\pi", "x", "y^2", "x_1", "\\cup ", "\\infty", "°", "^\\circ",
    "cm", " m^2", "i", "|",
)  # fmt: skip
WORDS = (
    "yes",
    "No.",
    "blue",
    "I ",
    "a ",
    "there are ",
    "and ",
    "or ",
    "June 20",
    "Paris",
    "none",
    "don’t",
    "H₂O",
    "x²+1",
)
ODD = (
    "\n", " ", "\t", "\r\n", "\u00a0", "\u202f", "\u2028", "\x00", "\x1b[31m", "\x85", "\u202e", "\ufeff", "\ud800",
    "\udc00", "\U0001f600", "e\u0301", "\ufffd", "\\", '"', "'", "#", "((((", "}" * 9, "\\" * 7,
)  # fmt: skip
LONG = ("9" * 400, "9" * 4400, "1." + "0" * 400, "(" * 600, "x" * 2000, "}" * 3000)
KINDS_OF_PIECE: tuple[Sequence[str], ...] = (NUMBERS, MARKS, SIGNS, WORDS, ODD)
WEIGHTS = (5, 4, 4, 2, 1)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "1", "all", "\ud800",
    "a\nb", "\x00", [], [1], ["x"], {}, {"a": 1}, [[]], [None],
)  # fmt: skip


def text(rng: random.Random, most: int = 14) -> str:
    """Pieces of answers, numbers, mark-up and odd characters, at most so many; one piece in 250 is very long."""
    return "".join(_piece(rng) for _ in range(rng.randrange(most + 1)))


def _piece(rng: random.Random) -> str:
    return rng.choice(LONG if rng.random() < 0.004 else rng.choices(KINDS_OF_PIECE, WEIGHTS)[0])


def value(rng: random.Random, depth: int = 2) -> Any:
    """A value as JSON has them."""
    way = rng.random()
    if way < 0.5 or depth == 0:
        return rng.choice(VALUES)
    if way < 0.8:
        return text(rng, 4)
    if way < 0.9:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(("a", "kind", "", text(rng, 1))): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def fields(rng: random.Random, names: Sequence[str], like: Any) -> Any:
    """An object like `like`: most often its own fields, some left out, some of another value, some of unknown name."""
    if rng.random() < 0.03:
        return value(rng)
    found = dict(like)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        name = rng.choice(names) if rng.random() < 0.9 else text(rng, 1)
        if rng.random() < 0.2:
            found.pop(name, None)
        else:
            found[name] = value(rng)
    return found


def changed(whole: Any, rng: random.Random) -> Any:
    """A copy in which some values, at any depth, are others or gone."""
    held = json.loads(json.dumps(whole))
    for _ in range(rng.choice((1, 1, 2, 3))):
        held = _changed_once(held, rng)
    return held


def _changed_once(held: Any, rng: random.Random) -> Any:
    if not isinstance(held, dict | list) or not held or rng.random() < 0.15:
        return value(rng)
    key = rng.choice(list(held)) if isinstance(held, dict) else rng.randrange(len(held))
    if rng.random() < 0.1:
        del held[key]
    else:
        held[key] = _changed_once(held[key], rng)
    return held


def as_json(held: Any, rng: random.Random) -> str:
    """A line of JSON, sometimes cut or with a character of another kind in it."""
    line = json.dumps(held, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.2 and line:
        place = rng.randrange(len(line))
        line = line[:place] + rng.choice(("", rng.choice(ODD), rng.choice(NUMBERS))) + line[place + rng.randrange(3) :]
    return line


TOML = ("3", "0.5", "true", '"x"', "[1, 2]", "{a = 1}", "2020-01-01", "nan", "inf", "''", "1" + "0" * 22, "[")


def toml(rng: random.Random, names: Sequence[str], whole: str) -> str:
    """The lines of a TOML file, some left out, and some more, which may be none."""
    lines = [line for line in whole.splitlines() if rng.random() < 0.95]
    for _ in range(rng.randrange(3)):
        name = rng.choice(names) if rng.random() < 0.9 else text(rng, 1)
        odd = rng.choice(("[options]", "[axes]", "[[x]]", "[", "]", text(rng, 2)))
        line = odd if rng.random() < 0.15 else f"{name} = {rng.choice(TOML)}"
        lines.insert(rng.randrange(len(lines) + 1), line)
    return "\n".join(lines)
