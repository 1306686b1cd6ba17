"""The number, or the expression, that a region of a response states, or that a response without any mark concludes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from elicit.tasks.notes import note_around, note_end
from elicit.tasks.numerals import MINUS, MONEY, NUMERAL, PARTED, SHORTENED, WORDED, number_value, worded_value
from elicit.tasks.statements import STOP, Answer, Span, last_match, sentence_end, sentences, trimmed
from elicit.tasks.units import measure

# What may stand before a number that is stated: marks, "about", a name and a sign of equality.
_BEFORE = re.compile(
    rf"(?:(?!{SHORTENED})"
    r"(?:[\s*_`\"'($\[\u20ac\u00a3=:\u2248]|\\[(\[$]|\\text(?:bf)?\{|[a-z](?:_\{?\w\}?)?\s*=(?!=)"
    r"|(?:exactly|approximately|about|roughly|only|around|a total of|therefore|thus|simply|equal to|at least|at most)"
    r"\b))*",
    re.I,
)
# An equation in one variable that is not solved: x^2 = 1, x + 3 = 5.
_EQUATION = re.compile(
    rf"(?:[\s$]|\\[(\[])*[a-z](?:_\{{?\w\}}?)?\s?(?:\^|\*\*|[\u00b2\u00b3]|[{MINUS}+*/]\s?\d)[^=A-Za-z\n]*="
)
# A sign that a blank follows counts where a number must stand.
_SIGN = re.compile(rf"[{MINUS}]\s?(?:{MONEY})?")
_SIGNED = re.compile(rf"\s*(?P<value>[{MINUS}]\s(?:{NUMERAL.pattern}))[\s.]*")
# What makes a number a piece of something larger.
_GOES_ON = re.compile(
    r"\s*(?:[-+*/^=!\u00d7\u00f7\u2212]|\\(?:times|cdot|div|sqrt|pi|pm|frac|approx)|[({\[]\s*\d|\\\(|(?:x|mod)\s\d)"
    r"|[a-fi-kn-rt-z](?![\w'])"
)
_BOLD_ENDS = re.compile(r"\*{1,3}(?=[.,;:!?)\]]|\s+(?![\s\d])|\s*$)")
_BOLD_LIST = re.compile(r"\s*(?:,\s?(?:and\s|or\s)?|;\s?|\s(?:and|or)\s)\s*[*$\\-]{1,4}\d")
_LIST = re.compile(r"\s*(?:,\s?(?:and\s|or\s)?|;\s?|\s(?:and|or)\s)\s*(?=[$\\-]?\d)")
_CLAUSE_ENDS = re.compile(rf"{STOP}(?=\s|$)|\n|,\s|;\s|\s(?:because|since|as|so|which|where|and|for|after|if|when)\s")
_SUM = re.compile(r"[\d\s.,!+*/×÷·$()%{}^\\\[\]\w\u2212-]*=")
_TERM = re.compile(r"!?(?:\s[A-Za-z]+){0,2}\s*(?:[-+*/^×÷\u2212]|\\(?:times|cdot|div))")
_OPERATORS = tuple("+*/×÷\u2212-")
# What tells a number in a sentence that has several: "there are 50 numbers below 100".
_TOLD = re.compile(
    r"^(?!.*\b(?:if|when|since|because|as|where)\b).*\b(?:is|are|was|were|equals)\s(?:only\s|about\s)?\\?\$?$"
)
# What is compared is not concluded: "4 is below 8".
_COMPARED = re.compile(
    r"\s(?:is|are)\s(?:not\s)?(?:below|above|under|over|less|more|greater|larger|smaller|fewer|at)\b"
)
_RESULT = re.compile(rf"[=\u2248]\s*(?:(?!{SHORTENED})\\?\$|\\approx)?\s*(?P<value>{NUMERAL.pattern})")


def number(view: str, span: Span) -> Answer | None:
    """The number that a region states: the first, the value of an equation, or what its first sentence concludes.

    Where the region goes on as mathematics (2√3) or as a list, or is an equation that is not solved (x^2 = 1), all of
    that is the answer, and so no number.
    """
    start, end = span.start, span.end
    whole = span.found_by in ("box", "answer tag")
    if not whole:
        end = sentence_end(view, start, end)
    if _EQUATION.match(view, start, end):
        return trimmed(view, start, end, span.found_by)
    at = _match_end(_BEFORE, view, start, end)
    found = NUMERAL.match(view, at, end) or NUMERAL.match(view, _match_end(_SIGN, view, at, end), end)
    if found is None:
        return _in_words(view, at, end, span.found_by) or concluded(view, start, end, span.found_by)
    value = _value_of_sum(view, found, end) or _last_side(view, found, end)
    if value is not None:
        return Answer(value.group(), *value.span(), span.found_by)
    begin, stop = at if view[at] in MINUS else found.start(), found.end()
    if (parts := PARTED.match(view, stop, end)) and found.group().isdigit():
        return Answer(view[begin : parts.end()], begin, parts.end(), span.found_by)
    if (measured := measure(view, found.start(), end)) is not None:
        return _measured(view, begin, measured, end, span)
    listed = _LIST.match(view, stop, end)
    if listed is None and not _goes_on(view, begin, stop, end, boxed=span.found_by == "box"):
        return Answer(view[begin:stop], begin, stop, span.found_by)
    if whole:
        return trimmed(view, start, end, span.found_by)
    if listed is None:
        return trimmed(view, begin, _clause_end(view, stop, end), span.found_by)
    while listed and (after := NUMERAL.match(view, _match_end(_SIGN, view, listed.end(), end), end)):
        stop = after.end()
        listed = _LIST.match(view, stop, end)
    return trimmed(view, begin, stop, span.found_by)


def _goes_on(view: str, begin: int, stop: int, end: int, *, boxed: bool) -> bool:
    """Whether a number is a piece of something larger. Bold type that ends behind it is none, and neither is a note."""
    number, closed = view[begin:stop], _BOLD_ENDS.match(view, stop, end)
    if closed and (len(closed.group()) > 1 or view[begin - 1 : begin] == "*"):
        if _BOLD_LIST.match(view, closed.end(), end):
            return True
        stop = closed.end()
    if _GOES_ON.match(view, stop, end) is None:
        return False
    return boxed or note_end(view, number, stop, end) is None


def _measured(view: str, begin: int, stop: int, end: int, span: Span) -> Answer | None:
    """What is told in several units is one answer, and no number: 2 hours and 30 minutes; or what that equals."""
    equals = _EQUALS.match(view, stop, end)
    total = NUMERAL.match(view, _match_end(_OPENED_SIDE, view, equals.end(), end), end) if equals else None
    if total:
        return Answer(total.group(), *total.span(), span.found_by)
    if span.found_by in ("box", "answer tag"):
        begin, stop = span.start, end
    return trimmed(view, begin, stop, span.found_by)


def last_number(view: str) -> Answer | None:
    """The number that the last sentence with one concludes; in words where they are the whole response."""
    if whole := _SIGNED.fullmatch(view):
        return Answer(whole["value"], *whole.span("value"), "last value")
    found = (concluded(view, start, end, "last value") for start, end in reversed(sentences(view)))
    words = len(view) - len(view.lstrip())
    return next((answer for answer in found if answer), None) or (
        _in_words(view, words, len(view), "last value") if WORDED.fullmatch(view.strip(" \n.")) else None
    )


def _match_end(pattern: re.Pattern[str], view: str, start: int, end: int) -> int:
    """Where a match at `start` ends; `start` where there is none."""
    found = pattern.match(view, start, end)
    return found.end() if found else start


def _clause_end(view: str, start: int, end: int) -> int:
    found = _CLAUSE_ENDS.search(view, start, end)
    return found.start() if found else end


def _value_of_sum(view: str, found: re.Match[str], end: int) -> re.Match[str] | None:
    """The number after the last sign of equality, where the number begins a sum that is done: 30 + 40 = 70."""
    clause = view[found.start() : _clause_end(view, found.start(), end)]
    if _SUM.match(clause) is None or _TERM.match(view, found.end(), end) is None or clause.rstrip().endswith("="):
        return None  # 7 = 3 + 4 states 7
    return last_match(NUMERAL, view, found.start() + clause.rindex("="), found.start() + len(clause))


def _last_side(view: str, found: re.Match[str], end: int) -> re.Match[str] | None:
    """Of a number that a sign of equality follows the number on the last side: 2^3 = 8, 2/4 = 1/2; 7 = 3 + 4 is 7."""
    if _EQUALS.match(view, found.end(), end) is None:
        return None
    end = _clause_end(view, found.end(), end)
    last = view.rfind("=", found.end(), end) + 1
    side = NUMERAL.match(view, _match_end(_OPENED_SIDE, view, last, end), end)
    if side and not _GOES_ON.match(view, side.end(), end):
        return side
    return found if side and not re.search(r"[A-Za-z\\]", view[last:end]) else None


_EQUALS = re.compile(r"!?\s*=(?!=)")
_OPENED_SIDE = re.compile(rf"(?:(?!{SHORTENED})[\s$])*")


def _in_words(view: str, start: int, end: int, found_by: str) -> Answer | None:
    found = WORDED.match(view, start, end)
    return Answer(found.group(), *found.span(), found_by) if found and worded_value(found.group()) is not None else None


def concluded(view: str, start: int, end: int, found_by: str) -> Answer | None:
    """The number that a sentence concludes: one that repeats the last result, else its last.

    A list of alternatives ("4 or 5") is the answer as a whole. Of 7 = 3 + 4 it is 7.
    """
    found = list(NUMERAL.finditer(view, start, end))
    if not found:
        return None
    last = found[-1]
    if re.match(r"[ \t]*[-+*/×÷=(\u2212]\s*$", view[last.end() :]):
        return None  # cut in the middle of a sum
    if equals := re.search(rf"=\s*(?:\\?\$|\\text\{{[^}}]*\}})?\s*(?P<sign>[{MINUS}]\s)?$", view[start : last.start()]):
        begin = start + equals.start("sign") if equals["sign"] else last.start()
        return Answer(view[begin : last.end()], begin, last.end(), found_by)
    first = _list_begins(view, found)
    if first < len(found) - 1 and re.search(r"\bor\b", view[found[first].start() : last.start()]):
        return trimmed(view, found[first].start(), last.end(), found_by)
    named = re.search(rf"(?<![\w.])({NUMERAL.pattern})\s*=[^=.!?\n]*$", view[start : last.start()])
    if named and not _alone(view, *last.span()) and _alone(view, *(start + n for n in named.span(1))):
        return Answer(named[1], start + named.start(1), start + named.end(1), found_by)
    noting = note_around(view, start, end, last.start())
    before = [m for m in found if noting is not None and m.end() <= noting]
    if before and not _alone(view, *last.span()) and _alone(view, *before[-1].span()):
        return Answer(before[-1].group(), *before[-1].span(), found_by)  # 18 dollars (9 * 2)
    result = last_match(_RESULT, view, 0, end)
    value = number_value(result["value"]) if result else None
    alone = [m for m in found if _alone(view, *m.span()) and not _COMPARED.match(view, m.end())]
    chosen = [m for m in alone if value is not None and number_value(m.group()) == value]
    chosen = chosen or [m for m in alone if _TOLD.search(view, max(start, m.start() - 60), m.start())] or [last]
    for m in found[-8:]:
        measured = measure(view, m.start(), end)
        if measured is not None and m.start() <= chosen[-1].start() < measured:
            return _measured(view, m.start(), measured, end, Span(start, end, found_by))
    return Answer(chosen[-1].group(), *chosen[-1].span(), found_by)


def _alone(view: str, start: int, end: int) -> bool:
    """Whether a number is no term of a sum."""
    before, after = view[:start].rstrip(" $\\("), view[end : end + 10].lstrip(" $\\)")
    return not re.match(r"[-+*/×÷\u2212]|times|cdot", after) and not before.endswith(_OPERATORS)


def _list_begins(view: str, found: Sequence[re.Match[str]]) -> int:
    """Which number begins the list that the last one ends."""
    first = len(found) - 1
    joint = re.compile(r"\s*(?:,?\s*(?:and|or)|,)\s*\$?\s*")
    while first and joint.fullmatch(view, found[first - 1].end(), found[first].start()):
        first -= 1
    return first


# Whole numbers joined by signs, with brackets where they are.
_OPERATOR = r"(?:[-+*/×÷\u2212]|\\times|\\cdot|\\div)"
_EXPRESSION = re.compile(rf"(?<![\w.)])\d+(?:[\s)]*{_OPERATOR}[\s(]*\d+)+(?:\s*\))*")


def expression(view: str, span: Span) -> Answer | None:
    """The first expression of a region; a number alone where the region holds nothing else."""
    if found := _EXPRESSION.search(view, span.start, span.end):
        return trimmed(view, _opened(view, span.start, found.start()), found.end(), span.found_by)
    return None if span.found_by == "answer is" else number(view, span)


def last_expression(view: str) -> Answer | None:
    found = last_match(_EXPRESSION, view)
    return trimmed(view, _opened(view, 0, found.start()), found.end(), "last value") if found else None


def _opened(view: str, start: int, first: int) -> int:
    """Where the brackets begin that stand before an expression's first number, if they are no function's."""
    at = first
    while at > start and (view[at - 1] == "(" or view[at - 1].isspace()):
        at -= 1
    bracket = view.find("(", at, first)
    return first if bracket < 0 or re.match(r"[\w.)]", view[:bracket][-1:]) else bracket
