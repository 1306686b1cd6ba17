"""Sentences of a text as spans of its token ids.

Ends are found in the text and carried onto the ids (`probes.offsets`): the spans [first, last) follow each other
without a gap and cover all ids, and a token that holds the end of one sentence and the beginning of the next goes to
the next. Blanks and line ends after a sentence belong to it, where they are tokens of their own.

What ends a sentence: a full stop, question or exclamation mark or ellipsis with its closing quotes and brackets, where
a blank follows and the next word does not go on in lower case (after a question it may); a blank line; a line end
before a list item or before anything that is no continuation; the edges of a code fence. What does not: stops in
numbers and after abbreviations, markers of list items, and whatever lies inside mathematics or code.

Single capital letters end sentences as any word does: in thoughts they name points and options far more often than
people. Two in a row (J. K.) are initials.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from probes.errors import UserError
from probes.offsets import decoded, offsets

Span = tuple[int, int]

# After these a sentence goes on whatever follows; after the second kind only before lower case or a number.
GOES_ON = frozenset(
    (
        *("al", "ca", "cf", "def", "dr", "e.g", "eq", "eqs", "fig", "figs", "i.e", "lem"),
        *("mr", "mrs", "ms", "prof", "prop", "st", "thm", "viz", "vs", "w.l.o.g"),
    )
)
MAY_END = frozenset(("a.m", "approx", "etc", "inc", "jr", "ltd", "nos", "p.m", "ph.d", "resp", "sec", "sr"))

_PIECES = re.compile(
    r"""
      (?P<fence>^[ \t]*```[^`\n]*\n.*?(?:^[ \t]*```[^\n]*$|\Z))
    | (?P<inside>
          \$\$.+?\$\$ | \\\(.+?\\\) | \\\[.+?\\\]
        | \\begin\{(?P<env>\w+\*?)\}.+?\\end\{(?P=env)\}
        | (?<![\\\d$])\$(?=[^\s$])(?:\\.|[^$\n\\]|\n(?!\s*\n))*?(?<=\S)\$(?![\d$])   # not the signs of two prices
        | `[^`\n]+`
      )
    | (?P<end>(?:[.?!…]+|[。！？]+)["'”’»)\]*_]*)
    | (?P<line>\n(?:[ \t]*\n)*)
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_MARKER = re.compile(r"[\s>#*_]*(?:[-*+•–]|\(?(?:(?:Step |Case |Part )?\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)])[*_]*")
_ITEM = re.compile(_MARKER.pattern + r"\s")
_STOP_IN_MATHS = re.compile(r"[.?!]\s*(?:\$+|\\[)\]]|\\end\{\w+\*?\})\Z")
_LAST_WORD = re.compile(r"(?:[^\W\d_]|\.(?=[^\W\d_]))+\Z")
_STATEMENT = re.compile(r"[a-z]\w?\s*[=<>≤≥]")  # a variable begins it
_CONTINUES = frozenset("=+−×·/≤≥≈,;:.)]}%")


def sentence_starts(text: str) -> list[int]:
    """The characters at which sentences begin; the first is 0, all others stand on no blank."""
    starts = [0]
    begin = _filled(text, 0)
    for piece in _PIECES.finditer(text):
        if piece.end() <= begin:
            continue
        edges = [piece.start(), piece.end()] if piece.lastgroup == "fence" else [piece.end()]
        for edge in edges:
            after = _filled(text, edge)
            if begin < after < len(text) and (piece.lastgroup == "fence" or _ends(text, begin, piece, after)):
                starts.append(after)
                begin = after
    return starts


def segment(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first: int = 0) -> list[Span]:
    """The sentences of ids[first:] as token spans [first, last) of `ids`.

    Args:
        tokenizer: of the ids; offsets are not asked of it.
        ids: token ids of a whole text.
        first: where the sentences begin, as after a prompt.

    Raises:
        UserError: nothing after `first`.
    """
    if not 0 <= first < len(ids):
        raise UserError(f"{len(ids)} token ids were given and sentences asked for from token {first}; give more")
    text = decoded(tokenizer, ids)
    begun = offsets(tokenizer, ids, text).begun
    origin = begun[first - 1] if first else 0
    starts = [bisect_right(begun, origin + at) for at in sentence_starts(text[origin:])[1:]]
    bounds = [first, *sorted({s for s in starts if first < s < len(ids)}), len(ids)]
    return list(pairwise(bounds))


def _filled(text: str, at: int) -> int:
    """The next character that is no blank, or the text's end."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _ends(text: str, begin: int, piece: re.Match[str], after: int) -> bool:
    """Whether a piece of the text ends the sentence that began at `begin`; the text goes on at `after`."""
    if piece.lastgroup == "line":
        return piece.group().count("\n") > 1 or bool(_ITEM.match(text, after)) or not _goes_on(text, after)
    if piece.lastgroup == "inside":
        return bool(_STOP_IN_MATHS.search(piece.group())) and after > piece.end() and not _goes_on(text, after)
    sign = piece.group()
    if sign[0] in "。！？":
        return True
    if after == piece.end() or _MARKER.fullmatch(text, begin, piece.end()):
        return False
    if _goes_on(text, after):
        return "?" in sign and sign[-1] in "?!" and text[after].isalpha()
    return sign[0] != "." or sign.startswith("..") or not _abbreviated(text, begin, piece.start(), after)


def _goes_on(text: str, at: int) -> bool:
    """Whether what stands here continues a sentence."""
    if text[at].islower():
        return not _STATEMENT.match(text, at)
    return text[at] in _CONTINUES and not _ITEM.match(text, at)


def _abbreviated(text: str, begin: int, stop: int, after: int) -> bool:
    found = _LAST_WORD.search(text, begin, stop)
    if not found:
        return False
    word = found.group()
    if word.lower() in GOES_ON or re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word):
        return True
    if word == "No" or word.lower() in MAY_END:
        return text[after].isdigit()
    initial = re.compile(r"[A-Z]\.\s")
    return bool(re.fullmatch("[A-Z]", word)) and bool(
        initial.match(text, after) or initial.fullmatch(text, found.start() - 3, found.start())
    )
