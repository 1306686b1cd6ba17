"""Which two tokens of a model say how it is going to answer: `<short>` or `<think>`.

Each is one token, so that its probability is that of the mode. In this order: what was given; the model's own
`<short>` and `<think>`, where its tokenizer has them; tokens that it has and that nothing writes, such as the marks of
repositories that code models were shown. Many of these were never trained and have one and the same row in the
embedding, which neither the model nor a training of adapters could tell apart: those whose rows are most unlike are
taken.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

from torch import nn

from elicit.models.model import Model
from probes.encoding import encoded
from probes.errors import UserError

MARKS = {"short": "<short>", "think": "<think>"}
ALIKE = 1e-4  # below 1 is the cosine of rows that are told apart
OWN, GIVEN, SPARE = "own", "given", "spare"


class ControlTokens(NamedTuple):
    """The ids of both tokens, how each is written, and where each came from."""

    short: int
    think: int
    written: tuple[str, str]
    source: tuple[str, str]

    @property
    def ids(self) -> tuple[int, int]:
        return self.short, self.think

    def to_dict(self) -> dict[str, Any]:
        return {"short": self.short, "think": self.think, "written": list(self.written), "source": list(self.source)}

    def told(self) -> str:
        """A sentence on both."""
        said = {OWN: "the tokenizer has it", GIVEN: "given", SPARE: "a spare token: the tokenizer has no such mark"}
        pairs = zip(MARKS.values(), self.written, self.ids, self.source, strict=True)
        return "; ".join(f"{mark} is {word!r} (id {number}, {said[how]})" for mark, word, number, how in pairs)


def control_tokens(model: Model, short: str = "", think: str = "") -> ControlTokens:
    """Both tokens of a model.

    Args:
        model: whose tokenizer is asked.
        short, think: what they are to be, each one token; "": as described above.

    Raises:
        UserError: one that the tokenizer splits, that ends answers or is never chosen; two that are one, or that have
            one row; no two spare tokens.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for mode, given in (("short", short), ("think", think)):
        own = _ids(model, MARKS[mode])
        if given:
            found[mode] = [(_one(model, mode, given), GIVEN)]
        elif len(own) == 1 and own[0] not in model.eos_ids:
            found[mode] = [(own[0], OWN)]
        else:
            found[mode] = [(number, SPARE) for number in _spare(model)]
    pairs = [(one, other) for one, other in product(found["short"], found["think"]) if one[0] != other[0]]
    if not pairs:
        if short and think:
            raise UserError(f"short = {short!r} and think = {think!r} were given, which are one token; give two")
        raise UserError(
            f"the tokenizer of {model.name!r} has no tokens <short> and <think> and no two spare ones; give short=… "
            "and think=… two words of one token each"
        )
    apart, (one, other) = min((_likeness(model, a[0], b[0]), (a, b)) for a, b in pairs)
    written = tuple(str(model.tokenizer.convert_ids_to_tokens(number)) for number, _ in (one, other))
    if apart >= 1 - ALIKE:
        raise UserError(
            f"the control tokens {written[0]!r} and {written[1]!r} have the same row in {model.name!r} and cannot be "
            "told apart; give short=… and think=… two words of one token each"
        )
    return ControlTokens(one[0], other[0], (written[0], written[1]), (one[1], other[1]))


def _ids(model: Model, text: str) -> list[int]:
    return list(encoded(model.tokenizer, text, special=False))


def _one(model: Model, mode: str, given: str) -> int:
    ids = _ids(model, given)
    if len(ids) != 1:
        raise UserError(
            f"{mode} = {given!r} was given, which the tokenizer of {model.name!r} splits into {len(ids)} tokens; give "
            "one that is one token"
        )
    if ids[0] in model.eos_ids or ids[0] in model.unlisted:
        raise UserError(f"{mode} = {given!r} was given, which ends answers or is never chosen; give another token")
    return ids[0]


def _spare(model: Model) -> list[int]:
    """Tokens that were added to the tokenizer, that have a meaning for nobody here and stand in no chat template."""
    tokenizer = model.tokenizer
    template = str(tokenizer.chat_template or "")
    taken = {*tokenizer.all_special_ids, *model.eos_ids, *model.unlisted}
    return sorted(
        number for word, number in tokenizer.get_added_vocab().items()
        if number not in taken and word not in template and number < model.vocab_size
    )  # fmt: skip


def _likeness(model: Model, one: int, other: int) -> float:
    """The larger cosine of two tokens' rows, where they are read and where they are written."""
    tables: list[Any] = [model.lm.get_input_embeddings(), model.lm.get_output_embeddings()]
    pairs = [table.weight[[one, other]].float() for table in tables]
    return max(float(nn.functional.cosine_similarity(pair[0], pair[1], dim=0)) for pair in pairs)
