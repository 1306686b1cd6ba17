"""The number, or the expression, that a region of a response states, or that a response without any mark concludes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from elicit.tasks.notes import note_around, note_end
from elicit.tasks.numerals import MINUS, MONEY, NUMERAL, PARTED, SHORTENED, WORDED, number_value, worded_value
from elicit.tasks.statements import (
    STOP,
    Answer,
    Span,
    blanked,
    concluding,
    last_match,
    refuses,
    sentence_end,
    sentences,
    trimmed,
    unlabelled,
)
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
# What a region begins with that states a value at once; the same with nothing but a unit.
_BEGUN = re.compile(rf"(?:{_BEFORE.pattern})(?:{NUMERAL.pattern}|{WORDED.pattern})", re.I)
_BARE = re.compile(rf"{_BEGUN.pattern}(?:\s[A-Za-z]+){{0,2}}[*_$)\]%]*\s*(?:[.,;!(\n]|$)", re.I)
# A sign that a blank follows counts where a number must stand.
_SIGN = re.compile(rf"[{MINUS}]\s?(?:{MONEY})?")
_SIGNED = re.compile(rf"\s*(?P<value>[{MINUS}]\s(?:{NUMERAL.pattern}))[\s.]*")
_WORDED_SIGN = r"(?:times|plus|minus|(?:multiplied|divided)\sby)"
# What makes a number a piece of something larger.
_GOES_ON = re.compile(
    r"(?!\s+-\s+(?!(?:sqrt|sin|cos|tan|log|ln|pi)\b)[A-Za-z]{2})"  # a dash: 12 - that is 3 each
    r"\s*(?:[-+*^=!\u00d7\u00f7\u2212]|[\u2010-\u2013]\s?[\d(\\$]|\\?%\s+of\s+\\?\$?\d"
    rf"|{_WORDED_SIGN}\s+\\?\$?\d"
    r"|/(?!\s?(?:[A-Za-z]{2}|h\b|\\(?:text|mathrm)))"  # 60 miles/hour
    r"|\\(?:times|cdot|div|sqrt|pi|pm|frac|approx)|[({\[]\s*\d|\\\(|(?:x|mod)\s\d)"
    r"|[a-fi-kn-rt-z](?![\w'])"
)
_BOLD_ENDS = re.compile(r"\*{1,3}(?=[.,;:!?)\]]|\s+(?![\s\d])|\s*$)")
_BOLD_LIST = re.compile(r"\s*(?:,\s?(?:and\s|or\s)?|;\s?|\s(?:and|or)\s)\s*[*$\\-]{1,4}\d")
_LIST = re.compile(
    r"\s*(?:,\s?(?:and\s|or\s)?|;\s?|\s(?:and|or|to)\s|,?\s?\\(?:text|mbox|mathrm)\s?\{\s?(?:and|or|to)\s?\})"
    r"\s*(?=[$\\-]?\d)"
)
# A second value of a name: x = 5 or x = 6.
_OR_NAMED = re.compile(
    rf"(?<![\w.])(?P<name>[a-z])\s?=\s?{NUMERAL.pattern}[$\\),]{{0,3}}\s{{1,3}}or\s[$\\(]{{0,3}}(?P=name)\s?=\s?\Z"
)
# What makes two of a number: ±5.
_EITHER = re.compile(r"(?:±|\\pm)\s?\Z")
_CLAUSE_ENDS = re.compile(rf"{STOP}(?=\s|$)|\n|,\s|;\s|\s(?:because|since|as|so|which|where|and|for|after|if|when)\s")
_SUM = re.compile(rf"[{MINUS}\d\s.,!+*/×÷·$()%{{}}^\\\[\]\w]*=")
_TERM = re.compile(
    rf"!?(?:\s[A-Za-z]+){{0,2}}\s*(?:[{MINUS}+*/^×÷]|\\(?:times|cdot|div)|\([{MINUS}\d\s.+*/×÷^]+\))"
    rf"|\s{_WORDED_SIGN}\s|\\?%\sof\s"
)
# What a sum comes to that is told behind it: 5 times 3, which is 15.
_COMES_TO = re.compile(
    rf"(?:[{MINUS}\s\d.+*/×÷^()$%]|\\(?:times|cdot|div)|,(?=\d)|{_WORDED_SIGN}|of)*"
    rf",\s(?:which\s(?:is|equals|makes|gives)|or|that\sis,?|i\.e\.,?)\s(?:\\?\$)?(?P<value>{NUMERAL.pattern})"
    r"(?!\s(?:more|less|fewer|times|of)\b)"
)
_OPERATORS = tuple("+*/×÷\u2212-")
# What tells a number in a sentence that has several: "there are 50 numbers below 100"; not where it is a step to what
# follows, "there are 7 days in a week, so he eats 14". What is told under a condition is not that: "is 10, at x = 3".
_TOLD = re.compile(
    r"(?!.*\b(?:if|when|since|because|as|where)\b).*\b(?:is|are|was|were|equals|total of)\s"
    r"(?:(?:only|about|exactly)\s)?[*_]{0,3}\\?\$?",
    re.I | re.S,
)
MOVES_ON = re.compile(
    r"\b(?:so|thus|hence|therefore|then|but|making|giving|meaning|leaving|which(?!\s(?:occurs|happens|is\s(?:attained|achieved|reached)))|total\w*|altogether)\b"
    r"|\band\s(?:he|she|it|they|there|we|you|the|each|so|then|[A-Z])|;"
)
CONDITION = re.compile(
    r"[*_$)\s]{0,4},?\s(?:[a-z]+\s){0,2}?"
    r"(?:(?:when|where|if|attained|achieved|reached|occurs|happens|namely)\b|at\s[$\\(]*\s?[a-zA-Z]\s?=)"
)
_CALLED = re.compile(
    r"(?:\s[a-z]+){0,2}[*_]{0,3}\s(?:is|are|as)\s(?:the|our|my)\s(?:(?:final|correct|right)\s)?answer\b"
)
_BOUND = re.compile(r"\b(?:more|less|fewer|greater|larger|smaller|higher|lower) than \\?\$?$")
# What is given before and not concluded: "25% of the 80 cookies", "for all 7 tasks".
GIVEN = re.compile(
    r"\b(?:out of|the|these|those|his|(?<!takes )(?<!took )(?<!costs )(?<!cost )(?<!gives )(?<!gave )her|their|its|all"
    r"|original|initial) \\?\$?$"
)
# A variable, or thousands: 3x, 40k.
_TIED = re.compile(r"[a-fi-kn-rt-zK](?![\w'\u2019])")
_CONCLUDES = re.compile(r"\b(?:so|thus|therefore|hence|finally|in total|altogether)\b", re.I)
# What concludes a number in words: "so he has five left".
_SO = re.compile(
    r"[\s*_]*(?:so|thus|therefore|hence|altogether|in total)\b[^.!?\n]*?"
    r"\b(?:is|are|was|were|equals|has|have|gets?|makes?|earns?|needs?)\s(?=[a-z])",
    re.I,
)
_HAS = re.compile(
    r"[\s*_]*(?:[A-Za-z][\w']*,?\s){1,8}?(?:is|are|was|were|equals|has|have|had|gets?|got|makes?|earns?|needs?|bought|sold)\s"
    r"(?:(?:only|exactly|now|a total of)\s)?[*_]{0,3}(?=[a-z])"
)
# What is counted, up to the end; no comparison, and nothing that tells how an answer is found.
_WORDS_END = re.compile(
    r"[*_]{0,3}(?:\s(?!(?:more|less|fewer|times|of|or|ways?|steps?|cases?|parts?|kinds?|types?|solutions?|possib\w+"
    r"|things?|equations?|numbers?|methods?|options?|reasons?|than|as)\b)[a-z]+){0,4}[*_]{0,3}[.!\s]*\Z"
)
_ONLY_WORDED = re.compile(rf"(?:{WORDED.pattern})(?:\s(?!more|less|fewer|times|of)[a-z]+){{0,2}}", re.I)
# A full hour of the day, of which its number is asked for.
_HOUR = re.compile(r"(?<![\d:.,/])(?P<value>\d{1,2}):00(?![:\d])")
# An answer alone on the first line, before what is headed as its explanation.
_EXPLAINED = re.compile(
    r"\s*(?P<value>[^\n.:=]{1,40})\.?[ \t]*(?=\n+[*_# \t]*(?:Explanation|Reason|Reasoning|Justification)\b[*_ ]{0,4}:)"
)
_ROUNDED = re.compile(r"\bround(?:s|ed|ing)?\s(?:(?:it|this|that|up|down|off)\s){0,2}to\s(?:about\s)?[\\$*]{0,3}\Z")
# What stands between an exact value and about how large that is.
ABOUT = re.compile(r"[*\s,(]*(?:\b(?:or|which|that|is|i\.e\.,?)\s){0,2}(?:about|approximately|roughly|around)\s\**")
# What is compared is not concluded: "4 is below 8".
_COMPARED = re.compile(
    r"\s(?:is|are)\s(?:not\s)?(?:below|above|under|over|less|more|greater|larger|smaller|fewer|at)\b"
)
_RESULT = re.compile(rf"[=\u2248]\s*(?:(?!{SHORTENED})\\?\$|\\approx)?\s*(?P<value>{NUMERAL.pattern})")


def number(view: str, span: Span) -> Answer | None:
    """The number that a region states; of a computation that goes on from sentence to sentence its last result."""
    found = _number(view, span)
    if found is None or span.found_by in ("box", "answer tag"):
        return found
    computed = view[span.start : found.start].rstrip(" $\\").endswith("=")
    if goes_on(view, span, found.end, computed=computed):
        last = last_number(blanked(view, 0, span.start))  # "Answer: 16 - 7 = 9 eggs. 9 * 2 = 18."
        return last._replace(found_by=span.found_by) if last else found
    return found


def goes_on(view: str, span: Span, after: int, *, computed: bool) -> bool:
    """Whether a region behind "the answer is" states nothing at once, but begins a computation that goes on to the end.

    Args:
        view: the response.
        span: the region.
        after: the character where what it would state ends.
        computed: whether that is the result of an equation.
    """
    heading = view[: span.start].rstrip(" *_\n")[-1:] in (":", "\uff1a")
    stated = (_BARE if heading else _BEGUN).match(view, span.start, span.end)
    if span.found_by != "answer is" or (stated and not computed):
        return False
    rest = view[after:]
    return _CONCLUDES.search(rest) is not None or rest.count("=") >= (1 if computed else 2)


def _number(view: str, span: Span) -> Answer | None:
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
        hour = _HOUR.match(view, at, end)
        told = Answer(hour["value"], *hour.span("value"), span.found_by) if hour else None
        return told or _in_words(view, at, end, span.found_by) or concluded(view, start, end, span.found_by)
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
    if whole and listed is None:
        return trimmed(view, start, end, span.found_by)
    if listed is None:
        result = _COMES_TO.match(view, stop, end)
        if result and not _GOES_ON.match(view, result.end(), end):
            return Answer(result["value"], *result.span("value"), span.found_by)
        return trimmed(view, begin, _clause_end(view, stop, end), span.found_by)
    several, signed = [found], begin < found.start()  # by a sign that is none of the number's
    while listed and (after := NUMERAL.match(view, (at := _match_end(_SIGN, view, listed.end(), end)), end)):
        after = NUMERAL.match(view, listed.end(), end) or after
        signed |= listed.end() < after.start() == at
        stop = after.end()
        several.append(after)
        listed = _LIST.match(view, stop, end)
    if not signed and (one := _one_value(view, several)):
        return Answer(one.group(), *one.span(), span.found_by)
    return trimmed(view, *((start, end) if whole else (begin, stop)), span.found_by)


def _one_value(view: str, several: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """Of alternatives that are one value the last: 11/2, or 5.5; of 0.5, or 50%, the one without the sign."""
    if not re.search(r"\bor\b", view[several[0].end() : several[-1].start()]):
        return None
    values = [number_value(m.group()) for m in several]
    percent = [re.match(r"\s?\\?%", view[m.end() : m.end() + 3]) is not None for m in several]
    shares = {None if v is None else v / 100 if p else v for v, p in zip(values, percent, strict=True)}
    alike = None not in values and (len(set(values)) == 1 or (len(shares) == 1 and not all(percent)))
    plain = [m for m, p in zip(several, percent, strict=True) if not p] or several
    return plain[-1] if alike else None


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
    view = unlabelled(without_explanation(view))
    for start, end in concluding(view, sentences(view)):
        if refuses(view, start, end):
            return None
        if answer := concluded(view, start, end, "last value") or _so_in_words(view, start, end):
            return answer
    words = len(view) - len(view.lstrip())
    return _in_words(view, words, len(view), "last value") if _ONLY_WORDED.fullmatch(view.strip(" \n.")) else None


def without_explanation(view: str) -> str:
    """The first line alone where it is an answer and an explanation follows, unless that works out another number:
    "10", "Explanation: 7 + 36 = 43. So she has 43"."""
    found = _EXPLAINED.match(view)
    if found is None:
        return view
    value, result = number_value(found["value"].strip()), last_match(_RESULT, view, found.end())
    if value is not None and result and number_value(result["value"]) != value:
        return view
    return blanked(view, found.end(), len(view))


def _so_in_words(view: str, start: int, end: int) -> Answer | None:
    """What a sentence concludes that has its number in words: "So he has five left"; the last one without "so"."""
    verb = _SO.match(view, start, end)
    found = _in_words(view, verb.end(), end, "last value") if verb else None
    if found is None and not view[end:].strip():
        verb = _HAS.match(view, start, end)
        found = _in_words(view, verb.end(), end, "last value") if verb else None
        found = found if found and _WORDS_END.match(view, found.end, end) else None
    return None if found is None or worded_value(found.text) == 1 else found  # "this is one way"


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
    """The number that a sentence concludes: one that repeats the last result, else its last; none that it denies.

    A list of alternatives ("4 or 5") is the answer as a whole. Of 7 = 3 + 4 it is 7.
    """
    every = list(NUMERAL.finditer(view, start, end))
    hours = list(_HOUR.finditer(view, start, end))
    if hours and (view[start : hours[-1].start()].rstrip(" $*").endswith("=") or (not every and len(hours) == 1)):
        return Answer(hours[-1]["value"], *hours[-1].span("value"), found_by)
    every = [m for m in every if not denied(view, start, *m.span())]
    if every and _EITHER.search(view, max(start, every[-1].start() - 4), every[-1].start()):
        return None
    found = [m for m in every if not _TIED.match(view, m.end())]
    if not found or (found != every and not _alone(view, *found[-1].span())):
        return None  # none, or 2x + 5
    if len(found) == 1 and _BOUND.search(view[max(start, found[0].start() - 20) : found[0].start()]):
        return None
    if called := next((m for m in reversed(found) if _CALLED.match(view, m.end(), end)), None):
        return Answer(called.group(), *called.span(), found_by)
    last = found[-1]
    if re.match(r"[ \t]*[-+*/×÷=(\u2212]\s*$", view[last.end() : last.end() + 10]):
        return None  # cut in the middle of a sum
    moved = last_match(MOVES_ON, view, start, end)
    step = moved.start() if moved else start
    told = [m for m in found if m.end() > step and _alone(view, *m.span()) and told_by(view, start, m.start())]
    if told and told[-1] is not last and CONDITION.match(view, told[-1].end(), end):
        return Answer(told[-1].group(), *told[-1].span(), found_by)
    second = len(found) > 1 and _OR_NAMED.search(view[max(start, last.start() - 60) : last.start()])
    if second and number_value(found[-2].group()) != number_value(last.group()):
        return trimmed(view, found[-2].start(), last.end(), found_by)
    if equals := re.search(rf"=\s*(?:\\?\$|\\text\{{[^}}]*\}})?\s*(?P<sign>[{MINUS}]\s)?$", view[start : last.start()]):
        begin = start + equals.start("sign") if equals["sign"] else last.start()
        return Answer(view[begin : last.end()], begin, last.end(), found_by)
    first = _list_begins(view, found)
    if (
        first < len(found) - 1
        and not (told and told[-1].end() <= found[first].start())
        and (
            re.search(r"\bor\b", view[found[first].start() : last.start()])
            or re.search(r"\b(?:between|is|are|was|were)\s\\?\$?$", view[start : found[first].start()])
        )
    ):
        values = {number_value(m.group()) for m in found[first:]}
        if len(values) == 1 and None not in values:  # 3/4, or 0.75
            return Answer(last.group(), *last.span(), found_by)
        return trimmed(view, found[first].start(), last.end(), found_by)
    if _ROUNDED.search(view[max(start, last.start() - 40) : last.start()]):
        return Answer(last.group(), *last.span(), found_by)
    named = re.search(rf"(?<![\w.])({NUMERAL.pattern})\s*=[^=.!?\n]*$", view[start : last.start()])
    if named and not _alone(view, *last.span()) and _alone(view, *(start + n for n in named.span(1))):
        return Answer(named[1], start + named.start(1), start + named.end(1), found_by)
    noting = note_around(view, start, end, last.start())
    before = [m for m in found if noting is not None and m.end() <= noting]
    if before and _alone(view, *before[-1].span()) and (len(before) == 1 or not _alone(view, *last.span())):
        return Answer(before[-1].group(), *before[-1].span(), found_by)  # 18 dollars (9 * 2)
    result = last_match(_RESULT, view, 0, end)
    value = number_value(result["value"]) if result else None
    alone = [m for m in found if _alone(view, *m.span()) and not _COMPARED.match(view, m.end())]
    alone = [m for m in alone if not GIVEN.search(view[max(start, m.start() - 20) : m.start()])] or alone
    alone = _without_more(view, start, end, alone) if alone else alone
    if len(alone) > 1 and (_serves(view, start, alone[-2], alone[-1]) or _rounds(view, alone[-2], alone[-1])):
        return Answer(alone[-2].group(), *alone[-2].span(), found_by)
    if len(alone) > 2 and (total := _parted(view, start, alone)):
        return Answer(total.group(), *total.span(), found_by)
    chosen = [m for m in alone if value is not None and number_value(m.group()) == value]
    chosen = chosen or [m for m in told if m in alone] or alone or [last]
    for m in found[-8:]:
        measured = measure(view, m.start(), end)
        if measured is not None and m.start() <= chosen[-1].start() < measured:
            other = [n for n in alone if n.end() < m.start()]
            if other and re.fullmatch(
                r"[\sA-Za-z*]{0,20}, (?:or|i\.e\.,?|that is,?|which is)\s", view[other[-1].end() : m.start()]
            ):
                return Answer(other[-1].group(), *other[-1].span(), found_by)  # 160 minutes, or 2 hours and 40 minutes
            return _measured(view, m.start(), measured, end, Span(start, end, found_by))
    return Answer(chosen[-1].group(), *chosen[-1].span(), found_by)


def denied(view: str, start: int, begin: int, end: int) -> bool:
    """Whether a number is one that a sentence says not to be it: "18, not 20", "18 and 20 is not"."""
    return _DENIES.search(view, max(start, begin - 20), begin) is not None or _IS_NOT.match(view, end) is not None


_DENIES = re.compile(
    r"\b(?:not|rather than|instead of|(?:is|are|was|were|must|should)n['\u2019]t(?:\sbe)?"
    r"|(?:can\s?not|could not|must not|should not|(?:ca|could)n['\u2019]t) be)\s[\\$(*\u20ac\u00a3]{0,3}\Z"
)
_IS_NOT = re.compile(
    r"[$)*\\]{0,3}\s(?:(?:does|do|is|are|was|would|will)(?:\snot|n['\u2019]t)\b"
    r"(?=\s?(?:[.,;!]|work|right|correct|(?:the|our|an?)\s(?:\w+\s)?(?:answer|solution|result)\b|\Z))"
    r"|(?:is|was)\s(?:wrong|incorrect)\b)"
)
# What it takes for something that is given: "pays $64 for 16 glasses", "needs 14 boxes to hold 168 eggs".
_TAKES = re.compile(
    r"(?:\A[\s*_]*|\bso\s|\b(?:takes?|took|needs?|needed|requires?|pays?|paid|costs?|spends?|spent|earns?|earned|charges?|charged)\b"
    r"[^.,;:\d]{0,30})[\\$*_\u20ac\u00a3]{0,4}\Z"
)
_FOR = re.compile(
    r"[*_]{0,3}(?:\s(?!(?:per|each|every|an?)\b)[a-z]+){0,4}?[*_]{0,3}\s"
    r"(?:(?P<to>to\s[a-z]+(?:\s[a-z]+){0,4})|for)(?:\sall)?\s\\?\$?[*_]{0,3}"
)
_PAID = re.compile(r"\s?(?:dollars?|euros?|cents?|pounds?)\b")


def _serves(view: str, start: int, first: re.Match[str], last: re.Match[str]) -> bool:
    """Whether the last of two numbers is what the first is needed or paid for; a price is never: "2 pens for $6"."""
    found = _FOR.fullmatch(view, first.end(), last.start())
    if found is None or _TAKES.search(view[max(start, first.start() - 60) : first.start()]) is None:
        return False
    paid = re.match(MONEY, last.group()) or view[last.start() - 1] in "$\u20ac\u00a3" or _PAID.match(view, last.end())
    return found["to"] is not None or not paid


# What tells more of what stands before it, up to the end of its sentence: why, after what, of what, in what time.
_MORE = re.compile(
    r",?[*_]{0,3}(?<!\band)(?<!\bbut)\s"
    r"(?:since|because|as(?=\s[^\s,]+\s[a-z]+\s[a-z])|(?<=,\s)while|after(?=\s[a-z]+ing\b)|using(?=\s\\?\$?\d))\s"
    r"[^,;=]{0,150}?[.!\s]{0,9}\Z"
    r"|\s(?:in|over|every)\s\d+\s(?:seconds|minutes|hours|days|weeks|months|years)[*_]{0,3}[.!\s]{0,9}\Z"
    r"|\son\s(?:day|week|lap|page)\s\d+[.!\s]{0,9}\Z"
)


def _without_more(view: str, start: int, end: int, found: list[re.Match[str]]) -> list[re.Match[str]]:
    """Of a sentence's numbers those before what only tells more: "75 miles in 3 hours", "75, since 25 are gone"."""
    more = _MORE.search(view[start:end], found[0].end() - start)
    if more is None or re.search(r"\b(?:so|thus|hence|therefore|then)\s", more.group()):
        return found
    return [m for m in found if m.end() <= start + more.start()] or found


def _rounds(view: str, exact: re.Match[str], other: re.Match[str]) -> bool:
    """Whether a number only says about how large a fraction before it is: "3/56, which is about 0.054"."""
    fraction = "/" in exact.group() and "." in other.group()
    return fraction and ABOUT.fullmatch(view, exact.end(), other.start()) is not None


def _parted(view: str, start: int, found: Sequence[re.Match[str]]) -> re.Match[str] | None:
    """The number that the ones listed behind it add up to: "3 bolts: 2 blue and 1 white"."""
    first = next(
        (n for n in range(len(found) - 2) if _COLON.fullmatch(view, found[n].end(), found[n + 1].start())), None
    )
    if first is None:
        return None
    joined = all(_PARTS.fullmatch(view, a.end(), b.start()) for a, b in pairwise(found[first + 1 :]))
    values = [number_value(m.group()) for m in found[first:]]
    known = [value for value in values if value is not None]
    return found[first] if joined and len(known) == len(values) and known[0] == sum(known[1:]) else None


_COLON = re.compile(r"[*_]{0,3}(?:\s[a-z]+){0,4}[*_]{0,3}(?:\s?[:\u2014\u2013]|,)\s\\?\$?")
_PARTS = re.compile(r"(?:\s[A-Za-z]+){0,5}(?:,|,?\sand)\s\\?\$?")


def told_by(view: str, start: int, place: int) -> bool:
    """Whether a number is what a sentence says that something is."""
    return _TOLD.fullmatch(view, max(start, place - 60), place) is not None


def _alone(view: str, start: int, end: int) -> bool:
    """Whether a number is no term of a sum."""
    before, after = view[max(0, start - 10) : start].rstrip(" $\\("), view[end : end + 10].lstrip(" $\\)")
    if before.endswith("**") and not re.search(r"\d\s?\*+$", before):  # bold type
        before = before.rstrip("*")
        after = re.sub(r"^\*+", "", after)
    return not re.match(r"[-+*/×÷\u2212]|times|cdot", after) and not before.endswith((*_OPERATORS, " times"))


def _list_begins(view: str, found: Sequence[re.Match[str]]) -> int:
    """Which number begins the list that the last one ends."""
    first = len(found) - 1
    joint = re.compile(r"\s*(?:,?\s*(?:and|or)|,)\s*\$?\s*")
    while first and joint.fullmatch(view, found[first - 1].end(), found[first].start()):
        first -= 1
    return first


# Whole numbers joined by signs, with brackets where they are.
_OPERATOR = rf"(?:[{MINUS}+*/×÷]|\\times|\\cdot|\\div)"
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
