"""Sentences on token ids: where they end, and that no id is lost, whatever the tokenizer does to characters."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from probes.errors import UserError
from probes.offsets import decoded, offsets, token_ends
from steering.categories.segments import segment, sentence_starts
from tests.support.tokenizers import FAMILIES


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]


CASES = [
    ["We add 3.14 and 1,234.5. ", "Then .5 more."],
    ["This is the 1st of them. ", "It is 5. ", "So it is odd."],
    ["1. Add the numbers.\n", "2. Take 3 off. ", "3. Stop."],
    ["Here are two:\n", "- one is 5\n", "- the other is 6.\n\n", "So they differ."],
    ["* a star\n", "* another\n", "(a) A letter. ", "More of it."],
    ["Step 1. Add them.\n", "Step 2. Stop."],
    ["1) First this\n", "2) then that"],
    ["We take a prime, e.g. 7, i.e. 7 itself. ", "Dr. Who and Mrs. Smith agree (cf. Fig. 3). ", "Done."],
    ["See No. 5 of it. ", "No. ", "Five is odd."],
    ["We stop at 5 p.m. ", "Then we eat, sleep, etc. ", "It is late."],
    ["The U.S. Army and J. K. Rowling met. ", "We go to Q. ", "B goes nowhere."],
    ["Hence $x = 5. Y$ is free. ", "Now $y$ is not."],
    ["So \\(a. B\\) and \\[ c? D! \\] hold. ", "Then we stop."],
    ["We have $x = 3.$ ", "Then $$y = 4.$$\n", "And so on."],
    ["\\begin{align} x. Y \\\\ z? W \\end{align}\n", "So it is."],
    ["It costs $5. ", "He has $6. ", "So he pays."],
    ["So x = 5. ", "y = 3. ", "Then we add."],
    ["Look:\n", "```python\nx = 1. # One. Two.\n\nprint(x)\n```\n", "It prints 1."],
    ["Call `f. G` now. ", "It works."],
    ["Really?! ", "Yes! ", "Well… ", "Maybe... ", "No."],
    ["So… it is… good, and so... on. ", "Well."],
    ["Is it 5? ", "yes, it is. ", 'He said "Stop." ', "Then (so it seems.) ", "We went."],
    ["The first paragraph\n\n", "the second one\n \n", "the third"],
    ["A line that is broken\nand goes on = 5\n= 5 here\n", "Another one"],
    ["**A title**\n", "**Step 1:** we add. ", "## Next\n", "We stop."],
    ["Wait. ", "数学是好的。", "你好吗？", "5 是。"],
    ["5! = 120 and n! is large! ", "So it is."],
    ["w/o an end"],
    ["   A blank before. ", "And after.  "],
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sentences", CASES, ids=lambda c: c[0][:24].strip())
def test_sentences_end_where_they_do(sentences: list[str], family: str) -> None:
    text = "".join(sentences)
    starts = sentence_starts(text)
    assert [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)] == sentences
    tokenizer = FAMILIES[family]
    ids = ids_of(tokenizer, text)
    text = decoded(tokenizer, ids)
    spans = segment(tokenizer, ids)
    assert [decoded(tokenizer, ids[a:b]).strip() for a, b in spans] == [s.strip() for s in sentences]


pieces = st.sampled_from(
    [
        "So it is",
        "12 + 5 = 17",
        ". ",
        "? ",
        "\n\n",
        "\n",
        " ",
        "Then ",
        "x",
        "数",
        "☃",
        "naïve",
        "$",
        "```\n",
        "e.g. ",
        "…",
    ]
)


@pytest.mark.parametrize("family", FAMILIES)
@given(st.lists(pieces, min_size=1, max_size=60).map("".join).filter(str.strip), st.data())
@settings(max_examples=150, deadline=None)
def test_spans_cover_all_ids_in_order(family: str, text: str, data: st.DataObject) -> None:
    tokenizer = FAMILIES[family]
    ids = ids_of(tokenizer, text)
    first = data.draw(st.integers(0, len(ids) - 1))
    spans = segment(tokenizer, ids, first)
    assert spans[0][0] == first and spans[-1][1] == len(ids)
    assert all(a < b for a, b in spans) and all(x[1] == y[0] for x, y in pairwise(spans))
    if first == 0 and family == "byte-level":
        # No character is cut: each sentence decodes alone, and together they are the text.
        said = [decoded(tokenizer, ids[a:b]) for a, b in spans]
        assert "".join(said) == text and not any("\ufffd" in one for one in said)


@pytest.mark.parametrize("family", FAMILIES)
@given(st.lists(pieces, min_size=1, max_size=80).map("".join).filter(str.strip))
@settings(max_examples=100, deadline=None)
def test_offsets_are_those_of_every_prefix(family: str, text: str) -> None:
    """Against the slow way, far beyond one window."""
    tokenizer = FAMILIES[family]
    ids = ids_of(tokenizer, text)
    text = decoded(tokenizer, ids)
    found = offsets(tokenizer, ids, text)
    slow = [decoded(tokenizer, ids[: i + 1]) for i in range(len(ids))]
    longest = 0
    for whole, begun, prefix in zip(found.whole, found.begun, slow, strict=True):
        longest = max(longest, len(prefix.rstrip("\ufffd")))
        assert whole == longest and begun == whole + prefix.endswith("\ufffd")
    assert found.whole[-1] == len(text) and token_ends(tokenizer, ids, text) == found.whole


def test_a_sentence_that_begins_with_a_cut_character_has_all_of_it() -> None:
    tokenizer = FAMILIES["byte-level"]
    ids = ids_of(tokenizer, "So. ☃ is here.")
    cut = [i for i in ids if "\ufffd" in decoded(tokenizer, [i])]
    assert len(cut) > 1
    (_, second) = segment(tokenizer, ids)
    assert decoded(tokenizer, ids[slice(*second)]).strip() == "☃ is here."


def test_after_a_prompt_and_wrong_input() -> None:
    tokenizer = FAMILIES["byte-level"]
    head, tail = ids_of(tokenizer, "Q: What is it? Tell.\nA:"), ids_of(tokenizer, " It is 5. So stop.")
    spans = segment(tokenizer, head + tail, len(head))
    assert [decoded(tokenizer, (head + tail)[a:b]) for a, b in spans] == [" It is 5. ", "So stop."]
    for first in (len(head), -1):
        with pytest.raises(UserError, match="token ids were given"):
            segment(tokenizer, head, first)
