"""Token ids of a text that something goes on from: one beginning token at most, and no end token."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase


def encoded(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> list[int]:
    """The ids of a text.

    A tokenizer may put special tokens before a text and after it. Those before it are put there once, also where the
    text begins with them itself; those after it are left out, since nothing would follow an end token.

    Args:
        tokenizer: whose ids.
        text: with special tokens written out, or without.
        special: whether the tokenizer's own go before it.
    """
    ids = _ids(tokenizer, text, special=False)
    if special:
        whole = _ids(tokenizer, text, special=True)
        starts = (n for n in range(len(whole) - len(ids) + 1) if whole[n : n + len(ids)] == ids)
        head = whole[: next(starts, 0)] if ids else []
        if ids[: len(head)] != head:
            ids = head + ids
    begin = tokenizer.bos_token_id
    while begin is not None and ids[:2] == [begin, begin]:
        ids = ids[1:]
    return ids


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    return [int(i) for i in tokenizer(text, add_special_tokens=special)["input_ids"]]  # type: ignore[union-attr]
