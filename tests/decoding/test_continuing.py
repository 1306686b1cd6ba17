"""Texts that go on from other tokens, by tokenizers that put a blank before a text and by those that do not."""

from __future__ import annotations

import pytest

from elicit.decoding.continuing import continuing_ids
from elicit.methods.taught import example
from elicit.models.prompts import Prompt
from probes.encoding import encoded
from probes.offsets import decoded
from tests.support.tokenizers import FAMILIES, prepending

TOKENIZERS = {**FAMILIES, "prepending": prepending()}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize(
    "text", [" 17", "17", "\nSo the answer is", "Wait, no.", "  two", " the sum\n\nis 17", " 你好", ""]
)
def test_a_text_goes_on_as_it_is_written(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    before = encoded(tokenizer, "Q: Is it?\nA:")
    ids = continuing_ids(tokenizer, text)
    assert decoded(tokenizer, [*before, *ids]) == decoded(tokenizer, before) + text
    if name == "byte-level":
        assert ids == encoded(tokenizer, text, special=False)


def test_what_a_teacher_said_is_learned_after_one_blank() -> None:
    tokenizer = TOKENIZERS["prepending"]
    asked, said = example(tokenizer, Prompt(), "Is it?", "The sum is 17.", ended=False)
    assert decoded(tokenizer, [*asked, *said]) == "Q: Is it?\nA: The sum is 17."
