"""Where a response states its answer, whatever the answer is: boxes, tags, `####`, "the answer is".

What is no part of the answer is blanked first, so that places stay what they were: a thought, and all of one that does
not end; questions that the model invents after its answer; programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# The marks between which models put a chain of thought that is no part of the response.
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
# What some of these models put before a response, whether or not they thought.
_RESPONDS = ("<|channel|>final<|message|>", "<|START_RESPONSE|>")
_THOUGHT_BEGINS, _THOUGHT_ENDS = (
    re.compile("|".join(map(re.escape, marks)), re.I)
    for marks in ([begin for begin, _ in THOUGHTS], [*(end for _, end in THOUGHTS), *_RESPONDS])
)
# A next turn or question that a completion model invents.
_TURN = r"(?:Q|Question|Problem|Exercise|Human|User|Instruction|Student)"
_INVENTED = re.compile(
    rf"(?:^|\n)[ \t]*(?:[#>*]+[ \t]*)?(?P<word>{_TURN})(?:[ \t]+\d+)?[ \t]*(?:[:\uff1a]|\*\*[:\uff1a]?(?=\s)|\n)"
    r"|<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|start_header_id|user|end|END_RESPONSE)\|>|<turn\|>|</s>"
    r"|\n\[INST\]"
)
_DRAWING = re.compile(r"\[asy\].*?\[/asy\]|<asy>.*?</asy>", re.S | re.I)
_PROGRAM = re.compile(
    r"```[ \t]*(?!(?:text|txt|plaintext|latex|tex|math|markdown|md|output|json|yaml)\b)\w[\w+#-]*[ \t]*\n.*?(?:```|\Z)",
    re.S,
)

# What ends a sentence: not the sign of a blank in LaTeX, nor that of a short word, nor a factorial's: 3! = 6.
_FACTORIAL = (
    r"(?:(?<=[\w)]!)[ \t]*=(?!=)|(?<=[\d)]!)[ \t]*(?:\*[ \t]*\d|(?:[+/\u00d7\u00f7]|\\times|\\cdot|\\div)[ \t]*[\d(]))"
)
STOP = rf"(?<!\\)(?<!\b[DMS][rst])(?<!\bMrs)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)[.!?](?!{_FACTORIAL})"

_BOX = re.compile(r"\\(?:boxed|fbox|beginboxed)\s*(?=\{)|\\boxed(?:\s+(?=[\w-])|(?=\d))")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.S | re.I)
_TAG_ENDS = re.compile(r"</answer>", re.I)
# What may stand between two boxes that are one answer.
_JOINED = re.compile(
    r"(?:[\s$,;&}]|\\[,;()\[\]]|\\q?quad|\\(?:text|mbox)\s?\{|\b(?:and|or)\b|\b[a-z](?:_\{?\d\}?)?\s*=)+", re.I
)
_HASHES = re.compile(r"####[ \t]*(?P<rest>[^\n]+)")

_IS = (
    r"(?:is|are|was|were|would be|will be|should be|must be|has to be|equals|comes to|=)"
    r"(?:[ \t]+(?:thus|therefore|then|hence|clearly|indeed|simply|just|now))*[ \t]*[:\uff1a]?"
)
_PURPOSE = r"(?:[ \t]+(?:to|for|of|in)[ \t][^.\n:=$\\]{1,80}?)?"
_LIKE = r"(?:[ \t]+(?:choice|option|letter|value|number))?"
MARKER = re.compile(
    rf"\b(?<!to )answers?{_LIKE}{_PURPOSE}(?:\"(?=\s?:))?[ \t*_]*"
    rf"(?:[:\uff1a][ \t*_]*{_IS}|{_IS}|[:\uff1a]|[ \t]-[ \t])[ \t*_]*"
    r"|(?:\u7b54\u6848|\u7b54\u3048|\u56de\u7b54|\u89e3\u7b54)[ \t]*(?:[:\uff1a]|\u662f|\u4e3a|\u306f)+[ \t]*"
    r"|\b(?:Antwort|Respuesta|R\u00e9ponse|Resposta|Risposta|\u041e\u0442\u0432\u0435\u0442)[ \t]*[:\uff1a][ \t*]*"
    r"|\b(?:wrong|incorrect|not right|a mistake|mistaken)[.!,;]+\s+(?:so |actually,? |instead,? )?"
    r"(?:it|that|this|the \w+(?: \w+)?) (?:should(?: rather| actually| instead)? be|must be|is actually|is really)"
    r"[ \t]+"
    r"|(?:^|(?<=\n))[ \t]*(?:#+[ \t]*|\*\*[ \t]*)?(?:final[ \t]+)?answer[ \t]*(?:\*\*)?[ \t]*(?=\n|\Z)",
    re.I,
)
_DENIED = re.compile(
    r"(?:not|neither|n['\u2019]t)\b[^.\n]*?(?:\bbut(?: rather)?|[,;] (?:it is|it's|rather|instead))\s+"
)
# A remark on the answer: "so the answer is correct".
_JUDGED = re.compile(
    r"(?:helpful|correct|right|incorrect|wrong|clear)\b(?=\s*(?:[.,;:!?)]|$)|\s+(?:because|since|as|and)\b)", re.I
)
_OPENED = re.compile(r"[\s*_]*[:\uff1a]?[\s*_]*(?:\}[ \t]*)?")
LOOP = 64
# After a box: what takes it back, or says that it was a step.
_RETRACTED = re.compile(
    r"\b(?:final answer|wait|actually|sorry|mistaken?|incorrect|correction|oops|apologi[sz]e|hold on|"
    r"not (?:right|correct)|wrong|re-?check|let me (?:re|correct|fix))",
    re.I,
)


class Answer(NamedTuple):
    """An answer, where it stands (characters [start, end) of the text), and how it was found.

    `text` are those characters, but of an option its letter alone in upper case, and of several boxes what they hold,
    separated by commas.
    """

    text: str
    start: int
    end: int
    found_by: str = ""


class Span(NamedTuple):
    """Characters [start, end), and how they were marked."""

    start: int
    end: int
    found_by: str


class Box(NamedTuple):
    """A closed box: all of it, and what it holds."""

    begin: int
    start: int
    end: int
    after: int


def open_thought(text: str) -> str:
    """The mark of a thought that a text begins and does not end (`<think>`), or ""."""
    begun = _THOUGHT_BEGINS.search(text, _after_thoughts(text))
    return begun.group() if begun else ""


def closes_thought(text: str) -> bool:
    """Whether a text ends a thought, begun in it or before it."""
    return _THOUGHT_ENDS.search(text) is not None


def _after_thoughts(text: str) -> int:
    """The character after the last thought of a text that ends."""
    return max((found.end() for found in _THOUGHT_ENDS.finditer(text)), default=0)


def without_thoughts(text: str) -> str:
    """What follows the last thought of a text; empty where one does not end."""
    return "" if open_thought(text) else text[_after_thoughts(text) :]


def said(text: str, *, programs: bool) -> str:
    """The text with all that is no part of the answer as blanks, as long as it was; empty where a thought does not end.

    Args:
        programs: whether fenced code that names its language is kept.
    """
    if open_thought(text):
        return ""
    start = _after_thoughts(text)
    end = _invented(text, start)
    kept = blanked(text, 0, start)[:end] + " " * (len(text) - end)
    for part in (_DRAWING,) if programs else (_DRAWING, _PROGRAM):
        for found in part.finditer(kept):
            kept = blanked(kept, *found.span())
    return kept


def _invented(text: str, start: int) -> int:
    for found in _INVENTED.finditer(text, start):
        # A response may begin by writing its own question down; `Q:` is a next one even there.
        if text[start : found.start()].strip(" \t\n#*") or found["word"] in (None, "Q"):
            return found.start()
    return len(text)


def blanked(text: str, start: int, end: int) -> str:
    """The text with [start, end) as blanks; its lines stay."""
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def boxes(text: str) -> tuple[list[Box], int | None]:
    """The closed boxes in order, the outermost alone, none that is empty; and where one begins that is not closed."""
    out: list[Box] = []
    at = 0
    while found := _BOX.search(text, at):
        start = found.end()
        if text[start] != "{":
            word = re.compile(r"-?[\w.,/]*\w").match(text, start)
            at = word.end() if word else start
            out.append(Box(found.start(), start, at, at))
            continue
        closed = _closing(text, start)
        if closed is None:
            return out, found.start()
        if re.sub(r"[\s.…]|\\[cl]?dots", "", text[start + 1 : closed]):
            out.append(Box(found.start(), start + 1, closed, closed + 1))
        at = closed + 1
    return out, None


def _closing(text: str, start: int) -> int | None:
    """Where the brace that opens at `start` is closed."""
    depth, at = 0, start
    while at < len(text):
        if text[at] == "\\":
            at += 2  # an escaped brace closes nothing
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at
        at += 1
    return None


def boxed(text: str) -> list[Box]:
    """The boxes of the last answer in boxes: the last one, and those before it that are joined to it by "and"."""
    found, _ = boxes(text)
    first = len(found) - 1
    while first > 0:
        between = text[found[first - 1].after : found[first].begin]
        if not (_JOINED.fullmatch(between) and re.search(r",|;|\band\b|\bor\b", between)):
            break
        first -= 1
    return found[max(first, 0) :]


def tagged(text: str) -> Span | None:
    """What stands between the last `<answer>` and `</answer>`."""
    closed = last_match(_TAG_ENDS, text)  # up to there each tag that opens has one that closes
    last = last_match(_TAG, text, 0, closed.end()) if closed else None
    return Span(*last.span(1), "answer tag") if last and last[1].strip() else None


def hashed(text: str) -> Iterator[Span]:
    """What follows `####`, the last first; a heading of a numbered step is none."""
    for found in reversed(list(_HASHES.finditer(text))):
        if not re.match(r"(?:\d+[.):][ \t]+|Step\b|Part\b|.*:\**[ \t]*$)", found["rest"].strip("* "), re.I):
            yield Span(*found.span("rest"), "####")


def marked(text: str) -> Iterator[Span]:
    """What follows "the answer is" and its like, the last first, up to the end of the paragraph.

    A denial is passed over, up to what is put in its place: "not 5 but 6". Of a response that is caught in a loop,
    with `LOOP` of them and more, each is read up to the next one, so that all together are read once.
    """
    every = list(MARKER.finditer(text))
    whole = len(text.rstrip())
    for number, found in reversed(list(enumerate(every))):
        # A line end before the answer, and marks that were opened before the marker.
        start = _OPENED.match(text, found.end()).end()  # type: ignore[union-attr]
        end = text.find("\n\n", start)
        end = whole if end < 0 else end
        if len(every) >= LOOP and number + 1 < len(every):
            end = min(end, every[number + 1].start())
        if text[start : start + 2] == "\\[" and (closed := text.find("\\]", start)) >= 0:
            end = max(end, closed + 2)
        if found.group().rstrip(" \t:").endswith('"') and text[start : start + 1] == '"':  # {"answer": "…"}
            closed = text.find('"', start + 1, end)
            end = end if closed < 0 else closed
        denied = _DENIED.match(text, start, end)
        if denied:
            start = denied.end()
        elif re.match(r"not\b|n['\u2019]t\b", text[start:end]) or _JUDGED.match(text, start, end):
            continue
        if start < end:
            yield Span(start, end, "answer is")


def replaces(text: str, former: Answer, later: Answer) -> bool:
    """Whether an answer that is stated later stands for one in a box: the box is taken back, or was a step before the
    final answer. A remark in words on what has figures does not: "The final answer is positive"."""
    if re.search(r"\d", former.text) and re.fullmatch(r"[a-z][a-z ,'-]*", later.text):
        return False
    return _RETRACTED.search(text, former.end, later.start) is not None


# What puts another answer in the place of one: "20, no wait, 18", "Actually, it's 18", "I forgot 2. So it is 18".
_NEXT = r"(?=[-\u2212$\\*\d])"
_PUT_RIGHT = re.compile(
    r"(?:[,;.!?\u2014\u2013-]|\.\.\.)\s*"
    r"(?:(?:oh|hmm|um|sorry|rather|correction|i mean|make that|actually)[,.:!]*\s+"
    r"|(?:no|wait)(?:[,.:!]+|(?=\s+no\b|\s+wait\b))\s+){1,3}"
    r"(?:(?:i mean|make that|(?:it|that|this)(?:['\u2019]s|\s(?:is|was|should be|must be|equals)))\s+(?:actually\s+)?)?"
    + _NEXT,
    re.I,
)
_AT_FAULT = re.compile(
    r"\bi (?:forgot|miscounted|misread|miscalculated|made an? (?:\w+ )?(?:mistake|error))\b"
    r"|\bthat(?:['\u2019]s| is| was) (?:wrong|not right|incorrect)\b",
    re.I,
)
_SO_IT_IS = re.compile(
    r"(?:^|[.!?\n])\s*(?:so|thus|hence|therefore)[, ][^.!?\n]{0,80}?(?:\b(?:is|are|has|have|makes?|gets?)\s|=\s*)"
    + _NEXT,
    re.I,
)


def corrected(text: str, after: int) -> Iterator[Span]:
    """What stands behind a stated answer that begins at `after` and is put in its place, the last first."""
    ends = len(text.rstrip())
    for found in reversed(list(_PUT_RIGHT.finditer(text, after))[-LOOP:]):
        yield Span(found.end(), ends, "answer is")
    fault = _AT_FAULT.search(text, after)
    last = last_match(_SO_IT_IS, text, fault.end()) if fault else None
    if last:
        yield Span(last.end(), ends, "answer is")


def trimmed(text: str, start: int, end: int, found_by: str, marks: str = "\"'*`") -> Answer | None:
    """The span without surrounding blanks, quotes, stars and a closing period; None if nothing is left."""
    closing = marks + "." if marks else ""
    while start < end and (text[start].isspace() or text[start] in marks):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in closing):
        end -= 1
    return Answer(text[start:end], start, end, found_by) if end > start else None


def last_match(pattern: re.Pattern[str], text: str, start: int = 0, end: int | None = None) -> re.Match[str] | None:
    """The last match in [start, end)."""
    found = list(pattern.finditer(text, start, len(text) if end is None else end))
    return found[-1] if found else None


def sentences(text: str) -> list[tuple[int, int]]:
    """Where sentences and lines begin and end, in order."""
    cuts = [found.end() for found in re.finditer(rf"{STOP}(?=[\s*\"')\]]|$)|\n", text)]
    return list(zip([0, *cuts], [*cuts, len(text)], strict=True))


_SENTENCE_ENDS = re.compile(rf"{STOP}(?=[\s*\"')\]]|$)|\n\s*\n")


def sentence_end(text: str, start: int, end: int) -> int:
    """Where the sentence or the line ends that begins at `start`; displayed mathematics may have several lines."""
    found = _SENTENCE_ENDS.search(text, start, end)
    stop = found.start() if found else end
    line = text.find("\n", start, end)
    one_line = line >= 0 and text[start:line].strip(" *$") and text[start : start + 2] not in ("\\[", "$$")
    return min(stop, line) if one_line else stop


# Of a list its lines' numbers, which are no answers, and those of steps.
_LABEL = re.compile(r"(?:^|(?<=\n))[ \t*_#>]*(?P<number>\d{1,2})[.)][*_]{0,3}[ \t]+(?=\S)")
_STEP = re.compile(r"\bStep[ \t]+\d{1,2}\b")
# A sentence on the answer before it, or all in brackets; and one that says that there is none.
_REMARK = re.compile(
    r"[\s(*_]*(?:(?:to |let(?:['\u2019]s| me| us) |we |as a )?(?:now )?(?:double[- ]?|re-?)?(?:check|verif\w+)"
    r"|note|notice|checking|testing|alternatively"
    r"|let me know|(?:i )?hope|(?:we|you|i) (?:can|may) (?:check|verify)|(?:if|should) you (?:have|need))\b"
    r"(?!.*\b(?:so|thus|hence|therefore)\b)"
    r"|\s*\((?-i:[A-Z])[a-z]*\s(?s:.*)\)[.\s]*$",
    re.I,
)
_CANNOT = r"(?:can\s?not|can['\u2019]t|could not|couldn['\u2019]t)"
_REFUSED = re.compile(
    rf"\b(?:(?:{_CANNOT}|(?:un|not )able to|no way (?:to|of)|(?:im|not )possible to)\s(?:\w+\s){{0,2}}?"
    r"(?:answer|determine|solve|calculate|compute|know|tell|help)\b"
    rf"|{_CANNOT} be (?:\w+ly )?(?:answered|determined|solved|calculated|computed)\b"
    rf"|(?:answer|total|value|number|amount|result|solution)\b[^.!?\n]{{0,60}}?\b{_CANNOT} be found\b)"
    r"(?!.*\b(?:but|so|yet|however|therefore|thus|hence|instead)\b)"
    r"|(?:(?:\bnot|n['\u2019]t) (?:(?:have|give|provide|contain|given) (?:us )?)?(?:enough|sufficient)|\binsufficient)"
    r" (?:information|data)\b|\bI (?:do not|don['\u2019]t) know\b",
    re.I,
)
# What is only granted before what is said: "although we cannot tell the ages, together they are 20".
_GRANTED = re.compile(r"[\s*_]*(?:(?:al|even )?though|while|even if|since|as|because|if)\b[^,]*", re.I)


def concluding(view: str, cuts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sentences from the last one on; those that only remark on the answer behind the others."""
    remarks = [cut for cut in cuts if _REMARK.match(view, *cut)]
    return [*reversed([cut for cut in cuts if cut not in remarks]), *reversed(remarks)]


def refuses(view: str, start: int, end: int) -> bool:
    """Whether a sentence says that there is no answer, whatever numbers it names; not if it only grants that."""
    found = _REFUSED.search(view, start, end)
    if found is None:
        return False
    return not (_GRANTED.fullmatch(view, start, found.start()) and "," in view[found.end() : end])


def unlabelled(view: str) -> str:
    """The response with the numbers of its steps, and of a list's lines that count up, as blanks."""
    labels = list(_LABEL.finditer(view))
    numbers = [int(found["number"]) for found in labels]
    for n, found in enumerate(labels):
        if numbers[n] + 1 in numbers[n + 1 : n + 2] or (n and numbers[n - 1] + 1 == numbers[n]):
            view = blanked(view, *found.span())
    return _STEP.sub(lambda found: " " * len(found.group()), view)
