"""The hook of `critique-ft`: a critique source is a function `(item, candidate) -> Critique`.

There are `symbolic` (no model), `model` and `model:NAME` (a causal LM), a file of critiques, and any Python function of
this shape. A source that judges many candidates at once has `many` as well. A critic that comes to no conclusion
returns None, and its row is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from elicit.tasks.base import Item

VERDICT = "Conclusion:"
RIGHT, WRONG = f"{VERDICT} right", f"{VERDICT} wrong"
# The authors write "Conclusion: right [END]" in their data and "Critique Conclusion: Incorrect" in later prompts.
_CONCLUSION = re.compile(r"conclusion\W+(right|wrong|correct|incorrect)\b", re.I)


class Critique(NamedTuple):
    """What a critic says of a candidate, and whether it grades it as correct."""

    text: str
    right: bool


@runtime_checkable
class Source(Protocol):
    """Where critiques come from."""

    def __call__(self, item: Item, candidate: str) -> Critique | None: ...


@runtime_checkable
class Batched(Source, Protocol):
    """A source that is faster on many candidates of one item, and whose critiques may be kept under `identity`."""

    @property
    def identity(self) -> str:
        """What decides its critiques."""
        ...

    def many(self, item: Item, candidates: Sequence[str]) -> list[Critique | None]: ...


class OneByOne:
    """`many` of a source that is no faster on many."""

    def many(self: Source, item: Item, candidates: Sequence[str]) -> list[Critique | None]:
        return [self(item, candidate) for candidate in candidates]


def conclusion(text: str) -> bool | None:
    """The last conclusion of a critique; None where it comes to none."""
    found = _CONCLUSION.findall(text)
    return found[-1].lower() in ("right", "correct") if found else None


def read(text: str) -> Critique | None:
    """A critique from its text, if it concludes."""
    right = conclusion(text)
    return None if right is None else Critique(text, right)


def criticise(source: Source, item: Item, candidates: Sequence[str]) -> list[Critique | None]:
    """A source on all candidates of an item."""
    if isinstance(source, Batched):
        return source.many(item, candidates)
    return [source(item, candidate) for candidate in candidates]


def flipped(critique: Critique | None) -> Critique | None:
    """The untruthful twin of a critique: the same words, the other conclusion."""
    if critique is None:
        return None
    found = list(_CONCLUSION.finditer(critique.text))
    said = WRONG if critique.right else RIGHT
    if not found:
        return Critique(f"{critique.text}\n{said}", not critique.right)
    start, end = found[-1].span(1)
    return Critique(critique.text[:start] + said.split()[1] + critique.text[end:], not critique.right)
