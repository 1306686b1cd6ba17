"""What is read as the answer where more is said around it: notes, factorials, sums of money, parts, measures, units."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from elicit.tasks import grading
from elicit.tasks.answers import KINDS, Kind, find_answer, number_value
from elicit.tasks.base import Item
from elicit.tasks.grading import grader_for
from elicit.tasks.numerals import worded_value
from elicit.tasks.statements import THOUGHTS, closes_thought, open_thought
from elicit.tasks.units import measure
from tests.support.loops import read_once


def right(kind: Kind, gold: str, response: str) -> bool:
    found = find_answer(response, kind)
    return grader_for(kind).grade(Item("i", "q", gold, "test"), found.text if found else None).correct


def wrong_of(kind: Kind, pairs: list[tuple[str, str]], *, expected: bool = True) -> list[tuple[str, str]]:
    """The pairs of a gold answer and a response that are judged otherwise."""
    return [(gold, response) for gold, response in pairs if right(kind, gold, response) is not expected]


@pytest.mark.parametrize("kind", ["number", "math"])
@pytest.mark.parametrize(
    ("gold", "response"),
    [
        ("18", "The answer is 18 (9 × 2)."),
        ("18", "#### 18 (9*2)"),
        ("18", "The answer is **18** (9 × 2)."),
        ("18", "**The answer is 18** (9 × 2)."),
        ("18", "The answer is *18* (9 × 2)."),
        ("18", "The answer is **18 (9 × 2)**."),
        ("18", "The answer is 18 (9 eggs at $2 each)."),
        ("18", "The answer is 18 [9 × 2]."),
        ("18", "The answer is $18 (9 x $2)."),
        ("18", "The answer is 18 (9 × (1 + 1))."),
        ("18", "The answer is 18 dollars (9x2)."),
        ("18", "She makes 18 dollars (9 × 2)."),
        ("18", "So she makes 18 (9 × 2)."),
        ("18", "The answer is 18 ($9 \\times 2$)."),
        ("12", "The answer is 12 (since $x = 3$)."),
        ("0.5", "The answer is 0.5 (1/2)."),
        ("1234", "The answer is 1,234 (1,000 + 234)."),
        ("-4", "The answer is −4 (2 − 6)."),
    ],
)
def test_a_note_in_brackets_is_no_part_of_the_answer(kind: Kind, gold: str, response: str) -> None:
    assert right(kind, gold, response)
    assert not right(kind, "324", response)


def test_brackets_that_are_factors_or_points_stay() -> None:
    numbers = [
        ("2", "The answer is 2(7)."), ("2", "The answer is 2 (7) = 14."), ("2", "The answer is 2 (7) + 3."),
        ("3", "The answer is $3 (7)$."), ("3", "\\boxed{3 (7)}"), ("3", "The answer is 3 (1/2)."),
        ("3", "The answer is (3, 4)."), ("3", "The answer is [3, 4)."), ("18", "The answer is 18 (9 × 2) or 20."),
        ("5", "The answer is **5** or **6**."),
    ]  # fmt: skip
    assert wrong_of("number", numbers, expected=False) == []
    maths = [
        ("3(x+1)", "The answer is 3 (x+1)."), ("3(2x+1)", "The answer is 3 (2x+1)."),
        ("3(x+1)", "\\boxed{3 (x+1)}"), ("3", "The answer is f (x) = 3."), ("(3,4)", "The answer is x = (3, 4)."),
        ("(x+1)(x-1)", "The answer is (x + 1) (x - 1)."), ("12", "The answer is 2 (1 + 2) + 6."),
        ("y=2(x-1)+3", "The answer is y = 2 (x - 1) + 3."), ("(1,2),(3,4)", "The answer is (1, 2) and (3, 4)."),
        ("(-\\infty,3)\\cup(5,\\infty)", "The answer is (-∞, 3) ∪ (5, ∞)."),
    ]  # fmt: skip
    assert wrong_of("math", maths) == []
    assert not right("math", "2", "The answer is 2 points (3, 4).")


def test_bold_type_ends_behind_a_number() -> None:
    assert right("number", "18", "The answer is **18** apples.")
    assert right("number", "18", "The answer is **$18** per day.")
    assert not right("number", "3", "The answer is **3** × 4.")


@pytest.mark.parametrize("kind", ["number", "math"])
def test_the_sign_of_a_factorial_ends_no_sentence(kind: Kind) -> None:
    pairs = [
        ("6", "The answer is 3! = 6."), ("6", "3! = 6"), ("6", "There are 3! = 6 ways."),
        ("24", "The answer is 4! = 24 ways."), ("48", "The answer is 4! × 2 = 48."),
        ("20", "The answer is 5! / 3! = 20."), ("42", "The answer is 42! Great work with 7 apples."),
        ("42", "The answer is **42**!"),
    ]  # fmt: skip
    assert wrong_of(kind, pairs) == []
    assert not right(kind, "3", "The answer is 3! = 6.")


def test_letters_multiply_sums_of_money() -> None:
    pairs = [
        ("1200000", "The answer is $1.2M."), ("3000", "The answer is $3k."), ("3000", "#### $3K"),
        ("2000000000", "The answer is $2 bn."), ("2000000", "The answer is £2m."), ("2000000", "The answer is 2M€."),
        ("-3000", "The answer is -$3k."), ("3000", "\\boxed{\\$3k}"), ("3000", "She pays $3k."),
        ("5000", "The answer is $3k + $2k = $5k."), ("3500", "The answer is **$3.5k** a year."),
    ]  # fmt: skip
    assert wrong_of("number", pairs) == []
    assert wrong_of("number", [("1.2", "The answer is $1.2M."), ("3", "She pays $3k.")], expected=False) == []
    assert wrong_of("math", [("1200000", "The answer is $1.2M."), ("3000", "\\boxed{\\$3k}")]) == []
    assert number_value("$1,200.5k") == 1_200_500 and number_value("$1.2345k") == Fraction("1234.5")


def test_letters_of_mathematics_and_units_do_not() -> None:
    assert wrong_of("math", [("3k", "The answer is $3k$."), ("3k+2", "It is $3k + 2$."), ("3k", "\\boxed{3k}")]) == []
    pairs = [("3", "The answer is 3m."), ("5", "The answer is $5 by then."), ("12", "I need $12 M&Ms")]
    assert wrong_of("number", pairs) == []
    assert number_value("3k") is None and number_value("1.2M") is None and number_value("$3k$") is None


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("one third", "1/3"), ("two thirds", "2/3"), ("two-thirds", "2/3"), ("one half", "1/2"), ("half", "1/2"),
        ("three quarters", "3/4"), ("three-fourths", "3/4"), ("five sixths", "5/6"), ("one twentieth", "1/20"),
        ("one twenty-fifth", "1/25"), ("three hundredths", "3/100"), ("one and a half", "3/2"), ("a third", "1/3"),
        ("two and three quarters", "11/4"), ("two and a half million", "2500000"), ("half a million", "500000"),
        ("a hundred", "100"), ("a hundred and five", "105"), ("a thousand", "1000"),
    ],
)  # fmt: skip
def test_parts_and_scales_in_words_are_numbers(words: str, value: str) -> None:
    assert worded_value(words) == Fraction(value)
    for kind in ("number", "math"):
        assert right(kind, value, f"The answer is {words}.") and right(kind, value, f"**Answer:** {words}")  # type: ignore[arg-type]
        assert not right(kind, "1", f"The answer is {words}.")  # type: ignore[arg-type]
    assert right("number", value, f"{words.capitalize()}.")


def test_ordinals_are_no_numbers_and_what_has_parts_in_its_name_is_counted() -> None:
    for words in ("twenty-third", "twenty third", "twenty-first", "a million and a half", "five and two", "a", "and"):
        assert worded_value(words) is None
        assert not right("number", "20", f"The answer is {words}.")
    pairs = [
        ("1", "The answer is one second."), ("20", "The answer is twenty seconds."),
        ("2", "The answer is two fifth graders."), ("5", "The answer is five a day."),
        ("3", "The answer is 3 quarters."), ("2/3", "The answer is 2 thirds."),
        ("36", "The answer is a third of them, so he has 108 / 3 = 36."),
    ]  # fmt: skip
    assert wrong_of("number", pairs) == []
    assert not right("number", "2", "The answer is 2 thirds.")


@pytest.mark.parametrize(
    "said",
    [
        "2 hours and 30 minutes", "2 hours 30 minutes", "2 h 30 min", "2h30m", "2 hours, 30 minutes", "5 feet 2 inches",
        "5 ft 2 in", "5 m 20 cm", "3 weeks and 2 days", "3 pounds 4 ounces", "3 dollars and 50 cents",
        "2 \\text{ hours and } 30 \\text{ minutes}", "1 day, 2 hours and 3 minutes",
    ],
)  # fmt: skip
def test_a_measure_in_several_units_is_one_answer_and_no_number(said: str) -> None:
    numbers = [word for word in ("1", "2", "3", "5", "20", "30", "50", "4") if word in said]
    for response in (f"The answer is {said}.", f"#### {said}", f"\\boxed{{{said}}}", f"It takes {said}."):
        assert not any(right("number", gold, response) for gold in numbers), response
    assert right("number", said, f"The answer is {said}.")


def test_other_numbers_with_units_are_read_alone() -> None:
    pairs = [
        ("150", "The answer is 2 hours 30 minutes = 150 minutes."), ("2", "The answer is 2 cats and 3 dogs."),
        ("2", "The answer is 2 hours for 30 dollars."), ("2", "The answer is 2 hours, or 120 minutes."),
        ("5", "The answer is 5 in 3 feet."), ("5", "The answer is 5 days, 8 hours a day."),
        ("5", "The answer is 5 miles and 20 minutes."), ("5", "It takes 5 feet (2 + 3)."),
    ]  # fmt: skip
    assert wrong_of("number", pairs) == []
    assert measure("2 hours", 0, 7) is None


def test_a_power_or_a_unit_in_mathematics_belongs_to_the_number_before_it() -> None:
    pairs = [
        ("10", "The area is 10 cm$^2$."), ("10", "The answer is 10 cm$^{2}$."), ("10", "The area is $10$ cm$^2$."),
        ("10\\text{ cm}^2", "The answer is 10 cm$^2$."), ("10", "The area is 10 m²."), ("x^2", "The answer is x$^2$."),
        ("90", "The angle is 90$^\\circ$."), ("90", "The answer is 90\\(^\\circ\\), as $x = 5$."),
        ("25", "The answer is 25$\\%$."),
        ("54", "The answer is 54 $\\text{in}^2$, since $6 \\cdot 9 = 54$ and $x = 3$."),
        ("3x^2+2x", "The answer is 3x$^2$ + 2x."), ("\\text{Evelyn}", "The answer is $\\text{Evelyn}$."),
    ]  # fmt: skip
    assert wrong_of("math", pairs) == []
    pairs = [("10\\text{ cm}^2", "The answer is 10 cm$^3$."), ("10", "The answer is 10 cm$^2$ or 12 cm$^2$.")]
    assert wrong_of("math", pairs, expected=False) == []


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("The answer is neither A nor B but C.", "C"),
        ("The answer is neither (A) nor (B), but (C).", "C"),
        ("The answer is neither A nor B; it is C.", "C"),
        ("Neither A nor B but C.", "C"),
        ("Not A but C.", "C"),
        ("It is not A, but rather **C**.", "C"),
        ("The answer isn't A but C.", "C"),
        ("The answer isn\u2019t A but C.", "C"),
        ("The answer is neither A nor B.", None),
        ("Not A, but B is also wrong.", None),
        ("The answer is not A, but B or C.", None),
    ],
)
def test_what_stands_for_an_option_that_is_denied_is_chosen(response: str, expected: str | None) -> None:
    found = find_answer(response, "option")
    assert (found.text if found else None) == expected


def test_a_number_stands_for_those_that_are_denied() -> None:
    pairs = [("6", "The answer isn't 5 but 6."), ("7", "The answer is neither 5 nor 6 but 7.")]
    assert wrong_of("number", pairs) == []


@pytest.mark.parametrize("kind", ["number", "math"])
def test_a_part_in_words_after_a_number_belongs_to_it(kind: Kind) -> None:
    pairs = [
        ("2.5", "The answer is 2 and a half."), ("2.5", "The answer is 2 and one-half hours."),
        ("5/2", "It takes 2 and a half hours."), ("2.25", "So she needs $2 and a quarter."),
        ("-2.75", "The answer is -2 and three quarters."), ("8/3", "**Answer: 2 and two thirds**"),
        ("2500000", "The answer is 2 and a half million."), ("1234.5", "The answer is 1,234 and a half miles."),
        ("2", "The answer is 2, and a quarter of them are red."), ("2", "The answer is 2 and a half-hour break."),
    ]  # fmt: skip
    assert wrong_of(kind, pairs[:-2] if kind == "math" else pairs) == []
    pairs = [("2", "The answer is 2 and a half."), ("0.5", "The answer is 2 and a half.")]
    pairs += [("2.5", "The answer is -2 and a half."), ("2, 1/2", "The answer is 2 and a half.")]
    assert wrong_of(kind, pairs, expected=False) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "piece",
    [
        "$1k ", "$1,111", "1M€", "18 (", "18 (9 × 2) ", "The answer is 18 (", "5 [3 ", "18 a b ", "**18** ",
        "2 hours and ", "2h", "1{ ", "3! = ", "3! ", "not A but ", "The answer is neither A ", "one third and ",
        "half a ", "twenty ", "2 and a half ",
        "10 cm$^2$ ", "$\\text{a}$ ", "2 thirds ", "- $", "1\\$",
    ],
)  # fmt: skip
def test_what_is_never_ended_is_read_once(piece: str, kind: Kind) -> None:
    read_once(piece, kind)


HARMONY = "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(("begin", "end"), THOUGHTS)
def test_a_thought_is_no_part_of_the_response(begin: str, end: str) -> None:
    """In the marks of each family of models; one that does not end has no answer."""
    thought = f"{begin}\nSome say 12. Answer: 13, \\boxed{{14}}"
    for kind, said in (("number", "18"), ("math", "18"), ("option", "B"), ("whole", "She has 18: (B)")):
        found = find_answer(f"{thought}{end}\nShe has 18: (B)", kind)
        assert found is not None and found.text == said
        assert find_answer(thought, kind) is None
    assert open_thought(thought) == begin and closes_thought(thought + end)


def test_what_stands_around_a_response() -> None:
    """Some models mark the response too, and write the next turn after it."""
    begin, end = HARMONY
    notes = "<|start|>assistant<|channel|>commentary<|message|>Let me say 5."
    for text in (
        f"{begin}12{end}18",
        f"{begin}12<|end|>{notes}{end}18",
        f"{begin}12<|end|><|start|>assistant{begin}13{end}18",
        f"{begin}12{end}18<|end|><|start|>user<|message|>And 3 + 4?",
        "<|channel|>final<|message|>18",
        "<|START_THINKING|>12<|END_THINKING|><|START_RESPONSE|>18<|END_RESPONSE|>",
        "<|START_RESPONSE|>18<|END_RESPONSE|>",
        "<|channel>thought\n12\n<channel|>18<turn|>\n<|turn>user\nAnd 3 + 4?",
    ):
        for kind in ("number", "whole"):
            found = find_answer(text, kind)
            assert found is not None and found.text == "18", (kind, text)


def test_the_version_is_of_every_file_that_reads_and_judges() -> None:
    """A module that one of them imports from this folder decides with it."""
    folder = Path(grading.__file__).parent
    for name in grading.SOURCES:
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        for line in text.split("\n"):
            if line.startswith("from elicit.tasks."):
                assert line.split()[1].removeprefix("elicit.tasks.") in {*grading.SOURCES, "base"}, (name, line)
