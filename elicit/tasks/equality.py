"""When two answers are the same: where their keys are.

A key is made of one answer alone, so equality is an equivalence: reflexive, symmetric, transitive; grading and voting
use the same keys. What a bare 10 means hangs on what was asked for, so mathematics is read in a `Form`, which the gold
answer has (of answers in a vote, the most frequent one): where the gold is in cm, 10 and 10 cm are the same and 10 m is
another; where the gold has no unit, units are passed over. A percent sign is a unit: 50% is 50 where 50 is asked for,
and never 1/2.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from elicit.tasks.latex import enclosed, matrix, members, split, thousands_joined, undressed
from elicit.tasks.numerals import LONGEST as LONGEST_NUMBER
from elicit.tasks.numerals import MINUS, expression_value, number_value, worded_value
from elicit.tasks.units import unit_of

LONGEST = 2_000  # characters of an answer of mathematics: what is longer is compared as a text
Key = tuple[Any, ...]
Evaluate = Callable[
    [str, str], "Key | None"
]  # an expression, and the name that it is solved for ("", "=": none; a relation)


class Form(NamedTuple):
    """What an answer is asked for in: its unit, whether it is an equation, the name that it gives a value to, and
    whether it is the letter of a choice; of a point or a vector with three places and more how many; of a number in
    digits how many are behind its point (-1: it is none)."""

    unit: str = ""
    relation: bool = False
    name: str = ""
    letter: bool = False
    places: int = 0
    decimals: int = -1


# ---- texts

_QUOTES = str.maketrans("\u2018\u2019\u201b\u2032`\u201c\u201d\u201e\u2033", "'''''\"\"\"\"")
_VERDICT = re.compile(r"(yes|no|true|false)(?=[,.;:!]|$| (?:because|since|as|it|they|he|she|we|this|that)\b)")


def text_key(text: str) -> Key:
    """Without regard to case, blanks, kinds of quotes and dashes, marks around it, "it is" and an article before it."""
    plain = unicodedata.normalize("NFKC", text.translate(_QUOTES))
    plain = re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed)\s?\{([^{}]*)\}", r"\1", plain)
    plain = re.sub(rf"[{MINUS}\u2014]", "-", plain).strip(" \t\n*_\"'$")
    plain = " ".join(plain.casefold().split()).rstrip(".!; ").strip("*_\"'$ ")
    plain = re.sub(r"^(?:it is|it's|that is|this is|the answer is|answer:) ", "", plain).strip("*_\"'$ ")
    plain = re.sub(r"^(?:an?|the) (?=[a-z]{3})", "", re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", plain))
    if plain[:1] == "(" and plain[-1:] == ")" and "(" not in plain[1:]:
        plain = plain[1:-1].strip()
    found = _VERDICT.match(plain)
    if found:
        return "text", found[1]
    return "text", re.sub(r" ?([,;:()\[\]{}=<>|/+*]) ?", r"\1", plain)


def option_key(text: str) -> Key:
    """(A), A., A) and a are option A, and so is A with its text."""
    plain = re.sub(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{([^{}]*)\}", r"\1", text).strip(" \t\n*_`\"'$.")
    found = re.fullmatch(r"[(\[]?([A-Za-z])(?:[)\].:](?:\s.*)?)?", plain, re.S)
    return ("option", found[1].upper()) if found else text_key(text)


_HYPHENED = re.compile(rf"(?<=\d)[{MINUS}](?=(?P<over>\d{{1,9}})/(?P<under>\d{{1,9}})(?![\d/.]))")


def number_key(text: str) -> Key:
    """A number's exact value, whatever its unit; what is none is a text. 2-1/2 is two and a half."""
    text = _HYPHENED.sub(lambda found: " " if int(found["over"]) < int(found["under"]) else found.group(), text)
    for value in (number_value(text), worded_value(text), number_value(unit_of(undressed(text))[0])):
        if value is not None:
            return rational(value)
    return text_key(text)


def expression_key(text: str) -> Key:
    """A number by its value, an expression by its value and the numbers that it uses."""
    number, found = number_value(text), expression_value(text)
    if number is not None:
        return rational(number)
    return ("expression", *rational(found[0]), *sorted(found[1])) if found else text_key(text)


def code_key(text: str) -> Key:
    """Lines to their last character that is no blank."""
    return "code", "\n".join(line.rstrip() for line in text.expandtabs().strip("\n").split("\n")).strip("\n")


def whole_key(text: str) -> Key:
    return "whole", text.strip()


def rational(value: Any) -> Key:
    """Of a whole number or a fraction; hexadecimal, since Python writes no more than 4,300 decimal digits."""
    return "number", hex(value.numerator), hex(value.denominator)


# ---- mathematics


def form_of(texts: Sequence[str]) -> Form:
    """The form that most of the texts are in; of equally frequent ones the first."""
    return _form_of([undressed(text) for text in texts])


def _form_of(texts: Sequence[str]) -> Form:
    forms = [_form(text) for text in texts]
    units = Counter(form.unit for form in forms if form.unit)
    names = Counter(form.name for form in forms if form.name)
    relations = sum(form.relation for form in forms)
    letters = sum(form.letter for form in forms)
    places = Counter(form.places for form in forms).most_common(1)[0][0] if forms else 0
    decimals = Counter(form.decimals for form in forms).most_common(1)[0][0] if forms else -1
    return Form(_most(units), 2 * relations > len(forms), _most(names), 2 * letters > len(forms), places, decimals)


def _most(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0] if counts else ""


def _form(plain: str) -> Form:
    if len(plain) > LONGEST:
        return Form()
    parts = [part for part in split(plain, _AND) if part.strip()]
    if len(parts) > 1:
        return _form_of(parts)
    inner, rows = enclosed(plain), matrix(plain)
    places = len(rows) if rows and all(len(row) == 1 for row in rows) else 0
    if inner and inner[0] == "(" and inner[2] == ")":
        places = len(members(inner[1]))
    if places > 2:
        return Form(places=places)
    sides = split(plain, r"=")
    if len(sides) == 2 and _constant(sides[1]) and _name(sides[0]):
        return Form(unit_of(sides[1])[1], decimals=_decimals(sides[1]))
    if len(sides) == 2 and _name(sides[0]):
        return Form(name=sides[0].strip())
    if len(sides) > 1 and not _name(sides[-1]) and not enclosed(plain):
        return Form(relation=True)
    return Form(unit_of(plain)[1], letter=_LETTER.fullmatch(plain) is not None, decimals=_decimals(plain))


def _decimals(plain: str) -> int:
    """How many digits are behind a number's point, or -1 where it is not written in digits."""
    found = re.fullmatch(r"-?(?=\.?\d)[\d,]*(?:\.(?P<behind>\d+))?", unit_of(plain.strip())[0])
    return len(found["behind"] or "") if found and len(plain) <= LONGEST_NUMBER else -1


def _name(side: str) -> bool:
    """Whether a side of an equation only names a value: x, x_1, f(n), its inverse, derivatives, ∠ABC, words."""
    side = side.strip()
    return bool(
        re.fullmatch(
            r"(?:[A-Za-z]|\\[a-z]+)(?:_\{?\w+\}?)?'{0,3}(?:(?:\^\s?\{?\s?-\s?1\s?\}?)?\s?\([^()=]*\))?"
            r"|\\frac\s?\{\s?d\s?[A-Za-z]\s?\}\s?\{\s?d\s?[A-Za-z]\s?\}",
            side,
        )
        or re.fullmatch(r"(?:m\s?)?\\angle\s?[A-Z\d]+|\\overline\{[A-Z]+\}|[A-Z]{2,}", side)
        or re.fullmatch(r"(?:\x02[^\x02\x03]*\x03|[A-Za-z]{3,}+|\s)+", side)
        or re.fullmatch(rf"\({_VARIABLE}(?:\s?,\s?{_VARIABLE})+\)", side)
    )


def _constant(side: str) -> bool:
    return number_value(unit_of(side.strip())[0]) is not None


_AND = r",\s*(?:\x02?\s*(?:and|or)\b\s*\x03?)?|;|\x02?\s*\b(?:and|or)\b\s*\x03?|\\cup(?![a-z])"
_MONOMIAL = re.compile(r"-?[\d.]*\s?(?:\\cdot\s?)?[A-Za-z](?:_\{?\w+\}?)?(?:\s?\^\s?\{?\d+\}?)?")
_MODULO = re.compile(r"\(?\s?\\[pb]?mod\s?\{?\s?\d+\s?\}?\s?\)?\s*$")
_ARROW = r"\\(?:Rightarrow|implies|Longrightarrow|Leftrightarrow|iff|therefore)(?![a-z])"
_OR = re.compile(r"\bor\b")
_EITHER = re.compile(r"\\pm(?![A-Za-z])")
_VARIABLE = r"(?:[A-Za-z]|\\(?:rho|theta|(?:var)?phi))"
_NAMED = re.compile(rf"\s*({_VARIABLE})\s*=([^=]+)")
_PLACES = {"rho": "r", "theta": "s", "phi": "t", "varphi": "t"}  # of a point's coordinates, which else are in order
# The letter of a choice, before the choice or alone.
_LETTER = re.compile(
    r"[\x02( ]{0,4}(?:(?:option|choice|graph|figure) ?)?[\x02(]{0,2}(?P<letter>[A-J])[\x03). ]{0,4}", re.I
)
_LABELLED = re.compile(
    r"\x02?\s?(?:\((?P<in>[A-J])\)|(?P<before>[A-J])[.):])[.:]?(?:\s|\x03)++"
    r"(?!-\s|[+*/=^<>,;&)]|\x02?\s?(?:and|or)\b|$)"
)
_REALS = re.compile(r"\\mathbb\s?\{?\s?R\s?\}?|\\R|\u211d|\x02?\s?all reals?(?: numbers?)?\s?\x03?")
_COUNTED = re.compile(r"\b(?:hundred|thousand|[mbtr]+illion|halves|\w+ths|thirds|quarters)\b", re.I)
_TRANSPOSED = re.compile(r"\^\s?\{?\s?(?:T|\\top|\\mathsf\s?\{?T\}?|\x02T\x03)\s?\}?$")
_EMPTY = re.compile(r"\\emptyset|\\\{\s*\\\}|\{\s*\}")


def math_key(text: str, form: Form, evaluate: Evaluate) -> Key:
    """The key of an answer of mathematics in a form.

    Args:
        text: the answer.
        form: what is asked for.
        evaluate: the key of one expression (see `elicit.tasks.grader_process.math_value`), or None where it is none.
    """

    def joined(expression: str, name: str) -> Key | None:
        return evaluate(thousands_joined(expression, within=True), name)

    try:
        return _read(undressed(text), form, joined) if len(text) <= LONGEST else text_key(text)
    except RecursionError:  # brackets too deep
        return text_key(text)


def _read(plain: str, form: Form, evaluate: Evaluate) -> Key:
    plain = plain.strip()
    if _EMPTY.fullmatch(plain):
        return ("list",)
    if _REALS.fullmatch(plain):
        return ("(", _MINUS_INFINITE, _INFINITE, ")")
    if labelled := _LABELLED.match(plain):
        rest = plain[labelled.end() :]
        return ("letter", labelled["in"] or labelled["before"]) if form.letter else _read(rest, form, evaluate)
    worded = worded_value(re.sub(r"[\x02\x03]", "", plain).strip(" ()"))
    if worded is not None and (worded.denominator > 1 or _COUNTED.search(plain)):  # no list of one and a half
        return rational(worded)
    parts = [part for part in split(plain, _AND) if part.strip()]
    if len(parts) > 1 and not matrix(plain):
        named = {found[1]: found[2] for part in parts if (found := _NAMED.fullmatch(part))}
        if len(named) == len(parts):  # x = 1 and y = 2 is a point
            ordered = sorted(named, key=lambda name: _PLACES.get(name.lstrip("\\"), name))
            return ("(", *(_read(named[name], form, evaluate) for name in ordered), ")")
        keys = [_read(part, form, evaluate) for part in parts]
        if len(parts) == 2 and _OR.search(plain) and (key := _twice(parts, keys, form)):
            return key
        if len(parts) == 2 and re.search(r"\band\b", plain) and (key := _both(parts, keys)):
            return key
        if len(parts) == form.places and "and" not in plain and not _OR.search(plain) and ";" not in plain:
            return ("(", *keys, ")")
        several = [_EITHER.search(part) is not None and key[0] == "list" for part, key in zip(parts, keys, strict=True)]
        flat = [one for key, split_up in zip(keys, several, strict=True) for one in (key[1:] if split_up else (key,))]
        return ("list", *sorted(flat, key=repr))
    inner = enclosed(plain)
    if inner and inner[0] == "{" and (told := _SUCH_THAT.match(inner[1])):
        return _read(inner[1][told.end() :], form, evaluate)
    if _EITHER.search(plain) and "\\mp" not in plain and not (inner and inner[0] == "{"):
        both = (_read(_EITHER.sub(sign, plain), form, evaluate) for sign in ("+", "-"))
        return ("list", *sorted(both, key=repr))
    if found := _TRANSPOSED.search(plain):
        turned = plain[: found.start()].strip()
        if (rows := matrix(turned)) and len({len(row) for row in rows}) == 1:
            return _cells([list(row) for row in zip(*rows, strict=True)], form, evaluate)
        if enclosed(turned) and len(members(turned[1:-1])) > 1:
            return _read(turned, form, evaluate)
    rows = matrix(plain) or _scaled(plain)
    if rows:
        return _cells(rows, form, evaluate)
    if inner:
        opened, middle, closed = inner
        parts = members(middle)
        if opened == "{" or len(parts) == 1:
            return _read(",".join(parts), form, evaluate)
        return _tuple(opened, [_read(part, form, evaluate) for part in parts], closed)
    return _relation(plain, form, evaluate)


def _cells(rows: Sequence[Sequence[str]], form: Form, evaluate: Evaluate) -> Key:
    """A matrix; one with a single column is the tuple of its members."""
    cells = [[_read(cell, form, evaluate) for cell in row] for row in rows]
    if all(len(row) == 1 for row in cells):
        return ("(", *(key for (key,) in cells), ")")
    return ("matrix", *map(tuple, cells))


def _twice(parts: Sequence[str], keys: Sequence[Key], form: Form) -> Key | None:
    """Of two alternatives that are one value (1/2 or 0.5, 1/2 or 50%) its key in the form that is asked for."""
    if keys[0] == keys[1]:
        return keys[0]
    values, units = zip(*((number_value(body), unit) for body, unit in map(unit_of, parts)), strict=True)
    if None in values or sorted(units) != ["", "%"]:
        return None
    percent = units.index("%")
    if values[percent] != 100 * values[1 - percent]:
        return None
    return keys[percent if form.unit == "%" else 1 - percent]


def _both(parts: Sequence[str], keys: Sequence[Key]) -> Key | None:
    """The interval of two bounds on one name that hold together: x > 3 and x <= 4."""
    names = {name for part in parts for side in re.split(_ORDER, part) if _name(name := side.strip())}
    low = [key for key in keys if key[0] in ("(", "[") and key[2:] == (_INFINITE, ")")]
    high = [key for key in keys if key[:2] == ("(", _MINUS_INFINITE)]
    if len(names) != 1 or len(low) != 1 or len(high) != 1 or not all(re.search(_ORDER, part) for part in parts):
        return None
    return _tuple(low[0][0], [low[0][1], high[0][2]], high[0][3])


def _tuple(opened: str, keys: Sequence[Key], closed: str) -> Key:
    """Brackets with several members; at infinity an interval is open, however it is written."""
    if keys[0] in (_INFINITE, _MINUS_INFINITE):
        opened = "("
    if keys[-1] in (_INFINITE, _MINUS_INFINITE):
        closed = ")"
    return (opened, *keys, closed)


_ORDER = r"\\(?:le|ge)(?![a-z])|[<>]=?"
# What a condition follows in a set: {x | x > 5}, {x : x > 5}, {x in R | x > 5}.
_SUCH_THAT = re.compile(
    rf"\s*(?:{_VARIABLE})\s*(?:\\in(?![a-z])\s*(?:{_REALS.pattern})\s*)?(?:\\mid(?![a-z])|\||:|\\vert(?![a-z]))"
    rf"(?=.*(?:{_ORDER}|\\in(?![a-z])))"
)
# A number before a matrix: 1/49 of each of its members.
_FACTOR = re.compile(r"\s*-?(?:[\d\s./{}()]|\\(?:frac|sqrt|pi|cdot|times)(?![a-z]))*")


def _scaled(plain: str) -> list[list[str]] | None:
    """A matrix with the number before it in each of its members."""
    before, begins, rest = plain.partition("\\begin")
    rows = matrix(begins + rest) if before.strip() and _FACTOR.fullmatch(before) else None
    if rows is None:
        return None
    factor = re.sub(r"\\(?:cdot|times)\s*$", "", before).strip()
    return [[f"{'-1' if factor == '-' else factor}\\cdot({cell})" for cell in row] for row in rows]


_INFINITE, _MINUS_INFINITE = ("infinity", "+"), ("infinity", "-")


_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _relation(plain: str, form: Form, evaluate: Evaluate) -> Key:
    inside = split(plain, r"\\in(?![a-z])")
    if len(inside) == 2 and _name(inside[0]):
        return _read(inside[1], form, evaluate)
    steps = split(plain, _ARROW)
    if len(steps) > 1 and steps[-1].strip():
        return _read(steps[-1], form, evaluate)
    congruent = split(plain, r"\\equiv(?![a-z])")
    if len(congruent) > 1:
        return _read(_MODULO.sub("", congruent[-1]), form, evaluate)
    near = split(plain, r"\\approx(?![a-z])")
    if len(near) > 1:
        exact = near[0].strip()
        asked = form.decimals >= 0 and _decimals(near[-1]) == form.decimals  # 1/3 \approx 0.33 where 0.33 is asked for
        return _read(near[-1] if not exact or _name(exact) or asked else exact, form, evaluate)
    terms = split(plain, _ORDER)
    if len(terms) > 1:
        signs = [sign.replace("\\le", "<=").replace("\\ge", ">=") for sign in re.findall(_ORDER, plain)]
        return _interval([t.strip() for t in terms], signs, evaluate) or text_key(plain)
    sides = [side for side in split(plain, "=") if side.strip()]
    if len(sides) < 2:
        return _single(plain, form, evaluate)
    if form.relation and len(sides) == 2:
        return evaluate(f"({sides[0]})-({sides[1]})", "=") or text_key(plain)
    if form.name and len(sides) == 2 and not _name(sides[0]) and form.name in plain:
        solved = evaluate(f"({sides[0]})-({sides[1]})", form.name)
        if solved:
            return solved
    value = next((side for side in reversed(sides) if not _name(side)), sides[-1])
    key = _read(value, form, evaluate)
    ends = (sides[0], sides[-1])
    if len(sides) > 2 and not _has_variable(sides[-1]) and not _MONOMIAL.fullmatch(sides[0].strip()):
        return key  # worked out: a + b + c - 15 = 49 - 15 = 34
    if not (any(map(_has_variable, ends)) and not any(_name(side) or _names_quantity(side) for side in ends)):
        return key
    named = _variables(sides[0])
    if len(named) > 1 and not named & _COORDINATES and not _has_variable(sides[-1]):  # 2a + b = 13, and no curve
        return key
    if key == _read(sides[0], form, evaluate):  # x^2 - 1 = (x - 1)(x + 1) is so for every x
        return key
    return ("equation", *(evaluate(f"({sides[0]})-({sides[-1]})", "=") or text_key(plain)))


_GREEK = r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|(?:var)?phi|omega|rho|sigma|tau)(?![a-z])"
_ARGUMENTS = r"(?:\s?\((?:[^()]|\([^()]*\))*\))"
_INDEXED = rf"(?:[A-Za-z]|{_GREEK})'*(?:_\w|_\{{[^{{}}]*\}}|\^\{{-1\}}|\^-1)*{_ARGUMENTS}?"
_PRODUCT = rf"{_INDEXED}(?:(?:\s?(?:[-+*/]|\\cdot(?![a-z])|\\times(?![a-z]))\s?|\s?){_INDEXED})*"
# Quantities that go by names alone: f'(2), a_{n+1}, P(X = 3), a + b, \frac{a}{b}, \sin A, \triangle ABC, [ABC].
_QUANTITY = re.compile(
    rf"{_INDEXED}|(?P<several>{_PRODUCT})|-?\\frac\{{{_PRODUCT}\}}\{{{_PRODUCT}\}}"
    rf"|(?:\\?\||\\[vV]ert)\s?(?![xy]\s?[|\\])(?:\x02[A-Za-z]\x03|\\vec\s?\{{?[A-Za-z]\}}?|{_PRODUCT})\s?(?:\\?\||\\[vV]ert)"
    rf"|\\(?:overline|bar|vec|hat)\s?\{{?\s?\x02?[A-Za-z]\x03?\s?\}}?"
    rf"|\\(?!sqrt)[a-z]+\s?\d{{0,3}}(?:\s?[A-Za-z]+|\s?\\[a-z]+|{_ARGUMENTS})|\\l(?:floor|ceil)\s[A-Za-z]\s?\\r(?:floor|ceil)|\\[a-z]+\{{[A-Z]+\}}|[\[(|]?[A-Z]{{2,}}[\])|]?"
)
# What binds the variables in it.
_BINDS = re.compile(r"\\(?:int|sum|prod|lim|frac\{d)(?![a-z])")
_SHORT = frozenset(["so", "we", "is", "it", "he", "of", "to", "by", "if", "as", "at", "an", "on", "in", "be", "or"])


def _names_quantity(side: str) -> bool:
    """Whether a side of an equation is what its other side is the value of, by names, in words or as an operation."""
    side = unit_of(side.strip())[0]
    words = re.findall(r"[A-Za-z]+", re.sub(r"\\[A-Za-z]+", " ", side))
    told = any(word in _SHORT or (len(word) > 2 and word.lower() not in _FUNCTIONS) for word in words)
    if told or _BINDS.search(side) or re.search(r"\x02[^\x02\x03]{2,}\x03", side):
        return True
    found = _QUANTITY.fullmatch(side)
    return found is not None and (not found["several"] or "(" in side or len(set("".join(words))) != 1)  # not x + x


_COORDINATES = frozenset("xyz")


def _has_variable(side: str) -> bool:
    return bool(_variables(side))


def _variables(side: str) -> set[str]:
    """Names of one letter or two."""
    side = re.sub(r"\\[A-Za-z]+", " ", re.sub(_GREEK, " x ", unit_of(side.strip())[0]))
    return {word for word in re.findall(r"[A-Za-z]+", side) if len(word) < 3 and word not in ("e", "i", "ln", "pi")}


def _interval(terms: Sequence[str], signs: Sequence[str], evaluate: Evaluate) -> Key | None:
    """Of bounds on one name: x > 2 is (2, ∞), -2 ≤ x < 7 is [-2, 7)."""
    places = [n for n, term in enumerate(terms) if _name(term) and term not in ("\\pi", "\\infty", "e")]
    if (
        len(places) != 1
        or len(terms) not in (2, 3)
        or (len(terms) == 3 and (places[0] != 1 or signs[0][0] != signs[1][0]))
    ):
        return None
    if len(terms) == 2:
        sign = signs[0] if places[0] == 0 else _FLIPPED[signs[0]]
        bound = _single(terms[1 - places[0]], Form(), evaluate)
        closed = len(sign) == 2
        if sign[0] == ">":
            return _tuple("[" if closed else "(", [bound, _INFINITE], ")")
        return _tuple("(", [_MINUS_INFINITE, bound], "]" if closed else ")")
    low, high = (0, 2) if signs[0][0] == "<" else (2, 0)
    ends = [_single(terms[n], Form(), evaluate) for n in (low, high)]
    strict = [len(signs[0 if n == 0 else 1]) == 1 for n in (low, high)]
    return _tuple("(" if strict[0] else "[", ends, ")" if strict[1] else "]")


_FUNCTIONS = (
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "arcsin", "arccos", "arctan", "sinh", "cosh",
    "tanh", "gcd", "lcm", "max", "min", "mod", "binom", "abs", "det",
)  # fmt: skip


def _single(plain: str, form: Form, evaluate: Evaluate) -> Key:
    """One value with its unit, a letter, an expression, or words."""
    plain = thousands_joined(plain, within=True).strip()
    infinite = re.fullmatch(r"([+-]?)\s?(?:\\infty|infinity|oo)", plain)
    if infinite:
        return _MINUS_INFINITE if infinite[1] == "-" else _INFINITE
    body, unit = unit_of(plain)
    if unit and form.unit and unit != form.unit:
        return ("unit", unit, *_single(body, Form(), evaluate))
    if body != plain:
        return _read(body, form._replace(unit=""), evaluate)
    bare = re.sub(r"[\x02\x03]", "", plain).strip(" ()")
    for value in (number_value(plain), worded_value(bare)):
        if value is not None:
            return rational(value)
    if re.fullmatch(r"[A-DF-HJ-Za-dfghj-z]|[EI]", bare):  # e and i are numbers
        return "letter", bare
    if len(bare) > 1 and (chosen := _LETTER.fullmatch(plain)):  # option B
        return "letter", chosen["letter"].upper()
    words = re.findall(r"[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+\*?|[_^]\{[^{}]*\}", " ", plain))
    if (
        any(word.lower() not in _FUNCTIONS for word in words)
        or "\x02" in plain
        or re.search(r"\d\s?:\s?\d", plain)
        or re.fullmatch(r"-?\d+(?:\s+\d+)+", plain)  # numbers side by side are no sum
        or not bare
    ):
        return text_key(bare or plain)
    if len(form.unit) == 1 and form.unit in _variables(plain):  # 4m where m is no meters: m + 3m
        times = evaluate(f"({plain})/{form.unit}", "")
        if times and times[0] == "number":
            return times
    return evaluate(plain, "") or text_key(bare)
