"""The piece of mathematics that a region of a response states, or that a response without any mark ends with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from elicit.tasks.notes import noted
from elicit.tasks.numerals import MINUS, NUMERAL
from elicit.tasks.read_numbers import (
    ABOUT,
    CONDITION,
    GIVEN,
    MOVES_ON,
    concluded,
    denied,
    goes_on,
    number,
    told_by,
    without_explanation,
)
from elicit.tasks.statements import (
    STOP,
    Answer,
    Span,
    blanked,
    concluding,
    last_match,
    refuses,
    sentences,
    trimmed,
    unlabelled,
)

# What opens again before it is closed begins there, so that many that are never closed are read once; the spacing of
# lines (`\\[2pt]`) opens nothing.
_SPACED = r"(?:(?!\\\[(?!-?[\d.]+\s?[a-z]{2}\])).)+?"
_PIECE = re.compile(
    rf"\\\[(?P<a>{_SPACED})\\\]|\$\$(?P<b>.+?)(?<!\\)\$\$|\\\((?P<c>(?:(?!\\\().)+?)\\\)"
    r"|(?<![\\$])\$(?P<d>(?:\\\$|[^$\n])+?(?=(?<!\\)\$(?!\d))"
    r"|(?=[A-Za-z\\(\[|])(?=[^$\n\\=^_]*[\\=^_][^$\n]*\n)"  # goes on in the next line
    r"(?:\\\$|[^$\n]|\n(?![ \t]*\n))+?(?=(?<![\\\s=+*/-])\$(?![\d<])))\$"
    r"|(?P<e>\\begin\{(?P<name>(?:align|aligned|gather|multline|eqnarray|equation)\*?)\}"
    r"(?:(?!\\begin\{(?P=name)\}).)*?\\end\{(?P=name)\})",
    re.S,
)
_CLAUSE_ENDS = re.compile(
    rf"(?<!\s)\s*,?\s(?:because|since|as|which|so that|for)\s|{STOP}(?=\s|$)|\n"
    r"|\s\((?=[a-z])(?![a-z](?:\s?[-+*/^\u00b2\u00b3]|\)\s*=))"  # a note, and not (x + 1) or f (x) =
)
_TOLD = re.compile(r"\b(?:is|are|equals|=)\s+(?=[-\d$\\])(?!\$[^$]*\$)")
# Such as a multiple of pi or of a root, a point or an interval, without delimiters.
_TERM = (
    r"(?:\d{1,3}(?:,\d{3})+(?!\d))?"
    r"[^\s,;]*(?:[\u03c0\u221a\u221e\u03b8]|\bsqrt\(|\\sqrt|\\frac|(?<![A-Za-z])pi\b)[^\s,;.]*"
)
_SYMBOLIC = re.compile(
    rf"(?<![^\s,;])(?:[\w.()]{{1,20}}\s[-+*/\u2212]\s|\d+\s(?=pi\b|sqrt\b))?{_TERM}(?:\s[-+*/\u2212]\s[^\s,;.]+)*"
    rf"|(?<![\w)])[(\[](?:\s?[{MINUS}]?[\d./\u221e]+\s?,){{1,3}}\s?[{MINUS}]?[\d./\u221e]+\s?[)\]]"
)
# A response, or a last line in bold type, of a name or a date and nothing else.
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_NAME = rf"(?P<name>(?:{_MONTH})[ \t]+\d{{1,2}}|[A-Z][A-Za-z'-]*(?:[ \t]+[A-Za-z'-]+){{0,2}})[.!]?"
_ALONE, _BOLD = re.compile(rf"\s*{_NAME}\s*"), re.compile(rf"\s*\*\*{_NAME}\*\*[.!]?\s*")
_TOLD_NAME = re.compile(
    r"\b(?:is|are|was|be|on|called|named)\s(?:an?\s|the\s)?"
    r"(?:\*\*|\\textbf\{)(?P<name>(?:MONTH)\s\d{1,2}|[A-Za-z][A-Za-z' -]{1,30})(?:\*\*|\})[.!]?\s*$".replace(
        "MONTH", _MONTH
    )
)
_TOLD_PLAINLY = re.compile(
    r"\b(?:is|are|was|be|on|called|named)\s(?:an?\s|the\s)?(?:(?:graph|option|choice|figure)\s)?"
    rf"(?P<name>(?:{_MONTH})\s\d{{1,2}}|[A-Z][a-z]{{2,}}|\(?[A-J]\)?|even|odd|neither|ellipse|hyperbola|parabola|circle)"
    r"[.!]?\s*$"
)
# "Ann is the fastest", "So **Ann** has the most", "Option B is correct".
_SUBJECT = re.compile(
    r"[\s*_]*(?:(?:So|Thus|Therefore|Hence),?\s)?[*_]{0,3}(?:Option\s|Choice\s|Graph\s|Figure\s|"
    r"(?!(?:This|That|It|There|The|These|Those|He|She|They|We|You|Here|What|Each|Every|All|None|One|And|But)\b)(?=[A-Z][a-z]{2}))"
    r"(?P<name>\(?[A-J]\)?|[A-Z][a-z]{2,})[*_]{0,3}\s(?:is|has|had|was|ran|won)\s"
    r"[^.!?\n\d]{0,99}?\b(?:[a-z]{3,}est|most|least|correct|one|answer|first|last)\b"
)
# Mathematics without delimiters that ends a sentence: "The line is y = 2x + 3", "x = 1 and x = -2".
_NUMBER = r"\d{1,30}(?:\.\d{1,30})?"
_LETTERS = r"(?:[a-zA-Z](?:\s?\^\s?\{?\d{1,3}\}?|[\u00b2\u00b3])?){1,3}"
_SUMMAND = rf"\(?[{MINUS}]?(?:{_NUMBER}(?:\s?{_LETTERS})?|{_LETTERS})\)?"
_PLAIN = re.compile(
    r"(?:\b(?:is|are|equals|be|get|obtain|gives)|=|:)\s(?=[^,.\n]{0,99}[A-Za-z])(?=[^,.\n]{0,99}\d)"
    rf"(?P<value>{_SUMMAND}(?:\s?[{MINUS}+*/=]\s?{_SUMMAND}){{0,20}})[.\s]*$"
)
_UNITED = re.compile(rf"{_NUMBER}(?:\s[A-Za-z][^-+*/=]*|[a-zA-Z]{{2,}}|[mgshlCFKMB])?")
_VALUED = rf"[a-zA-Z]\s?=\s?[{MINUS}]?{_NUMBER}(?:/\d{{1,9}})?"
_VALUES = re.compile(rf"(?<![\w$\\])(?P<value>{_VALUED}(?:(?:,\s?(?:and\s)?|\s(?:and|or)\s){_VALUED}){{1,9}})[.\s]*$")
_LED_IN = re.compile(r"(?:[A-Za-z']+[ \t]+){2,}(?=[-$\\\d(])")
_WORDS = re.compile(
    r"\\(?:text[a-z]*|mbox|mathrm)\s?\{[^{}]*\}|\\[A-Za-z]+(?:\{[a-zA-Z*]+\})?|\b(?:sqrt|sin|cos|tan|log|ln|pi|and|or|percent|degrees)\b"
)


def math(view: str, span: Span) -> Answer | None:
    """All of a box; else what stands between the first delimiters, with those that are joined to it; else a clause."""
    start, end = span.start, span.end
    if span.found_by in ("box", "answer tag"):
        return trimmed(view, start, end, span.found_by)
    stop = _sentence_end(view, start, end)
    if told := _WHICH_IS.match(view, start, stop):
        start = told.end()
    begun = re.match(r"[A-Z][a-z']*,?\s+[a-zA-Z$\\(]", view[start:stop])
    going = begun is not None and goes_on(view, span, stop, computed=False)
    if going and (result := last_math(blanked(view, 0, start))):  # "Answer: We have $x + 1 = 3$. So $x = 2$."
        return result._replace(found_by=span.found_by)
    if value := noted(view, start, end, span.found_by):
        return value
    if measured := _MEASURED.match(view, start, stop):
        unit = _PIECE.match(view, measured.end(), end)
        if unit and not _filled(unit) and not _GOES_ON.match(view, unit.end(), end):
            return trimmed(view, start, unit.end(), span.found_by)
    pieces = [m for m in _PIECE.finditer(view, start, end) if _filled(m) and m.start() < stop]
    values = [m for m in pieces if not _letter(view, m)]
    if pieces and not values and (conclusion := concluded(view, start, stop, span.found_by)):
        return conclusion  # "the largest $n$ is 34"
    pieces = values or pieces
    if not pieces:
        clause = _CLAUSE_ENDS.search(view, start, end)
        found = trimmed(view, start, clause.start() if clause else end, span.found_by)
        led_in = _LED_IN.match(found.text) if found else None
        if found and led_in:
            return number(view, Span(found.start + led_in.end(), found.end, span.found_by))
        return found
    last = 0
    while last + 1 < len(pieces) and _joined(view, pieces[last], pieces[last + 1]):
        last += 1
    return _list(view, pieces[: last + 1], span.found_by)


def last_math(view: str) -> Answer | None:
    """The mathematics, or else the number, of the last sentence that has either; a name or a date that stands alone."""
    if name := _ALONE.fullmatch(view):
        return trimmed(view, *name.span("name"), "last line")
    view = unlabelled(without_explanation(view))
    for ended in [m for m in _PIECE.finditer(view) if _ENDS_PROOF.fullmatch(view, *_inside(m))]:
        view = blanked(view, *ended.span())
    pieces = [m for m in _PIECE.finditer(view) if _filled(m)]
    plain = _PIECE.sub(_without_stops, view)
    for start, end in concluding(view, sentences(plain)):
        if refuses(view, start, end):
            return None
        here = [m for m in pieces if start <= m.start() < end]
        told = here and _TOLD.search(view, here[-1].end(), end)
        values = [m for m in here if not _letter(view, m)]
        while len(values) > 1 and (
            GIVEN.search(view[max(start, values[-1].start() - 20) : values[-1].start()])
            or _REASON.search(view[max(start, values[-1].start() - 12) : values[-1].start()])
            or denied(view, start, *values[-1].span())
            or _approximates(view, values[-2], values[-1])
        ):
            values.pop()
        if told or (here and not values):
            conclusion = concluded(view, start, end, "last value")
            if conclusion and (not told or conclusion.start >= told.start()):
                return conclusion
        here = values or here
        if len(here) > 1 and re.search(r"\bbetween\s$", view[start : here[-2].start()]):
            plainly = concluded(_PIECE.sub(lambda m: " " * len(m.group()), view), start, end, "last value")
            if plainly:
                return plainly  # "there are 7 integers between $1$ and $10$"
        if conditional := _before_condition(view, start, end, here):
            return _list(view, [conditional], "last value")
        if here:
            first = len(here) - 1
            while first and _joined(view, here[first - 1], here[first]):
                first -= 1
            return _list(view, here[first:], "last value")
        if value := noted(view, start, end, "last value"):
            return value
        bare = trimmed(view, start, end, "last value")
        if bare and re.search(r"\w", bare.text) and not re.search(r"[A-Za-z]{2,}", _WORDS.sub(" ", bare.text)):
            return bare  # without delimiters, and nothing else
        if name := _BOLD.fullmatch(view, start):
            return trimmed(view, *name.span("name"), "last line")
        if plainly := _plain(view, start, end):
            return plainly
        found = concluded(view, start, end, "last value")
        if found:
            symbolic = last_match(_SYMBOLIC, view, start, end)
            return trimmed(view, *symbolic.span(), "last value") if symbolic and symbolic.end() > found.start else found
    return None


def _plain(view: str, start: int, end: int) -> Answer | None:
    """What a sentence without delimiters tells: a name, values of several names, or an expression at its end."""
    name = (
        _TOLD_NAME.search(view, start, end)
        or _TOLD_PLAINLY.search(view, start, end)
        or _SUBJECT.match(view, start, end)
    )
    if name:
        return trimmed(view, *name.span("name"), "last value")
    values = _VALUES.search(view, start, end)
    if values and not (
        _CONDITIONED.search(view[start : values.start()]) and NUMERAL.search(view, start, values.start())
    ):
        return trimmed(view, *values.span("value"), "last value")
    found = _PLAIN.search(view, start, end)
    if found is None or _UNITED.fullmatch(found["value"].rpartition("=")[2].strip()):
        return None
    return trimmed(view, *found.span("value"), "last value")


def _without_stops(piece: re.Match[str]) -> str:
    """As long as a piece: sentences do not end within mathematics, but do behind a display that ends with a period."""
    display = (
        piece["d"] is None
        and piece["c"] is None
        and piece.string[slice(*_inside(piece))].removesuffix(f"\\end{{{piece['name']}}}").rstrip().endswith(".")
    )
    return "m" * (len(piece.group()) - 1) + ("\n" if display else "m")


def _before_condition(view: str, start: int, end: int, pieces: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """The piece that a sentence tells where the others are a condition: "is $10$, attained at $x = 3$"."""
    for piece in pieces[:-1]:
        if told_by(view, start, piece.start()) and _UNDER.match(view, piece.end(), end):
            return None if MOVES_ON.search(view, piece.end(), end) else piece
    return None


def _approximates(view: str, exact: re.Match[str], other: re.Match[str]) -> bool:
    """Whether a piece only says about how large an exact one before it is: "$\\frac{1}{3}$, or about $0.33$"."""
    first, second = (view[slice(*_inside(piece))].strip() for piece in (exact, other))
    return (
        re.search(r"\\[dt]?frac|/|\\sqrt|\\pi", first) is not None
        and re.fullmatch(r"(?:\\approx)?\s*-?\d*\.\d+.*", second) is not None
        and ABOUT.fullmatch(view, exact.end(), other.start()) is not None
    )


def _letter(view: str, piece: re.Match[str]) -> bool:
    """Whether a piece only names something."""
    return re.fullmatch(r"\s*[A-Za-z]\s*[.,;:]?\s*", view[slice(*_inside(piece))]) is not None


def _joined(view: str, one: re.Match[str], other: re.Match[str]) -> bool:
    """Whether two pieces belong to one list: both are values, values of one name, coordinates, or bounds."""
    between = view[one.end() : other.start()]
    first, second = (view[slice(*_inside(piece))].strip() for piece in (one, other))
    if not re.fullmatch(r"[\s,;*]*(?:and|or)?[\s*]*", between) or not (
        between.strip(" \n*") or first.endswith((",", ";"))
    ):
        return False
    signs = [re.search(r"=|<|>|\\(?:le|ge|in)(?![a-z])|\\[lg]eq", text) for text in (first, second)]
    if signs[1] is None:
        return True
    kinds = [
        "<" if sign and "=" not in sign.group() and "in" not in sign.group() else sign and sign.group()
        for sign in signs
    ]
    if kinds[0] != kinds[1] or _CONDITIONED.search(view[: one.start()][-12:]):
        return False
    names = [text.partition("=")[0].strip() for text in (first, second)]
    single = all(_COORDINATE.fullmatch(name) for name in names) and first.count("=") == second.count("=") == 1
    return kinds[0] != "=" or names[0] == names[1] or single


def _list(view: str, pieces: Sequence[re.Match[str]], found_by: str) -> Answer | None:
    """What a piece holds, or the value of what a sentence tells: "the distance is $2c = 24$"; of several all that
    stands from the first to the last."""
    if len(pieces) == 1:
        start, end = _inside(pieces[0])
        if _MEASURES.search(view, max(0, pieces[0].start() - 120), pieces[0].start()):
            value = _VALUE.search(view, start, end)
            start = value.start("value") if value else start
        return trimmed(view, start, end, found_by)
    return trimmed(view, pieces[0].start(), pieces[-1].end(), found_by)


def _inside(found: re.Match[str]) -> tuple[int, int]:
    """What stands between the delimiters."""
    return next(found.span(name) for name in "abcde" if found[name] is not None)


def _filled(found: re.Match[str]) -> bool:
    """Whether something stands between the delimiters, but a power or a unit of what is before them: 10 cm$^2$."""
    inside = found.string[slice(*_inside(found))].strip()
    if not inside or _POWER.fullmatch(inside):
        return False
    before = found.string[max(0, found.start() - 2) : found.start()]
    return not (_UNIT.fullmatch(inside) and re.search(r"\d\s?$", before))


_UNDER = re.compile(
    rf"{CONDITION.pattern}|(?:\s[a-z]+){{1,4}}:\s|(?:\s(?:[a-z]+|\$[^$\n]{{1,20}}\$)){{0,4}},?\s"
    r"(?:(?:when|where|if|attained|achieved|reached|namely|between)\b|for\s(?=[$\\(])"
    r"|(?:in|on|over)\s(?:the\sinterval\s)?(?=\$\s?[\[(]|\\\(\s?[\[(]))"
)
_CONDITIONED = re.compile(r"\b(?:since|because|as|if|when|for|at|given|with|where)\s$", re.I)
# "The perimeter of one of them is", and the last side of an equation, which names nothing.
_MEASURES = re.compile(
    r"\b(?:number|length|distance|area|perimeter|circumference|volume|sum|product|difference|quotient|value|radius"
    r"|diameter|side|height|width|depth|probability|total|cost|price|average|mean|median|ratio|measure|m(?:ax|in)imum"
    r"|(?:larg|small|great|l?e?a|mo)(?:est|st)|odds|speed|time|age|rate|amount)\b"
    r"(?:[^.!?:\n=]*?\b(?:is|are|was|equals|be|has\smeasure)(?:\s(?:just|simply|thus|then|therefore))?|\sof)\s*\Z"
)
_VALUE = re.compile(
    r"(?<![<>!=])=(?!=)\s*(?P<value>(?:[-+*/^{}()\d.,\s]"
    r"|\\(?:[dt]?frac|sqrt|pi|circ|cdot|times|left|right|[$,!%])(?![A-Za-z])|\\text\s?\{[^{}]*\})+)\Z"
)
# "the sum of $6$ and $24$, which is".
_WHICH_IS = re.compile(
    r"(?:just|simply)?\s?the\s[^.!?:\n]*?,?\swhich\s(?:is|equals|comes\sto|gives)\s(?:just\s|simply\s)?(?=[-\d$\\])"
)
_REASON = re.compile(r"\b(?:since|because)\s$")
_COORDINATE = re.compile(r"[A-Za-z](?:\([a-z]\))?|\\(?:rho|theta|phi)")
_POWER = re.compile(r"(?:\{\})?\^\s*(?:\{\s*(?:[-\d]+|\\circ)\s*\}|\d|\\circ)")
_ENDS_PROOF = re.compile(r"\s*\\(?:blacksquare|square|Box|qed|QED|checkmark)(?![A-Za-z])[.\s]*")
_MEASURED = re.compile(rf"[\s*_]*{NUMERAL.pattern}\s?(?:[A-Za-z]{{1,15}}\s?)?(?=\$|\\\()")
_GOES_ON = re.compile(r"\s*(?:[-+*/^=\u00d7\u00f7\u2212<>]|\\(?!\)))|,?\s(?:and|or)\s[$\\(]{0,3}\d")
_UNIT = re.compile(r"\\?%|(?:\\(?:text|mathrm|mbox)\s?\{[^{}]*\}|[cdkm]?m(?=\s?\^))(?:\s?\^\s?\{?\d\}?)?")


def _sentence_end(view: str, start: int, end: int) -> int:
    """Where the first sentence ends; periods within mathematics end none."""
    plain = _PIECE.sub(lambda m: "m" * len(m.group()), view[start:end])
    found = re.search(rf"{STOP}(?=\s|$)|\n\s*\n", plain)
    return start + found.start() if found else end
