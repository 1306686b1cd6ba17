"""What refuses or denies an answer, sums that are told in words or with a dash, and choices that are repeated."""

from __future__ import annotations

import pytest

from elicit.tasks.answers import Kind, find_answer
from tests.support.loops import read_once
from tests.tasks.test_readings import right, wrong_of


@pytest.mark.parametrize(
    "said",
    [
        "It cannot be determined from the 5 apples.",
        "The answer cannot be determined from the 5 numbers.",
        "This can't be solved with only 5 values.",
        "This question cannot be answered: only 5 of the values are given.",
        "We do not have enough information about the 5 boxes.",
        "The problem does not give enough information; we only know there are 5 boxes.",
        "There isn't sufficient data on the 5 boxes.",
        "There is no way to know how many of the 5 are red.",
        "I am not able to answer this about 5 boxes.",
        "Without the price, the total for 5 boxes cannot be found.",
        "Since 2 prices are missing, the total of 5 cannot be calculated.",
    ],
)
def test_what_cannot_be_told_has_no_answer(said: str) -> None:
    assert find_answer(said, "number") is None
    assert not right("math", "5", said)


def test_what_is_granted_refuses_nothing() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("20", "Although we cannot determine the individual prices, the total is 20."),
                ("20", "While their ages cannot be determined, together they are 20."),
                ("20", "We cannot tell each age, yet together they are 20."),
                ("5", "The answer cannot be less than 5, so it is 5."),
            ],
        )
        == []
    )


@pytest.mark.parametrize(
    "said",
    ["5 is not the answer.", "5 is not a valid solution.", "The answer 5 is incorrect.", "5 is wrong.",
     "It cannot be 5.", "It isn't 5."],
)  # fmt: skip
def test_what_is_said_to_be_wrong_is_no_answer(said: str) -> None:
    assert not right("number", "5", said)
    assert right("number", "6", f"{said} It is 6.")


def test_sums_in_words_and_with_a_dash_are_worked_out_or_no_numbers() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("12", "The answer is 20 \u2013 8 = 12."),
                ("3", "The answer is 2023\u20132020 = 3."),
                ("14", "The answer is 2(3 + 4) = 14."),
                ("2", "The answer is 5 minus 3 = 2."),
                ("15", "The answer is 5 times 3, which is 15."),
                ("15", "The answer is 5 \u00d7 3, or 15."),
                ("10", "The answer is 20% of 50, which is 10."),
                ("10", "The answer is 20% of 50 = 10."),
                ("5.5", "The answer is 11/2 or 5.5."),
                ("20", "The answer is 20% of the 50 students."),
                ("18", "The answer is 18 plus tax."),
                ("12", "The answer is 12 - that is 3 each."),
                ("12", "The answer is 12 \u2013 a dozen."),
                ("12", "The answer is 12 (5 plus 7)."),
            ],
        )
        == []
    )
    no_numbers = [
        ("5", "The answer is 5\u20136."),
        ("20", "The answer is 20 \u2013 8."),
        ("5", "The answer is 5 times 3."),
        ("20", "The answer is 20% of 50."),
        ("18", "The answer is 18 - sqrt(2)."),
        ("3", "The answer is 5 times 3, which is 3 more than 12."),
    ]
    assert wrong_of("number", no_numbers, expected=False) == []


def test_two_values_are_no_number_and_a_check_no_conclusion() -> None:
    alike = [
        ("1/2", "\\boxed{\\frac{1}{2} \\text{ or } 0.5}"),
        ("1/2", "\\boxed{\\frac{1}{2} \\text{ or } 50\\%}"),
        ("0.5", "The answer is 0.5, or 50%."),
        ("-5.5", "The answer is -11/2 or -5.5."),
        ("50", "\\boxed{50\\%}"),
        ("29", "This gives $2p = 58$, or $p = 29$."),
    ]
    assert wrong_of("number", alike) == []
    apart = [("2", "\\boxed{2 \\text{ or } -2}"), ("6", "So x = 5 or x = 6."), ("1/2", "\\boxed{0.5\\text{ or }0.4}")]
    assert wrong_of("number", apart, expected=False) == []
    two = [("5", "\\boxed{5\\text{ or }6}"), ("5", "\\boxed{\\pm 5}"), ("5", "So $x = \u00b15$."), ("5", "x = \\pm5")]
    assert wrong_of("number", two, expected=False) == []
    assert (
        wrong_of(
            "number",
            [
                ("366", "The price would be 366.\n\nLet me double check: 366 / 2 = 183."),
                ("366", "The price would be 366. Let us verify: 366 / 2 = 183."),
                ("183", "Let me check: 366 / 2 = 183."),
                ("18", "She makes $18 every 2 days."),
            ],
        )
        == []
    )


def test_a_dash_is_a_sign_in_an_expression() -> None:
    assert right("expression", "(10-4)*4", "Answer: (10 \u2013 4) \u00d7 4")


def test_a_letter_after_so_and_a_small_one_in_brackets_are_chosen() -> None:
    assert (
        wrong_of(
            "option",
            [
                ("C", "So C."),
                ("C", "Both are too small. Therefore, **C**"),
                ("C", "Option A is wrong, B is wrong, so C."),
                ("C", "The answer is option (c)."),
                ("C", "The answer is c) 5"),
                ("C", "c) 5"),
                ("C", "=> C"),
                ("C", "Answer C"),
                ("C", "C seems to be the best answer."),
                ("C", "C is the only option that fits."),
                ("C", "Only C fits."),
                ("C", "We can rule out A and B, leaving C."),
                ("C", "We can rule out A and B. That leaves C."),
                ("C", "It is 5, which corresponds to C."),
                ("C", "C, since A and B are too small."),
                ("C", "C (not B)"),
                ("C", "It is A. No, C."),
                ("C", "The answer is option c."),
                ("C", "The correct choice is (c)."),
                ("B", "Option (a) is wrong. Option (b) is right."),
            ],
        )
        == []
    )
    others = [
        ("C", "So not C."),
        ("C", "So C is wrong."),
        ("A", "Option (a) is wrong."),
        ("C", "So C or D."),
        ("A", "That leaves A dog."),
        ("A", "a) 3\nb) 4"),
    ]
    assert wrong_of("option", others, expected=False) == []


def test_choices_that_are_repeated_are_not_chosen() -> None:
    for said in ("(A) 3 (B) 4 (C) 5. The sum is 4.", "(A) 3\n(B) 4\n(C) 5\n\nThe sum is 4.", "A) 3 B) 4 C) 5"):
        assert find_answer(said, "option") is None, said
    assert (
        wrong_of(
            "option",
            [
                ("B", "(A) 3 (B) 4 (C) 5. We compute 4, so (B)."),
                ("B", "A. 3\nB. 4\nC. 5\n\nB. 4"),
                ("C", "(A) is wrong. (B) is wrong. (C) holds."),
                ("B", "(A) is too small, (B) is right, (C) is too large."),
                ("C", "C) 5"),
            ],
        )
        == []
    )


def test_the_name_of_an_inverse_or_a_derivative_names_a_value() -> None:
    same = [
        ("f^{-1}(x)=\\frac{x-1}{2}", "\\frac{x-1}{2}"),
        ("\\frac{x-1}{2}", "f^{-1}(x)=\\frac{x-1}{2}"),
        ("6x", "f''(x) = 6x"),
        ("2x", "\\frac{dy}{dx} = 2x"),
    ]
    assert wrong_of("math", [(gold, f"$\\boxed{{{said}}}$") for gold, said in same]) == []


@pytest.mark.parametrize("kind", ["number", "option"])
@pytest.mark.parametrize(
    "piece", ["it cannot be determined, ", "so C ", "(A) ", "A) 3 B) ", "5 times ", "(3 + ", "5\u20136 "]
)
def test_what_repeats_it_is_read_once(piece: str, kind: Kind) -> None:
    read_once(piece, kind)
