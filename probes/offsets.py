"""Where each token lies in the decoded text, for any tokenizer; nothing is tokenised again, so that no index shifts.

A character may be cut by a token boundary (byte-level BPE, byte fallback). It is then whole with its last token, and
begun with its first. Tokens are decoded one by one where their pieces join to the text. Elsewhere (cut characters,
SentencePiece, which drops a leading blank) they are decoded in windows whose beginning is known, in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

WINDOW = 32
CUT = "\ufffd"  # what decodes a character that is not whole yet
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")  # a token of byte fallback: one that fits no character spoils its whole run


class Growing:
    """The text of tokens that come one by one, in linear time but for runs of byte tokens.

    Attributes:
        ids: the tokens so far.
        text: their characters that are whole.
        cut: whether they end within a character.
        undecided: whether they end in a run of byte tokens: its next one may change all its characters.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.text, self.cut, self.undecided = "", False, False
        # A window begins with token `begin`; up to token `known`, a whole character's end, it is known: its first
        # `before` characters are the last ones of `head`.
        self.begin, self.known, self.head, self.before = 0, 0, "", 0

    def add(self, token: int) -> None:
        self.ids.append(token)
        known = known_ids(self.tokenizer, [token])
        name = self.tokenizer.convert_ids_to_tokens(known[0]) if known else None
        if name is not None:  # an id beyond the tokenizer's ends no run
            self.undecided = BYTE.fullmatch(str(name)) is not None
        piece = decoded(self.tokenizer, self.ids[self.begin :])
        kept = piece.rstrip(CUT)
        self.text, self.cut = self.head + kept[self.before :], len(kept) < len(piece)
        if len(self.ids) - self.known >= WINDOW and not (self.cut or self.undecided):
            self.begin, self.known, self.head = self.known, len(self.ids), self.text
            self.before = len(decoded(self.tokenizer, self.ids[self.begin :]))


class Offsets(NamedTuple):
    """For each token how many characters of the text are whole with it, and how many are at least begun."""

    whole: list[int]
    begun: list[int]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of ids, special tokens included, nothing cleaned up; ids beyond the tokenizer's are nothing."""
    return str(tokenizer.decode(known_ids(tokenizer, ids), clean_up_tokenization_spaces=False))


def known_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """The ids that have a token. A model may have more output rows than its tokenizer has tokens, and emit any."""
    if tokenizer.is_fast:
        return list(ids)  # passes over the others by itself; tokenizers written in Python raise
    return [i for i in ids if i < tokenizer.vocab_size or i in tokenizer.added_tokens_decoder]


def offsets(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> Offsets:
    """The place of each token in `text`, the decoding of all ids."""
    if not ids:
        return Offsets([], [])
    pieces = tokenizer.batch_decode([known_ids(tokenizer, [i]) for i in ids], clean_up_tokenization_spaces=False)
    if "".join(pieces) == text:
        ends = list(accumulate(map(len, pieces)))
        return Offsets(ends, ends)
    out, growing = Offsets([], []), Growing(tokenizer)
    for token in ids:
        growing.add(token)
        out.whole.append(max(len(growing.text), out.whole[-1] if out.whole else 0))
        out.begun.append(out.whole[-1] + growing.cut)
    return out


def token_ends(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """For each token, the character at which it ends in `text` (the decoding of all ids)."""
    return offsets(tokenizer, ids, text).whole
