"""What a sentence concludes that says more than its answer, and mathematics and names that stand without marks."""

from __future__ import annotations

import pytest

from elicit.tasks.answers import Kind
from elicit.tasks.equality import form_of
from elicit.tasks.numerals import number_value, worded_value
from tests.support.loops import read_once
from tests.tasks.test_readings import right, wrong_of


def test_what_is_needed_is_concluded_and_not_what_it_is_for() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("64", "Kylar needs to pay $64 for 16 glasses."),
                ("14", "You need 14 boxes for 168 eggs."),
                ("14", "14 boxes for 168 eggs."),
                ("14", "It takes 14 boxes to hold 168 eggs."),
                ("18", "They need 36 eggs for 2 cakes, so 18 eggs for 1 cake."),
                ("18", "He sold 9 eggs for $18."),
                ("18", "He sold 9 eggs for 18 dollars."),
                ("2", "He needs 2 more to reach 18."),
                ("75", "She still needs to save 75 dollars to reach her goal of $100."),
                ("75", "It takes her 75 minutes to walk 5 miles."),
                ("18", "A pen costs $2, so for 9 pens he pays $18."),
                ("18", "He pays $2 per egg for 9 eggs, or $18."),
            ],
        )
        == []
    )


@pytest.mark.parametrize("kind", ["number", "math"])
def test_what_is_denied_is_not_concluded(kind: Kind) -> None:
    assert (
        wrong_of(
            kind,
            [
                ("18", "She has 18 left, not 20."),
                ("18", "So $18$ is the smallest, not $20$."),
                ("18", "So $18$ works, while $20$ does not."),
                ("18", "9 + 9 = 18. It is not 20."),
            ],
        )
        == []
    )
    assert not right(kind, "20", "She has 18 left, not 20.")


def test_a_number_stands_for_its_parts_and_what_is_rounded_to_for_the_rest() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("3", "It takes 3 bolts: 2 blue and 1 white."),
                ("6", "He has 6 pets: 3 dogs, 2 cats and 1 fish."),
                ("18", "He had 20 apples: he ate 2 and kept 18."),
                ("13", "100 / 8 = 12.5, which rounds up to 13."),
                ("33", "32 / 96 * 100% = 33.333...%, which rounds down to 33%"),
                ("0.75", "3/4, or 0.75"),
                ("1/3", "The probability is 1/3, which is approximately 0.333."),
                ("13", "He needs 12.5, or about 13 boxes."),
            ],
        )
        == []
    )


def test_what_only_tells_more_is_not_concluded() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("75", "They drove 75 miles in 3 hours."),
                ("75", "Sam sold 75 cookies over 2 days."),
                ("75", "Anna has 75 dollars left after spending $25."),
                ("75", "She has 75 dollars left from the original 100 dollars."),
                ("75", "That leaves her with 75 marbles, since 25 are gone."),
                ("75", "Anna received **75 points**, while Ben got 60."),
                ("75", "The number of marbles is 75, which is 3 times 25."),
                ("12", "She can make 12 bracelets using 36 beads."),
                ("12", "He needs 12 boxes because 11 boxes would not be enough."),
                ("6", "He has 6 animals, 3 cats and 3 dogs."),
                ("75", "75\n\nExplanation: She had 100 and spent 25."),
                ("75", "75\n\nExplanation: 100 - 25 = 75, and 25 are gone."),
                ("43", " 10\nExplanation: He had 10 socks and threw away 3, so 10 - 3 = 7, and then 7 + 36 = 43."),
                ("75", "After spending $25 she has $75 left."),
                ("75", "She had 100, and since 25 are gone, 75 remain."),
                ("75", "He had 100 and after spending 25 he has 75 left."),
                ("75", "In 3 hours they drove 75 miles."),
                ("6", "He had 10 apples, ate 4, and 6 are left."),
            ],
        )
        == []
    )


def test_numbers_in_words_conclude_where_there_are_no_others() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("5", "He has five apples left."),
                ("5", "There are five left."),
                ("5", "five apples"),
                ("5", "He ate 3 of 8. There are five left."),
                ("18", "So Tom is now eighteen years old."),
                ("-3", "The answer is minus three."),
                ("-5", "The change is negative five degrees."),
                ("15", "5 + 10 = 15. There are two ways to see this."),
                ("15", "5 + 10 = 15. She has two more than him."),
            ],
        )
        == []
    )
    assert (worded_value("minus three"), worded_value("negative minus three")) == (-3, None)


def test_mixed_numbers_with_a_hyphen_and_short_sums_of_money() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("2.5", "It takes 2-1/2 hours."),
                ("2.375", "The answer is 2-3/8 inches."),
                ("9.5", "The answer is 10-1/2 = 9.5."),
                ("1500000", "The house is worth 1.5 mil."),
                ("1500000", "It costs 1.5M dollars."),
                ("3000", "He earns 3k dollars."),
            ],
        )
        == []
    )
    assert right("math", "3/2", "\\boxed{2-1/2}")
    assert (number_value("3k dollars"), number_value("1.5 mil"), number_value("5 dollars")) == (3000, 1_500_000, None)


def test_a_full_hour_is_its_number() -> None:
    assert (
        wrong_of(
            "number",
            [
                ("8", "The train arrives at 8:00 PM."),
                ("2", "5-3 = 2:00 pm is the latest she can start."),
                ("8", "The answer is 8:00."),
                ("8", "He works from 8:00 to 16:00, which is 8 hours."),
                ("40", "He earns 40 dollars from 8:00 to 10:00."),
            ],
        )
        == []
    )
    assert not right("number", "8", "It is 8:30 PM.")


@pytest.mark.parametrize("kind", ["number", "math"])
def test_what_is_put_in_the_place_of_a_stated_answer_is_read(kind: Kind) -> None:
    assert (
        wrong_of(
            kind,
            [
                ("18", "The answer is 20. Actually, it's 18."),
                ("18", "The answer is 20, no wait, 18."),
                ("18", "The answer is 20, sorry, 18."),
                ("18", "The final answer is \\boxed{20}. Wait, no, it is 18."),
                ("18", "The answer is 20.\n\nHmm, wait. I forgot to subtract 2. So it is 18."),
                ("18", "The answer is 18. Wait 5 minutes before you eat."),
                ("18", "The answer is 18. No 2 eggs are alike."),
                ("18", "The answer is 18. If I made a mistake, let me know."),
                ("18", "The answer is 18. Is it 20? No, it is 18."),
            ],
        )
        == []
    )


def test_names_and_options_that_a_sentence_tells() -> None:
    for said in (
        "Ann is the fastest.",
        "So **Ann** has the most points.",
        "The fastest is Ann.",
        "The winner is **Ann**.",
    ):
        assert right("math", "\\text{Ann}", said), said
    for said in (
        "Graph B is correct.",
        "The correct option is B.",
        "The answer is graph B.",
        "The correct graph is (B).",
    ):
        assert right("math", "\\text{(B)}", said), said
    for gold, said in (
        ("June 20", "The date is **June 20**."),
        ("even", "The function is even."),
        ("5", "5 is the largest."),
    ):
        assert right("math", f"\\text{{{gold}}}", said), said
    assert right("math", "12", "We get $12$. This is the largest.")


def test_mathematics_without_marks_ends_a_sentence() -> None:
    assert (
        wrong_of(
            "math",
            [
                ("y = 2x + 3", "The equation is y = 2x + 3."),
                ("x^3+3x-6", "So p(x) = x^3 + 3x - 6."),
                ("6 - 5i", "So w = 6 - 5i."),
                ("2k", "So AC = 2k."),
                ("1,-2", "Therefore x = 1 and x = -2."),
                ("(6,31,-1)", "So A = 6, B = 31, C = -1."),
                ("7\\pi", "The area is 7pi."),
                ("3\\sqrt{13}", "The distance is 3 sqrt(13)."),
                ("\\frac{20000}{\\pi}", "It is 20,000/\u03c0 m\u00b2"),
                ("5", "So 2x = 10, x = 5."),
                ("120", "It is 60 ml/km * 2 km = 120 ml"),
                ("5", "The side is 5 cm."),
                ("10", "The maximum is 10, at x = 3 and y = 1."),
            ],
        )
        == []
    )


def test_what_ends_a_proof_and_what_is_only_about_as_large_is_passed_over() -> None:
    assert (
        wrong_of(
            "math",
            [
                ("12", "Thus it is $12$, as required. $\\blacksquare$"),
                ("12", "So $x = 12$.\n\n$\\square$"),
                ("\\frac{3}{56}", "$\\frac{3}{56}$, or about $0.054$"),
                ("\\frac{3}{56}", "It is 3/56, which is approximately 0.0536."),
            ],
        )
        == []
    )


def test_spellings_of_latex_that_are_the_same() -> None:
    same = [
        ("\\frac{\\pi}{2}", "\\frac\\pi2"),
        ("\\frac{\\pi}{2}", "\\dfrac\\pi{2}"),
        ("\\frac{1}{\\pi}", "\\frac1\\pi"),
        ("\\frac{\\sqrt{3}}{2}", "\\frac\\sqrt{3}{2}"),
        ("120^\\circ", "120^o"),
        ("3, 5, 7", "3 \\text{, } 5 \\text{, } 7"),
        ("864 \\mbox{ inches}^2", "864 \\text{ in^2}"),
        ("864 \\mbox{ inches}^2", "864\\text{ in\u00b2}"),
        ("3\\sqrt{13}", "3\\sqrt{\\text{13}}"),
        ("52_8", "52_{\\text{base }8}"),
        ("(3,4]", "x > 3 \\text{ and } x \\le 4"),
        ("\\begin{pmatrix} -7 \\\\ 16 \\\\ 5 \\end{pmatrix}", "(-7, 16, 5)^T"),
        ("\\begin{pmatrix} -7 \\\\ 16 \\\\ 5 \\end{pmatrix}", "\\begin{bmatrix} -7 & 16 & 5\\end{bmatrix}^{\\top}"),
        ("(6,31,-1)", "6, 31, -1"),
    ]
    assert wrong_of("math", [(gold, f"$\\boxed{{{said}}}$") for gold, said in same]) == []
    other = [
        ("(6,31,-1)", "31, 6, -1"),
        ("(6,31,-1)", "6, 31"),
        ("[-2,7]", "-2, 7"),
        ("(3,4]", "x > 3 \\text{ or } x \\le 4"),
        ("(3,4]", "x > 3 \\text{ and } y \\le 4"),
        ("864 \\mbox{ inches}^2", "864 \\text{ in^3}"),
        ("x^3", "x^T"),
    ]
    assert wrong_of("math", [(gold, f"$\\boxed{{{said}}}$") for gold, said in other], expected=False) == []
    assert form_of(["(1,2,3)", "(1,2,3)", "1, 2, 3"]).places == 3


@pytest.mark.parametrize("kind", ["number", "math"])
@pytest.mark.parametrize(
    "piece",
    [
        "The answer is 5, no, 6, ",
        "Actually, it's 18. ",
        "Answer: 5. I forgot 2. So it is 6. ",
        "x = 1, ",
        "is 2x + ",
        ": 2x y ",
        "So Ann has the ",
        "5 for 6 apples, ",
        "not 5 ",
        "8:00 ",
        "3 bolts: 2 blue and 1 ",
        "five apples are ",
        "\\frac\\pi ",
        "$\\blacksquare$ ",
        "x > 3 and ",
        "5 since 5 are ",
        "5 in 5 days ",
        "5\n\nExplanation: ",
    ],
)
def test_what_repeats_what_is_concluded_is_read_once(piece: str, kind: Kind) -> None:
    read_once(piece, kind)
