"""The option letter that a region of a response states, or that a response without any mark chooses.

Articles and pronouns are no options: "a car", "I think". Where several are chosen, none is.
"""

from __future__ import annotations

import re

from elicit.tasks.statements import Answer, Span, last_match, sentence_end, sentences

_LETTER = r"(?P<letter>[A-Z])"
_OPENED = r"(?:[\s*_`$\"'\u201c\u201d(\[{]|\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{|\\[(\[$])*"
_CLOSED = r"(?:[*_`$\"'\u201c\u201d)\]}]|\\[)\]])*"
_STATED = re.compile(rf"{_OPENED}(?:(?i:option|choice|letter)\s+)?{_OPENED}{_LETTER}{_CLOSED}(?![\w'\u2019])")
_SMALL = re.compile(rf"{_OPENED}(?P<letter>[a-z]){_CLOSED}[.!]?\s*(?=\n|$)")
_PROSE = re.compile(r"[ \t]+(?!(?:because|since|as|and|or|is)\b)[a-z]")
_SEVERAL = re.compile(rf"\s*(?:,|\band\b|\bor\b|&)\s*[(\[]?[A-Z]{_CLOSED}(?:\W|$)|\s*[\^=+<>]")
_CHOSEN = re.compile(
    r"(?:\b(?i:option|choice)(?:\s|:)\s*|\b(?i:choose|pick|select|is|be|go\swith|it's|that's)\s+(?:(?i:option)\s+)?)"
    rf"[*_(\[\"'$]*{_LETTER}\b(?!['\u2019\w])"
    r"|(?<![\w(])(?P<right>[A-Z])[*_)\]\"'.]*\s+is\s+(?:the\s+)?(?i:correct|right|true|best|answer)\b"
)
_LINE = re.compile(
    rf"(?:^|(?<=\n))[ \t*_`$(\[\"']*{_LETTER}"
    r"(?:[)\].:][)\]*_.:]*(?=[ \t*_]|$|\n)|[)\]*_`$\"'.]*[ \t]*(?=\n|$))"
)
_BRACKETED = re.compile(rf"\({_LETTER}\)")


def option(view: str, span: Span) -> Answer | None:
    """The letter at the beginning of a region: a capital, or a small one that stands alone on its line."""
    found = _STATED.match(view, span.start, span.end)
    if found is None:
        small = _SMALL.match(view, span.start, span.end)
        return _answer(small, span.found_by) if small else None
    rest = view[found.end() : sentence_end(view, found.end(), span.end)]
    if found.group().strip() in ("A", "I") and _PROSE.match(rest):
        return None
    return None if _SEVERAL.match(rest) else _answer(found, span.found_by)


def chosen_option(view: str) -> Answer | None:
    """What a phrase chooses, a line that is an option, the last capital in brackets."""
    phrases = [m for m in _CHOSEN.finditer(view) if not _denied(view, m) and not _is_word(view, m)]
    if phrases:
        return _answer(phrases[-1], "phrase", "letter" if phrases[-1]["letter"] else "right")
    lines = list(_LINE.finditer(view))
    if lines and (len({m["letter"] for m in lines}) == 1 or _fills_line(view, lines[-1]) or _ends(view, lines[-1])):
        return _answer(lines[-1], "last line")
    small = re.fullmatch(r"\s*[*_(\[]*(?P<letter>[a-z])[*_)\].:]*\s*", view)
    if small:
        return _answer(small, "last line")
    for start, end in reversed(sentences(view)):
        last = last_match(_BRACKETED, view, start, end)
        if last:
            joined = re.search(rf"{_BRACKETED.pattern}\s*(?:,|and|or|,\s*and)\s*$", view[start : last.start()])
            return None if joined else _answer(last, "last value")
    return None


def _answer(found: re.Match[str], found_by: str, group: str = "letter") -> Answer:
    return Answer(found[group].upper(), found.start(group), found.end(group), found_by)


def _denied(view: str, found: re.Match[str]) -> bool:
    before = view[max(0, found.start() - 12) : found.start()]
    return re.search(r"(?:\bnot|n't|\bneither|\bnor)\s*$", before) is not None


def _is_word(view: str, found: re.Match[str]) -> bool:
    """Whether the letter is an article or a pronoun: "it is A car"."""
    return found["letter"] in ("A", "I") and re.match(r"\s+[a-z]", view[found.end() :]) is not None


def _fills_line(view: str, found: re.Match[str]) -> bool:
    return not view[found.end() : (view + "\n").index("\n", found.end())].strip(" .*_")


def _ends(view: str, found: re.Match[str]) -> bool:
    return found.end() >= len(view.rstrip())
