from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elicit.models import Model
from elicit.tasks.answers import KINDS, Answer, Kind, find_answer, number_value, token_span
from elicit.tasks.statements import LOOP
from probes.offsets import token_ends
from tests.support.loops import read_once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 7", "7"),
        ("3 + 4 = 7. So she has 7,200.50 dollars.", "7,200.50"),
        ("It is 10-2", "2"),
        ("It is -2.", "-2"),
        ("x = 5−−3", "−3"),
        ("about 1/3 of it", "1/3"),
        ("in 1,2,3 steps", "3"),
        ("$18.", "18"),
        ("v2x", None),
        ("none at all", None),
        ("50% of 1,234,567", "1,234,567"),
    ],
)
def test_last_number(text: str, expected: str | None) -> None:
    found = find_answer(text, "number")
    assert (found.text if found else None) == expected
    if found:
        assert text[found.start : found.end] == expected


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("So (A) is wrong and the answer is (C).", "option", "C"),
        ("The answer is b", "option", "B"),
        ("A dog is no option", "option", None),
        (r"first \boxed{1}, no: \boxed{\frac{1}{2}}.", "math", r"\frac{1}{2}"),
        ("The answer is $x^2$.", "math", "x^2"),
        ("so $2+4$ and then $6$ it is", "math", "6"),
        (r"unfinished \boxed{\frac{1", "math", None),
        ("Therefore the answer is blue moon.", "text", "blue moon"),
        ("one\ntwo words\n", "text", "two words"),
        ("  \n", "text", None),
    ],
)
def test_other_kinds(text: str, kind: str, expected: str | None) -> None:
    found = find_answer(text, kind)  # type: ignore[arg-type]
    assert (found.text if found else None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is C or D.", None),
        ("The answer is C, or D.", None),
        ("The answer is C and D.", None),
        ("The answer is option C or option D.", None),
        ("The answer is **C** or **D**.", None),
        (r"\boxed{C \text{ or } D}", None),
        ("I'd go with C or maybe D", None),
        ("A is correct and B is correct.", None),
        ("The answer is B, I think.", "B"),
        ("The answer is C, A is wrong", "C"),
        ("The answer is C and D is wrong.", "C"),
        ("(A) is incorrect. (B) is correct.", "B"),
        ("(A) is wrong, (B) is right", "B"),
        ("Looking at the options, (A) is false, (C) is the correct answer, and (D) is false.", "C"),
        ("(A) is too small. (B) fits.", "B"),
        ("(A) is too small.\n(B) fits.\n(C) is too large.", "B"),
        ("Since (A) and (D) fail, we are left with (C); (B) isn't it.", "C"),
        ("(A), (B) and (D) are wrong, so (C)", "C"),
        ("Answer: (A) is incorrect. (B) is correct.", "B"),
        ("Option B is wrong.", None),
        ("It cannot be A.", None),
        ("We rule out (A) and (B). That leaves (C).", "C"),
    ],
)
def test_of_options_one_is_chosen_and_none_that_is_called_wrong(text: str, expected: str | None) -> None:
    found = find_answer(text, "option")
    assert (found.text if found else None) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "piece",
    [
        "A, ",
        "(A) is wrong. ",
        "1 million ",
        "2^3 = ",
        "Answer: ",
        "答案：",
        "The answer is ",
        "<answer>",
        "( ",
        "(   ",
        "\\(",
        "\\[ ",
        "\\boxed{",
    ],
)
def test_a_response_that_is_caught_in_a_loop_is_read_once(piece: str, kind: Kind) -> None:
    """It took minutes: each beginning was read up to the end."""
    read_once(piece, kind)


def test_in_a_loop_the_last_statement_counts_and_each_ends_at_the_next() -> None:
    loop = "The answer is unclear. " * LOOP
    assert find_answer(f"The answer is 7. {loop}", "number") == Answer("7", 14, 15, "answer is")
    assert find_answer(f"{loop}The answer is 7. The answer is so.", "number").text == "7"  # type: ignore[union-attr]
    assert find_answer("Answer: " * LOOP + "Answer: 5", "number").text == "5"  # type: ignore[union-attr]


def test_equal_numbers_and_unequal_ones() -> None:
    assert number_value("1,234") == number_value("1234.00") == 1234
    assert number_value("0.33") != number_value("1/3") == Fraction(1, 3)
    assert number_value("$5") == 5 and number_value("50%") == 50
    assert number_value("1/0") is None and number_value("five") is None and number_value("") is None


@given(st.text(min_size=1, max_size=40), st.data())
def test_spans_lie_on_the_tokens_that_hold_the_answer(text: str, data: st.DataObject) -> None:
    """For any cut of a text into tokens, the span is the fewest tokens that cover the answer."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text)), max_size=6)) | {len(text)})
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    first, last = token_span(cuts, Answer(text[start:end], start, end))
    begins = [0, *cuts[:-1]]
    assert begins[first] <= start < cuts[first]
    assert begins[last - 1] < end <= cuts[last - 1]


@pytest.mark.real
def test_token_ends_follow_the_text_through_split_characters(smollm: Model) -> None:
    for text in ("plain 12,345 words", "naïve ☃ 数学 7", "  two  spaces\n\n9"):
        ids = smollm.tokenizer(text)["input_ids"]
        ends = token_ends(smollm.tokenizer, ids, text)
        assert ends[-1] == len(text) and ends == sorted(ends)
        found = find_answer(text, "number")
        if found:
            first, last = token_span(ends, found)
            assert found.text in smollm.tokenizer.decode(ids[first:last])
