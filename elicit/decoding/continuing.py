"""Token ids of a text that goes on from other tokens.

Tokenizers as Llama 2's and Mistral's put a blank before a text, which within one is a blank too many: " 17" would be
two and 17. Where a tokenizer does so, the text is read behind a line end, whose own ids are left out.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from probes.encoding import encoded
from probes.offsets import decoded

BEFORE = "\n"


def continuing_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text that stands behind others, without a blank of the tokenizer's own before it."""
    alone, before = (encoded(tokenizer, one, special=False) for one in (text, BEFORE))
    wanted = decoded(tokenizer, before) + text
    if decoded(tokenizer, [*before, *alone]) == wanted:
        return alone
    whole = encoded(tokenizer, BEFORE + text, special=False)
    begins = whole[: len(before)] == before and decoded(tokenizer, whole) == wanted
    return whole[len(before) :] if begins else alone
