"""The option letter that a region of a response states, or that a response without any mark chooses.

Articles and pronouns are no options: "a car", "I think". Where several are chosen, none is; and what is said to be
wrong is not chosen: "(A) is too small", "C and D fail", "not B".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from elicit.tasks.statements import Answer, Span, sentence_end, sentences

_LETTER = r"(?P<letter>[A-Z])"
_OPENED = r"(?:[\s*_`$\"'\u201c\u201d(\[{]|\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{|\\[(\[$])*+"
_CLOSED = r"(?:[*_`$\"'\u201c\u201d)\]}]|\\[)\]])*"
_STATED = re.compile(rf"{_OPENED}(?:(?i:option|choice|letter)\s+)?{_OPENED}{_LETTER}{_CLOSED}(?![\w'\u2019])")
_SMALL = re.compile(
    rf"{_OPENED}(?:(?i:option|choice|letter)\s+{_OPENED})?(?P<letter>[a-z]){_CLOSED}[.!]?\s*(?=\n|$)"
    r"|\s*(?:(?i:option|choice|letter)\s+)?\((?P<inside>[a-z])\)\s|\s*[*_]{0,3}(?P<before>[a-z])\)[*_]{0,3}\s"
)
_SMALL_ALONE = re.compile(
    r"\s*(?:(?i:option|choice)\s+)?[*_(\[]*(?P<letter>[a-z])(?:[*_)\].:]*\s*|[*_]{0,3}\)[*_]{0,3}\s(?!(?:is|was|does|can)\b)[^\n]*\s*)"
)
_PROSE = re.compile(r"[ \t]+(?!(?:because|since|as|and|or|is)\b)[a-z]")
_AND = (
    r"(?:\s{0,3}[,/&]\s{0,3}(?:(?:and|or|nor)\b\s{0,3})?"
    r"|\s{1,3}(?:\(|\\text\s?\{\s?)?(?:and|or|nor)\b\s{0,3}\}?\s{0,3})"
)
_ELSE = r"(?:(?:maybe|perhaps|possibly|even|else|option|choice)\s){0,2}"
_SEVERAL = re.compile(
    rf"[*_`$\"')\]}}]{{0,6}}{_AND}{_ELSE}[*_(\[\"'$]{{0,4}}(?![AI]\s[a-z]){_LETTER}"
    rf"{_CLOSED}(?:\W|$)|\s*[\^=+<>]"
)
_CHOSEN = re.compile(
    r"(?:\b(?<!each\s)(?<!every\s)(?i:option|choice)(?:\s|:)\s*"
    r"|\b(?i:choose|pick|select|is|be|go\swith|it's|that's|leav(?:es|ing)|corresponds\sto|answer)\s+(?:(?i:option)\s+)?"
    r"|(?:=>|\u21d2|\u2192|->)\s*)"
    rf"[*_(\[\"'$]*{_LETTER}\b(?!['\u2019\w])"
    r"|(?:\b(?i:not|neither)|n['\u2019]t)\b[^.\n]{1,80}?\bbut\s(?:rather\s)?(?i:(?:option|choice)\s)?"
    r"[*_(\[\"'$]*(?P<instead>[A-Z])(?![\w'\u2019])(?=[*_)\]\"'$]*(?:\s+is)?(?:[.,;:!]|\s*(?:\n|$)))"
    r"|\b(?i:so|thus|hence|therefore)[,:]?\s+[*_(\[\"'$]*(?P<so>[A-Z])(?=[*_)\]\"'$]*[.!]?\s*(?:\n|$))"
    r"|\b(?i:option|choice)(?:\sis)?:?\s[*_\"'$]*\((?P<small>[a-z])\)"
    r"|(?<!\w)(?<!\w\()(?P<right>[A-Z])[*_)\]\"'.]*\s+(?:is|seems|looks|appears)(?:\sto\sbe)?\s+"
    r"(?:the\s+)?(?:(?:only|best)\s+)?(?i:correct|right|true|best|answer|option\sthat|choice\sthat|one\sthat)\b"
    r"|(?:\b(?i:only|so|thus|hence)\s|(?:^|(?<=[.!?]\s)|(?<=\n)))[*_(]*(?P<fits>[A-Z])[*_)]*\s(?:fits|works|matches|holds)\b"
    r"|\b(?i:no|wait|actually),\s(?:(?i:it)(?:'s|\sis)\s)?[*_(\[\"'$]*(?P<no>[A-Z])(?=[*_)\]\"'$]*[.!]?\s*(?:\n|$))"
)
_LINE = re.compile(
    rf"(?:^|(?<=\n))[ \t*_`$(\[\"']*{_LETTER}"
    r"(?:[)\].:][)\]*_.:]*(?=[ \t*_]|$|\n)|[)\]*_`$\"'.!]*[ \t]*(?=\n|$)|[ \t]+[-\u2013\u2014][ \t]"
    r"|[)\]*_]{0,3}(?:,?[ \t](?:since|because)\b|[ \t]\(not\b))"
)
_BRACKETED = re.compile(rf"\({_LETTER}\)")
# Letters that something is said of together, what denies them after it, and what before it.
_RUN_CLOSED = r"[*_)\]\"'$.:]{0,4}"
_RUN = re.compile(
    rf"(?<![\w'\u2019])[A-Z](?![\w'\u2019]){_RUN_CLOSED}(?:{_AND}[*_(\[\"'$]{{0,4}}[A-Z](?![\w'\u2019]){_RUN_CLOSED})*"
)
_ADVERB = r"(?:(?:both|all|also|clearly|obviously|therefore|thus|definitely|simply|just|plainly)\s){0,2}"
_BAD = r"(?:not|incorrect|invalid|wrong|false|untrue|too|out|impossible|excluded|eliminated|rejected|ruled\sout)\b"
_WRONG = re.compile(
    rf"\s{{1,3}}{_ADVERB}(?:(?P<plural>are\s{_ADVERB}{_BAD}|were\s{_ADVERB}{_BAD}|fail\b|do\snot\b"
    rf"|(?:are|were|do)n['\u2019]t\b)|(?:is|was|seems|looks|must\sbe|would\sbe|can\sbe)\s{_ADVERB}{_BAD}"
    r"|(?:is|was|does|did|ca|could|would|wo)n['\u2019]t\b|(?:does|did|can|could|would|will|must)\s?not\b"
    r"|fails\b|failed\b)"
)
_DENIED = re.compile(
    r"(?:\bnot|n['\u2019]t|\bcannot|\bneither|\bnor|\brul(?:es?|ed|ing)\sout|\b(?:eliminat|exclud)(?:es?|ed|ing)"
    r"|\breject(?:s|ed|ing)?|\binstead\sof|\brather\sthan)(?:\sbe)?(?:\sboth)?(?:\s(?:options?|choices?|answers?))?"
    r"\s{0,3}[*_(\[\"'$]{0,4}$"
)


# What begins a choice where the choices are repeated, and nothing is said of them.
_CHOICE = re.compile(
    r"(?:^|(?<=[\s,;]))[*_]{0,3}(?:\((?P<inside>[A-Z])\)|(?P<letter>[A-Z])[).:])"
    r"(?=[*_]{0,3}[ \t]+(?!(?:is|was|are|has|does|do|can|would|will|holds|works|fails|fits)\b))"
)


def option(view: str, span: Span) -> Answer | None:
    """The letter at the beginning of a region: a capital, or a small one that stands alone on its line."""
    found = _STATED.match(view, span.start, span.end)
    if found is None:
        small = _SMALL.match(view, span.start, span.end)
        return _answer(small, span.found_by, small.lastgroup or "letter") if small else None
    end = sentence_end(view, found.end(), span.end)
    rest = view[found.end() : end]
    if found.group().strip() in ("A", "I") and _PROSE.match(rest):
        return None
    denied = _denied(view, found.start("letter"), end)
    if found.start("letter") in denied or _several(view, found, end, denied):
        return None
    return _answer(found, span.found_by)


def chosen_option(view: str) -> Answer | None:
    """What a phrase chooses, a line that is an option, the last capital in brackets."""
    denied = _denied(view, 0, len(view))
    phrases = [
        m
        for m in _CHOSEN.finditer(view)
        if m.start(m.lastgroup or 0) not in denied and not _is_word(view, m) and not _is_wrong(view, m)
    ]
    if phrases:
        last = phrases[-1]
        hedged = any(_several(view, m, sentence_end(view, m.end(), len(view)), denied, last) for m in phrases[-2:])
        return None if hedged or _both_right(view, phrases) else _answer(last, "phrase", last.lastgroup or "letter")
    denied |= _repeated(view)
    lines = [m for m in _LINE.finditer(view) if m.start("letter") not in denied]
    if lines and (len({m["letter"] for m in lines}) == 1 or _fills_line(view, lines[-1]) or _ends(view, lines[-1])):
        return _answer(lines[-1], "last line")
    small = _SMALL_ALONE.fullmatch(view)
    if small:
        return _answer(small, "last line")
    for start, end in reversed(sentences(view)):
        last_one = next(
            (m for m in reversed(list(_BRACKETED.finditer(view, start, end))) if m.start("letter") not in denied), None
        )
        if last_one:
            joined = re.search(rf"{_BRACKETED.pattern}\s*(?:,|and|or|,\s*and)\s*$", view[start : last_one.start()])
            return None if joined else _answer(last_one, "last value")
    return None


def _denied(view: str, start: int, end: int) -> set[int]:
    """Where the letters stand that are said to be wrong."""
    out: set[int] = set()
    for run in _RUN.finditer(view, start, end):
        letters = [found.start() for found in re.finditer(r"[A-Z]", run.group())]
        wrong = _WRONG.match(view, run.end(), end)
        if wrong or _DENIED.search(view[max(0, run.start() - 40) : run.start()]):
            last = wrong and not wrong["plural"]  # "it is B, C is too large"
            out.update(run.start() + place for place in (letters[-1:] if last else letters))
    return out


def _repeated(view: str) -> set[int]:
    """Where the letters of the choices stand that a response repeats: A, B, C and further, one after the other."""
    out: set[int] = set()
    run: list[int] = []
    for found in _CHOICE.finditer(view):
        place = found.start(found.lastgroup or 0)
        follows = ord(view[place]) - ord("A") == len(run)
        run = [*run, place] if follows else [place] * (view[place] == "A")
        out.update(run if len(run) > 2 else ())
    return out


def _is_wrong(view: str, found: re.Match[str]) -> bool:
    """Whether a small letter is said to be wrong: "option (a) is wrong"."""
    if found["small"] is None:
        return False
    before = view[max(0, found.start() - 40) : found.start()]
    return _WRONG.match(view, found.end()) is not None or _DENIED.search(before) is not None


def _several(view: str, found: re.Match[str], end: int, denied: set[int], last: re.Match[str] | None = None) -> bool:
    """Whether another letter is named with one that is found, and not said to be wrong; the `last` one, if that is
    another."""
    other = _SEVERAL.match(view, found.end(), end)
    if other is None or other.start("letter") in denied:
        return False
    return last in (None, found) or other.start("letter") == last.end() - 1


def _both_right(view: str, phrases: Sequence[re.Match[str]]) -> bool:
    """Whether the last letter is called right after another one was, in one sentence."""
    called = [m for m in phrases if m["right"]]
    if len(called) < 2 or called[-1] is not phrases[-1] or called[-1]["right"] == called[-2]["right"]:
        return False
    return sentence_end(view, called[-2].end(), len(view)) >= called[-1].start()


def _answer(found: re.Match[str], found_by: str, group: str = "letter") -> Answer:
    return Answer(found[group].upper(), found.start(group), found.end(group), found_by)


def _is_word(view: str, found: re.Match[str]) -> bool:
    """Whether the letter is an article or a pronoun: "it is A car"."""
    return found["letter"] in ("A", "I") and re.match(r"\s+[a-z]", view[found.end() :]) is not None


def _fills_line(view: str, found: re.Match[str]) -> bool:
    return not view[found.end() : (view + "\n").index("\n", found.end())].strip(" .*_")


def _ends(view: str, found: re.Match[str]) -> bool:
    return found.end() >= len(view.rstrip())
