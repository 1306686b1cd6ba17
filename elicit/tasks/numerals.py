"""Numbers as people and models write them, and their exact values.

1,234 and 1 234 and 1{,}234; -$5 and \u22125; 3 1/2 and 3\u00bd and \\frac{7}{2}; 1.5 \u00d7 10^3 and 1e5; 50% and $5
without their signs. A comma stands for thousands before groups of three digits alone, so 1,2 is no number, and neither
is 0,100: no group of thousands begins with 0. A word that multiplies counts: 1.5 million; so do letters where a sign of
currency shows what they are: $1.2M, \u00a33bn. A dozen is a unit, since that is what is asked for ("how many dozens of
eggs"). In words also fractions and what is below zero: two thirds, one and a half, minus three.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import prod

LONGEST = 500  # characters of a number: what is longer is compared as text (Python reads no more than 4,300 digits)
LARGEST_POWER = 4_000  # bits of a power that is worked out here

# Minus, and the dashes that are written for it.
MINUS = "-\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"
_HALVES = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")

# What stands between groups of three digits; the same between all groups of a number.
_GAP = r"(?:,\s?\\!\s?|\{,\}|\\[,;:]|,|[ \u00a0\u2009\u202f]|['\u2019])"
_DIGITS = rf"(?:(?!0)\d{{1,3}}(?:(?P<gap>{_GAP})\d{{3}}(?:(?P=gap)\d{{3}})*)(?!\d)|\d+)"
_TEN = r"\s?(?:[\u00d7x*\u00b7]|\\times|\\cdot)\s?10\s?"
_UP = rf"(?:(?:\^|\*\*)\s?(?:\{{\s?[{MINUS}+]?\d+\s?\}}|[{MINUS}+]?\d+)|[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+)"
_HALF = "[" + "".join(_HALVES) + "]"
_ARM = rf"(?:\{{\s?[{MINUS}]?\s?(?:\d{{1,3}}(?:,\d{{3}})+|\d*\.?\d+)\s?\}}|\d)"
_FRAC = rf"\\[dtc]?frac\s?{_ARM}\s?{_ARM}"
# The part of a mixed number in words: 2 and a half. "2 and a third" may be two and another one.
_IN_WORDS = r"(?:(?:a|one)[ -](?:half|quarter)|one[ -]third|two[ -]thirds|three[ -]quarters)(?![\w-])(?! of\b)"
_WHOLE = (
    rf"(?>{_DIGITS}(?:"
    rf"\s?{_FRAC}|(?:[ -]| and )\d+/\d+(?![\d/])|\s?{_HALF}| and {_IN_WORDS}"  # mixed numbers
    rf"|(?:\.\d+)?(?:[eE][+-]?\d+(?!\w)|{_TEN}{_UP}|{_UP})?(?:/\d+(?![\d/]))?)"
    rf"|\.\d+(?:[eE][+-]?\d+(?!\w)|{_TEN}{_UP})?|{_FRAC}|{_HALF})"
)
_SIGN = rf"(?:(?<![\d)\]}}%{_HALF[1:-1]}])[{MINUS}+](?=[$\u20ac\u00a3\\.\d{_HALF[1:-1]}])|(?<!\d )(?:minus|negative) )"
MONEY = r"(?:\\?\$|[\u20ac\u00a3\u00a5])\s?"
SCALES = {
    "hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
_TIMES = r"(?i:hundred|thousand|millions?|mil|billions?|trillions?)(?![A-Za-z])"
_SCALE = (
    rf"(?:(?:[ \u00a0~-]|\\[ ,;:])?\s?(?:\\(?:text|textrm|mathrm|mbox)\s?\{{\s?{_TIMES}(?:\s?\}})?|{_TIMES})){{1,2}}"
)
# Letters that multiply, of money alone; $3k$ is mathematics, and what opens it is no currency.
_LETTERS = {"k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9, "t": 12, "tn": 12}  # powers of ten
_LETTER = r"(?-i:[ \u00a0]?(?:[Bb]n|[Mm]n|[Tt]n|[kKMB])|[mbT])(?![\w'\u2019&])"
_CURRENCY = r" (?:dollars|euros)\b"
_SUM = rf"[{MINUS}]?(?:(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?|\.\d+)"
SHORTENED = (
    rf"(?:(?:{_SIGN})?(?:(?:\\\$|[\u20ac\u00a3\u00a5])\s?{_SUM}{_LETTER}"
    rf"|(?<![\\$])\$\s?{_SUM}{_LETTER}(?!(?:\\\$|[^$\n])*\$(?!\d)))"
    rf"|(?<![\w.,^_/]){_SUM}{_LETTER}(?:\s?[\u20ac\u00a3\u00a5]|{_CURRENCY}))"
)
_SHORTENED = re.compile(SHORTENED)
_SCALED = re.compile(rf"(?P<scale>{_SCALE})[\s.*_`$]*(?:\\[)\]])?$")
# In mathematics whose words stand between the characters 2 and 3 (see `elicit.tasks.latex.undressed`).
_SCALED_WORD = re.compile(
    rf"(?<![\w.^_/])(?P<number>{_WHOLE})[\s-]?(?P<begun>\s?\x02\s?)?(?P<scale>{_TIMES}(?:\s{_TIMES})?)(?P<ended>\s?\x03)?"
)
_MIXED_WORD = re.compile(
    rf"(?<![\w.^_/])(?P<whole>\d{{1,{LONGEST}}})(?:\s?(?P<begun>\x02))?\s?and (?P<part>{_IN_WORDS})(?P<ended>\s?\x03)?"
)
# A number does not begin inside a word, a number, a power, an index, a time or a date, and does not end in one.
DIGITS = re.compile(
    rf"(?<![^\W_])(?<![.^/])(?<![^\W_]_)(?<![)\]}}]_)(?<!\d:)(?<![\^_]\{{)(?<![\^_][{MINUS}])(?:{_SIGN}(?:{MONEY})?)?{_WHOLE}(?!:\d)(?!/\d)(?!\.\d)"
)
NUMERAL = re.compile(rf"(?:{SHORTENED}|{DIGITS.pattern}(?:{_SCALE})?)")  # with what multiplies it


def _factor(scale: str) -> int:
    """What words multiply by."""
    words = (word.lower().removesuffix("s") for word in re.findall(_TIMES, scale))
    return prod(SCALES["million" if word == "mil" else word] for word in words)


def in_full(text: str) -> str:
    """The text with sums of money in full: $1200000 for $1.2M."""
    return _SHORTENED.sub(_in_full, text)


def _in_full(found: re.Match[str]) -> str:
    written = re.search(r"(?P<number>[\d,.]+)(?P<gap>\s?)(?P<letters>[A-Za-z]+)", found.group())
    if written is None or len(written["number"]) > LONGEST:
        return found.group()
    whole, _, decimals = written["number"].replace(",", "").partition(".")
    power = _LETTERS[written["letters"].lower()]
    left = decimals[power:]
    full = whole + decimals[:power].ljust(power, "0") + (f".{left}" if left else "")
    return found.group()[: written.start()] + full + found.group()[written.end() :]


def multiplied(plain: str) -> str:
    """Mathematics with 1.5 million as 1500000 and 2 and a half as a fraction, whatever is counted."""
    return _MIXED_WORD.sub(_mixed, _SCALED_WORD.sub(_multiplied, plain))


def _multiplied(found: re.Match[str]) -> str:
    value = number_value(found["number"])
    if value is None:
        return found.group()
    return _in_place(found, value * _factor(found["scale"]))


def _mixed(found: re.Match[str]) -> str:
    part = worded_value(found["part"])
    return found.group() if part is None else _in_place(found, Fraction(int(found["whole"])) + part)


def _in_place(found: re.Match[str], value: Fraction) -> str:
    """A value in the place of what says it, which may end words that go on, or begin and end them."""
    written = str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    if found["begun"] and not found["ended"]:
        return f"{written} \x02"
    return written if found["begun"] else written + (found["ended"] or "")


def groups_joined(text: str, commas: Callable[[int], bool] = lambda place: True) -> str:
    """The text with its numbers' groups of three digits joined: 1,234 becomes 1234, and 1,2 and 0,100 stay.

    Args:
        text: to join groups in.
        commas: whether a bare comma may stand for thousands in a number that begins at this character.
    """
    return _GROUPED.sub(
        lambda m: re.sub(r"\D", "", m.group()) if m["gap"] != "," or commas(m.start()) else m.group(), text
    )


_GROUPED = re.compile(
    rf"(?:(?<![\w.])|(?<=\\cdot)|(?<=\\times)|(?<=\\div))(?<!\d,)(?!0)\d{{1,3}}(?P<gap>{_GAP})\d{{3}}(?:(?P=gap)\d{{3}})*(?!\d)"
)
_MIXED = re.compile(rf"(?<=\d) and (?P<part>{_IN_WORDS})$")
_PLAIN = re.compile(
    r"(?P<sign>[-+]?)(?:(?P<whole>\d+)(?: \+? ?|\+ ?)(?P<over>\d+)/(?P<under>\d+)"  # mixed
    r"|(?P<number>\d+(?:\.\d*)?|\.\d+)(?:e(?P<exponent>[-+]?\d+)|\^(?P<power>-?\d+))?(?:/(?P<divisor>\d+))?"
    r"|(?P<top>-?[\d.]+)//(?P<bottom>-?[\d.]+))"
)


@lru_cache(maxsize=65536)  # a run gives the same answers again and again
def number_value(text: str | None) -> Fraction | None:
    """The exact value of a written number (1,234 = 1234.00, -$5, 50%, 1/3, 3 1/2, 1.5 × 10^3), or None if it is none.

    One of more than `LONGEST` characters is held for none: it equals itself, as a text, and no other.
    """
    if text is None or len(text) > 2 * LONGEST:
        return None
    if (full := in_full(text)) != text:
        text = re.sub(rf"{_CURRENCY}$", "", full)
    scaled = _SCALED.search(text)
    if scaled:
        counted = number_value(text[: scaled.start()])
        return None if counted is None else counted * _factor(scaled["scale"])
    plain = _unmarked(text)
    repeated = re.fullmatch(r"(-?)(\d{0,99}\.\d{0,99})\\overline\{(\d{1,99})\}", plain)
    if repeated:
        digits = len(repeated[2].partition(".")[2])
        tail = Fraction(int(repeated[3]), (10 ** len(repeated[3]) - 1) * 10**digits)
        return (Fraction(repeated[2].strip(".") or 0) + tail) * (-1 if repeated[1] else 1)
    found = _PLAIN.fullmatch(plain)
    if found is None or len(plain) > LONGEST or not plain.isascii():
        return None
    part = found.groupdict()
    try:
        value = _value(part)
    except (ZeroDivisionError, ValueError):  # a divisor of 0; points without digits
        return None
    return None if value is None else -value if part["sign"] == "-" else value


def _unmarked(text: str) -> str:
    """A number without currency, percent and the marks of LaTeX, in one spelling."""
    plain = text.strip().strip("*_`").strip()
    if not plain.isascii():
        plain = re.sub(r"\d", lambda m: str(int(m.group())), plain)  # digits of other scripts
    plain = re.sub(r"^(?:\\\(|\\\[|\$\$|\$(?=.*[^\\]\$$))\s*|(?<!\\)\s*(?:\\\)|\\\]|\$\$)$", "", plain).strip()
    plain = re.sub(rf"[{MINUS}]", "-", plain)
    plain = re.sub(r"^(?:minus|negative) ", "-", plain)
    plain = re.sub(rf"^([-+]?) ?(?:{MONEY})([-+]?)", r"\1\2", plain)
    plain = re.sub(r"\s*(?:\\?%|\\?\$|[\u20ac\u00a3\u00a5])$", "", plain)
    plain = re.sub(rf"({_HALF})", lambda m: f" {_HALVES[m[1]]}", plain).strip().replace("- ", "-")
    plain = re.sub(r"([\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+)$", lambda m: "^" + m[1].translate(RAISED), plain)
    plain = _MIXED.sub(lambda m: f" {worded_value(m['part'])}", plain)
    plain = groups_joined(re.sub(r"(?<=\d) and (?=\d+/\d+$)", " ", plain))
    plain = re.sub(rf"{_TEN}(?:\^|\*\*)\s?\{{?\s?\+?(-?\d+)\s?\}}?$", r"e\1", plain)
    plain = re.sub(r"(?:\*\*|\^)\s?\{?\s?\+?(-?\d+)\s?\}?$", r"^\1", plain).replace("E", "e")
    plain = re.sub(r"\\[dtc]?frac\s?(?:\{\s?([^{}]*?)\s?\}|(\d))\s?(?:\{\s?([^{}]*?)\s?\}|(\d))", _slashed, plain)
    return re.sub(r"^([-+]?) +", r"\1", re.sub(r"(?<=\d) +(?=\d+//)", " ", plain)).removesuffix(".")


def _slashed(found: re.Match[str]) -> str:
    """A fraction of LaTeX with a stroke; two strokes where it stands alone and may have decimals or signs."""
    top, bottom = found[1] or found[2] or "", found[3] or found[4] or ""
    before = found.string[: found.start()].rstrip()
    return f" {top}/{bottom}" if before[-1:].isdigit() else f"{top}//{bottom}"


def _value(part: dict[str, str | None]) -> Fraction | None:
    if part["top"] is not None and part["bottom"] is not None:
        return Fraction(part["top"]) / Fraction(part["bottom"])
    if part["whole"] is not None:
        return int(part["whole"]) + Fraction(int(part["over"] or 0), int(part["under"] or 0))
    value = Fraction(part["number"] or 0)
    if part["exponent"] is not None:
        if abs(int(part["exponent"])) > LONGEST:
            return None
        value *= Fraction(10) ** int(part["exponent"])
    if part["power"] is not None:
        if abs(int(part["power"])) * max(value.numerator.bit_length(), value.denominator.bit_length()) > LARGEST_POWER:
            return None
        value = value ** int(part["power"])
    return value / int(part["divisor"]) if part["divisor"] is not None else value


_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_ODD = {"three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth"}
# What a whole is parted into, in one name for one and for several.
_PARTS = {"half": 2, "halve": 2, "quarter": 4} | {
    _ODD.get(word, f"{word.removesuffix('y')}ieth" if word.endswith("y") else f"{word}th"): n
    for word, n in (_WORDS | {"hundred": 100, "thousand": 1_000, "million": 10**6}).items()
    if n > 2
}
_PART = rf"(?:{'|'.join(_PARTS)})s?\b(?![ -]grade)"  # two fifth graders are two
_FIRST = "|".join(sorted(_WORDS, key=len, reverse=True))
_A_SCALE = rf"(?:a|half a) (?:{'|'.join(SCALES)})"
_CLAUSE_ENDS = r"(?=\s*(?:[.,;:!?*)]|$))"
WORDED = re.compile(
    rf"\b(?>(?:(?:minus|negative) )?(?:{_A_SCALE}|an? {_PART}{_CLAUSE_ENDS}|half{_CLAUSE_ENDS}|(?:{_FIRST})\b)"
    rf"(?:(?: and |[ -])(?:{_PART}|(?:{'|'.join([_FIRST, *SCALES])})\b|an? {_PART}))*)(?!-?\w|(?: and |[ -])first\b)",
    re.I,
)
# What stands after the 2 of 2 thirds; quarters and halves may be coins and pieces.
PARTED = re.compile(r"[ -](?:third|(?:four|fif|six|seven|eigh|nin|ten)th)s\b")


def worded_value(text: str | None) -> int | Fraction | None:
    """The value of a number in English words (twenty-two, minus three, two thirds, one and a half), or None.

    Ordinals are none: twenty-third.
    """
    words = re.sub(r"[- ]+", " ", (text or "").strip().lower()).split()
    if len(words) > 1 and words[0] in ("minus", "negative") and words[1] not in ("minus", "negative"):
        negated = worded_value(" ".join(words[1:]))
        return None if negated is None else -negated
    if len(words) > 2 and words[-1] in SCALES and any(_parts(word) for word in words):  # two and a half million
        counted = worded_value(" ".join(words[: -2 if words[-2] in ("a", "an") else -1]))
        return None if counted is None else counted * SCALES[words[-1]]
    return _fraction(words) if words and _parts(words[-1]) else _whole(words)


def _parts(word: str) -> int | None:
    return _PARTS.get(word.removesuffix("s"))


def _fraction(words: list[str]) -> Fraction | None:
    """What the last word has a part of: its number, of a whole before it."""
    *before, name = words
    under = _PARTS[name.removesuffix("s")]
    joint = max((n for n, word in enumerate(before) if word == "and"), default=-1)
    over = before[joint + 1 :]
    if len(over) == 1 and re.fullmatch(r"[0-9]{1,9}", over[0]):
        return Fraction(int(over[0]), under) if joint < 0 and name.endswith("s") else None  # 2 thirds
    top = 1 if over in (["a"], ["an"]) or (name == "half" and not before) else _whole(over)
    if top is None and under < 10 and over[-1:] and _WORDS.get(over[-1], 0) >= 20:  # one twenty-fifth
        over, under = over[:-1], under + _WORDS[over[-1]]
        top = _whole(over)
    whole = 0 if joint < 0 else _whole(before[:joint])
    if top is None or whole is None or (top != 1 and not name.endswith("s")) or (joint >= 0 and top >= under):
        return None
    if joint > 0 and before[joint - 1] in SCALES and before[joint - 1] != "hundred":
        return None  # a million and a half
    return whole + Fraction(top, under)


def _whole(words: list[str]) -> int | None:
    words = [word for n, word in enumerate(words) if word != "and" or n in (0, len(words) - 1)]
    if len(words) > 1 and words[0] == "a" and words[1] in SCALES:
        words = ["one", *words[1:]]
    if not words or words[0] not in _WORDS:
        return None
    total = part = 0
    for word in words:
        if word in _WORDS:
            if part % 100 and not (part % 10 == 0 and part % 100 >= 20 and _WORDS[word] < 10):
                return None  # five six is no number
            part += _WORDS[word]
        elif word == "hundred":
            part *= SCALES[word]
        elif word in SCALES:
            total, part = total + part * SCALES[word], 0
        else:
            return None
    return total + part


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
    plain = re.sub(r"\u00d7|\\times|\\cdot", "*", text.replace("\u00f7", "/").replace("\\div", "/"))
    plain = re.sub(rf"[{MINUS}]", "-", re.sub(r"\\left|\\right", "", plain)).strip()
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
