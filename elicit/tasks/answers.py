"""Find the answer in a response, as characters and as token ids, as a reader would.

What is looked at, in this order; the first that holds an answer of the kind that is asked for decides:

1. the last closed `\\boxed{}` or `<answer>` (unless it is taken back and another answer is stated after it);
2. the last `####`;
3. the last "the answer is", "Answer:", "**Final Answer**" and their like;
4. the last line, where it is a letter, a marked value, or words; phrases that choose an option;
5. the last number, expression or piece of mathematics, in the last sentence that has one and neither refuses nor only
   remarks on the answer. A sentence with several numbers concludes the one that repeats the last result, or that
   follows "there are" and is no step to what comes next, else its last that is not given ("of the 80"), not denied
   ("not 20"), not what it is for ("$64 for 16 glasses") and no more on one before it ("75 miles in 3 hours").

What is put in the place of a stated answer is read instead: "20, no wait, 18"; "Actually, it's 18".

A computation behind "Answer:" that goes on from sentence to sentence is read like a response without marks.

Each sees the response without its thought, up to a question that the model invents (`elicit.tasks.statements`); a
thought that does not end has no answer, and a box that is not closed ends what is read. Kind `last-number` is the rule
of arXiv 2402.10200 instead: the last number, whatever stands before it. `Answer.found_by` says which it was.

The span is carried onto the *original* token ids through each token's place in the decoded text; nothing is tokenised
again, so no index shifts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from elicit.tasks.numerals import DIGITS
from elicit.tasks.numerals import LONGEST as LONGEST
from elicit.tasks.numerals import expression_value as expression_value
from elicit.tasks.numerals import number_value as number_value
from elicit.tasks.read_maths import last_math, math
from elicit.tasks.read_numbers import expression, last_expression, last_number, number
from elicit.tasks.read_options import chosen_option, option
from elicit.tasks.statements import (
    STOP,
    Span,
    blanked,
    boxed,
    boxes,
    corrected,
    hashed,
    last_match,
    marked,
    replaces,
    said,
    tagged,
    trimmed,
)
from elicit.tasks.statements import Answer as Answer

Kind = Literal["number", "last-number", "expression", "option", "math", "text", "code", "whole"]
KINDS: tuple[Kind, ...] = ("number", "last-number", "expression", "option", "math", "text", "code", "whole")
# How an answer may be found, in the order of the list above.
FOUND_BY = (
    "box", "answer tag", "####", "answer is", "phrase", "last line", "last value", "last number", "code", "whole",
)  # fmt: skip


def find_answer(text: str, kind: Kind) -> Answer | None:
    """The answer of this kind that the text gives, or None."""
    if kind == "last-number":
        found = last_match(DIGITS, text)
        return Answer(found.group(), *found.span(), "last number") if found else None
    view = said(text, programs=kind in ("text", "code", "whole"))
    if not view.strip():
        return None
    if kind == "code":
        return _code(view)
    if kind == "whole":
        inner = tagged(view)
        return trimmed(view, *inner, "") if inner else trimmed(view, 0, len(view), "whole", "")
    unclosed = boxes(view)[1]
    if unclosed is not None:  # it would have held the answer
        return _stated(blanked(view, unclosed, len(view)), kind)
    return _stated(view, kind) or _READERS[kind][1](view)


def find_boxed(text: str) -> Answer | None:
    """What stands in the last closed box, and nothing else."""
    return _in_boxes(said(text, programs=False), "math")


def _stated(view: str, kind: Kind) -> Answer | None:
    """What is marked as the answer."""
    inner, answer = tagged(view), _in_boxes(view, kind)
    if inner and (answer is None or inner.end > answer.end):
        within = _in_boxes(view[: inner.end], kind, inner.start) or _READERS[kind][0](view, inner)
        answer = within._replace(found_by="answer tag") if within else answer
    later = _first(_READERS[kind][0](view, span) for span in (*hashed(view), *marked(view)))
    if kind == "option" and later:
        chosen = chosen_option(blanked(view, 0, later.end))  # "Actually, B is correct"
        if chosen and chosen.found_by == "phrase" and replaces(view, later, chosen):
            later = chosen
    if answer is None or (later and later.start >= answer.end and replaces(view, answer, later)):
        answer = later
    if answer is None or kind not in ("number", "math"):
        return answer
    return _first(_READERS[kind][0](view, span) for span in corrected(view, answer.start)) or answer


def _first(found: Iterator[Answer | None]) -> Answer | None:
    return next((answer for answer in found if answer), None)


def _in_boxes(view: str, kind: Kind, since: int = 0) -> Answer | None:
    """The answer in the last box, or in the last ones where they are joined."""
    spans = [Span(box.start, box.end, "box") for box in boxed(view) if box.begin >= since]
    known = [answer for span in spans if (answer := _READERS[kind][0](view, span))]
    if len(known) < 2:
        return known[-1] if known else None
    joint = " or " if re.search(r"\bor\b", view[known[-2].end : known[-1].start]) else ", "
    return Answer(joint.join(answer.text for answer in known), known[0].start, known[-1].end, "box")


def _text(view: str, span: Span) -> Answer | None:
    """A region's first sentence; after a heading its lines."""
    start, end = span.start, span.end
    if span.found_by == "answer is" and not re.search(r"\n[ \t]*$", view[max(0, start - 3) : start]):
        found = re.compile(rf"{STOP}(?=\s|$)|\n").search(view, start, end)
        end = found.start() if found else end
    return trimmed(view, start, end, span.found_by)


def _last_line(view: str) -> Answer | None:
    end = len(view.rstrip())
    return trimmed(view, view.rfind("\n", 0, end) + 1, end, "last line")


_FENCE = re.compile(r"```[^\n`]*\n(?P<code>.*?)(?:\n?[ \t]*```|\Z)", re.S)


def _code(view: str) -> Answer | None:
    """What the last fence holds, else the whole response."""
    inner = tagged(view)
    start, end = (inner.start, inner.end) if inner else (0, len(view))
    last = last_match(_FENCE, view, start, end)
    if last:
        return Answer(last["code"], *last.span("code"), "code") if last["code"].strip() else None
    return trimmed(view, start, end, "answer tag" if inner else "whole", "")


# Of each kind: what reads a marked region, and what a response without marks gives.
_READERS: dict[Kind, tuple[Callable[[str, Span], Answer | None], Callable[[str], Answer | None]]] = {
    "number": (number, last_number),
    "expression": (expression, last_expression),
    "option": (option, chosen_option),
    "math": (math, last_math),
    "text": (_text, _last_line),
}


def token_span(ends: Sequence[int], answer: Answer) -> tuple[int, int]:
    """The tokens [first, last) that hold at least one character of the answer."""
    first = next(i for i, end in enumerate(ends) if end > answer.start)
    last = next((i + 1 for i, end in enumerate(ends) if end >= answer.end), len(ends))
    return first, max(last, first + 1)
