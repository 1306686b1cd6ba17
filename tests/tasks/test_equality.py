"""Equality of answers is an equivalence, the same for grading and voting; numbers are exact."""

from __future__ import annotations

import signal
import time
from fractions import Fraction
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicit.tasks.answers import KINDS, find_answer
from elicit.tasks.base import Item
from elicit.tasks.equality import Form, form_of, math_key
from elicit.tasks.grading import MathGrader, _math_key, grader_for
from elicit.tasks.numerals import NUMERAL, number_value, worded_value

VALUES = st.fractions(min_value=-10_000, max_value=10_000, max_denominator=60)
SAID = st.sampled_from(
    [
        "12", "12.0", "1,2", "2,1", "(1,2)", "[1,2]", r"\{1,2\}", r"\frac{24}{2}", "12 cm", r"12\text{ m}", "12%",
        r"\$12", "0.5", "1/2", r"\frac12", "50%", "x=12", "x + 1", "1 + x", "y = x + 1", "x > 2", r"(2, \infty)",
        "12:00", "A", "(A)", "yes", "Yes.", "", "twelve", r"\sqrt{144}", r"2\sqrt{3}", r"\sqrt{12}", "x^2 + y^2 = 4",
        "2x^2 + 2y^2 = 8", r"\pm 3", "3, -3", "a b", "a  b", "12_5", "-12", "\u221212", "1,234", "1234", "no answer",
    ]
)  # fmt: skip
UNITS = ["", "cm", "m", "%", "$", "degree"]


def column(*members: str) -> str:
    return "\\begin{pmatrix} " + " \\\\ ".join(members) + " \\end{pmatrix}"


def same(kind: str, gold: str, answer: str) -> bool:
    return grader_for(kind).grade(Item("i", "q", gold, "test"), answer).correct  # type: ignore[arg-type]


@given(st.sampled_from([kind for kind in KINDS if kind != "math"]), st.lists(SAID, min_size=3, max_size=3))
def test_equality_is_an_equivalence_and_voting_uses_it(kind: str, said: list[str]) -> None:
    a, b, c = said
    if kind == "expression":  # its items say what is right; votes are by value and numbers
        a, b, c = "3 + 4", "4+3", "8 - 1"
        assert grader_for("expression").groups([a, b, c]) == [0, 0, 2]
        return
    assert same(kind, a, a) and same(kind, a, b) == same(kind, b, a)
    assert not (same(kind, a, b) and same(kind, b, c)) or same(kind, a, c)
    groups = grader_for(kind).groups(said)  # type: ignore[arg-type]
    assert (groups[1] == 0) == same(kind, a, b) and (groups[2] == 0) == same(kind, a, c)


@settings(deadline=None)  # the worker starts
@given(st.lists(SAID, min_size=3, max_size=3), st.sampled_from(UNITS), st.booleans())
def test_in_each_form_equality_of_mathematics_is_an_equivalence(said: list[str], unit: str, relation: bool) -> None:
    a, b, c = (_math_key(text, Form(unit, relation))[0] for text in said)
    assert a == a and (a == b) == (b == a) and (not (a == b == c) or a == c)
    keys = [_math_key(text, form_of(said))[0] for text in said]
    groups = MathGrader().groups(said)
    assert [groups[i] == groups[j] for i in range(3) for j in range(3)] == [x == y for x in keys for y in keys]
    for gold in said:
        assert same("math", gold, gold)
        for answer in said:
            expected = _math_key(gold, form_of([gold]))[0] == _math_key(answer, form_of([gold]))[0]
            assert same("math", gold, answer) == (expected or gold.strip() == answer.strip())


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("10 cm", ["10", r"10\text{ cm}", "10 centimeters"], ["10 m", "10 cm^2", "11"]),
        ("10", ["10 cm", "10 m", "10%", r"\$10"], ["0.1", "1,0"]),
        ("50%", ["50", r"50\%", "50 percent"], ["0.5", "1/2", r"\$50"]),
        ("1/2", ["0.5", r"\frac{2}{4}"], ["50%", "50"]),
        ("y = 2x + 3", ["2x + 3", "y=3+2x", "2x - y + 3 = 0"], ["y = 3x + 2", "x = 2y + 3"]),
        ("x^2 + y^2 = 4", ["2x^2 + 2y^2 = 8", "y^2 = 4 - x^2"], ["4", "x^2 + y^2 = 2", "x^2 - y^2 = 4"]),
        ("(1, 2)", ["x = 1, y = 2", "(1,2)"], ["(2,1)", "1,2", "[1,2]", r"\{1,2\}"]),
        ("1, 2", ["2, 1", r"\{1, 2\}", "1 and 2", "x = 1 or x = 2"], ["12", "1", "(1,2)"]),
        (r"0.\overline{3}", ["1/3"], ["0.3", "0.33"]),
        (r"\frac{1}{2004!}", [r"\frac{1}{2004!}"], [r"\frac{1}{2005!}", "0"]),
        ("x^2 - y^2", ["(x-y)(x+y)"], ["(x-y)^2", "x^2 + y^2"]),
        ("|x|", [r"\left|x\right|"], ["x"]),
        ("[0,100]", ["[0, 100]", r"\left[0,\ 100\right]"], ["100", "[0,100)", "(0,100)"]),
        ("(0,125)", ["(0, 125)", "0 < x < 125", "]0, 125["], ["125", "(0,12)"]),
        ("(3,512)", ["(3, 512)", "x = 3, y = 512", r"\langle 3,512 \rangle"], ["(3512)", "3,512", "3512"]),
        (r"\{1,125\}", [r"\{125, 1\}", r"\{125,1\}", "{1,125}"], ["1125", r"\{1,25\}"]),
        ("(5,100,200)", ["(5, 100, 200)"], ["5100200", "(5, 100200)"]),
        ("((1,125),3)", ["((1, 125), 3)"], ["(1125, 3)"]),
        (r"(0,100) \cup (200,300)", [r"(200, 300) \cup (0, 100)"], [r"(0,100) \cup (200,301)"]),
        ("(1000, 2000)", ["(1,000, 2,000)", r"(1{,}000, 2{,}000)"], ["(1, 2)", "(1, 0, 2, 0)"]),
        ("1234", ["1,234", r"1{,}234", "1,234 cm", r"\frac{2,468}{2}", r"2 \cdot (617)"], ["(1,234)", "1, 234"]),
        ("1", ["x = 1", "x_1 = 1", r"\text{Area} = 1", "f(2) = 1", "a + b = 1", "x = 3 - 2 = 1", "3^2 - 8 = 1"], []),
        ("1", [r"\sin A = 1", r"\lim_{x \to 0} \frac{\sin x}{x} = 1", "AB = 1"], ["x^2=1", "2x = 1", "x^2 + y^2 = 1"]),
        ("0", [], ["x - 1 = 0", "0 = x^2 - 1", r"\theta^2 = 0", r"\sqrt{x} = 0"]),
        ("(x+1)^2", ["x^2 + 2x + 1 = (x+1)^2"], ["x^2 + 2x + 2 = (x+1)^2"]),
    ],
)
def test_what_is_the_same_hangs_on_what_is_asked_for(gold: str, right: list[str], wrong: list[str]) -> None:
    assert [answer for answer in right if not same("math", gold, answer)] == []
    assert [answer for answer in wrong if same("math", gold, answer)] == []


@pytest.mark.parametrize("kind", ["number", "math"])
@pytest.mark.parametrize(
    ("response", "right", "wrong"),
    [
        ("The answer is 1 million.", "1000000", "1"),
        (r"\boxed{5 \text{ million}}", "5,000,000", "5"),
        (r"\boxed{\$1.5\text{ million dollars}}", "1500000", "1.5"),
        (r"\boxed{\frac{1}{2} \text{ million}}", "500000", "1/2"),
        ("The answer is -2 Billion.", "-2000000000", "-2"),
        ("The answer is 3 thousand dollars", "3000", "3"),
        ("She will need 2 dozen eggs.", "2", "24"),  # of GSM8K: "how many dozens of eggs"
        ("#### 2 hundred thousand", "200000", "2"),
        ("The answer is 3,000,000", "3 million", "3"),
        ("The answer is 2^3 = 8.", "8", "2"),
        ("The answer is 2**10 = 1024.", "1024", "2"),
        ("#### 3^2 = 9 apples", "9", "3"),
        ("The answer is 5\u00b2 = 25.", "25", "5"),
        ("The answer is 1/2 = 2/4 = 0.5.", "0.5", "2"),
        (r"\boxed{\frac{4}{2} = 2}", "2", "4"),
        ("The answer is 7 = 3 + 4.", "7", "4"),
    ],
)
def test_words_that_multiply_and_last_sides_count(kind: Any, response: str, right: str, wrong: str) -> None:
    found = find_answer(response, kind)
    assert found is not None
    assert same(kind, right, found.text) and not same(kind, wrong, found.text)


@pytest.mark.parametrize("response", [r"\boxed{x^2 = 1}", "The answer is x + 3 = 1.", "\\boxed{$x\u00b2 = 1$}"])
def test_an_equation_that_is_not_solved_states_no_number(response: str) -> None:
    found = find_answer(response, "number")
    assert found is not None and not same("number", "1", found.text)
    assert find_answer(r"\boxed{x_1 = 1}", "number").text == "1"  # type: ignore[union-attr]


def test_the_last_number_of_the_rule_has_no_words() -> None:
    assert find_answer("So 1 million", "last-number").text == "1"  # type: ignore[union-attr]
    assert number_value("2 million") == 2_000_000 == worded_value("two million") and number_value("million") is None
    assert same("math", "(1000000, 2000000)", r"(1\text{ million}, 2\text{ million})")


@given(VALUES)
def test_a_number_has_one_value_in_every_spelling(value: Fraction) -> None:
    n, d = value.numerator, value.denominator
    whole, rest = divmod(abs(n), d)
    sign = "-" if n < 0 else ""
    spellings = [f"{n}/{d}", rf"\frac{{{n}}}{{{d}}}", f"{sign}{whole} {rest}/{d}", f"${n}/{d}$"]
    spellings += [f"{n}", f"{n:,}", f"{n:,}.00", f"{n}e0", f"${sign}\\${abs(n)}$", f"{n}%"] if d == 1 else []
    assert {number_value(text) for text in spellings} == {value}
    found = find_answer(f"We had 7 of 9. The answer is {spellings[1]}, or so.", "number")
    assert found is not None and number_value(found.text) == value


@given(st.integers(0, 999_999))
def test_numbers_in_words(n: int) -> None:
    words = _in_words(n)
    assert worded_value(words) == n and worded_value(words.title()) == n


def _in_words(n: int) -> str:
    ones = (
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
        "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    )  # fmt: skip
    tens = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
    if n < 20:
        return ones[n]
    if n < 100:
        return tens[n // 10 - 2] + (f"-{ones[n % 10]}" if n % 10 else "")
    scale, name = (100, "hundred") if n < 1000 else (1000, "thousand")
    head, rest = divmod(n, scale)
    return f"{_in_words(head)} {name}" + (f" and {_in_words(rest)}" if rest else "")


@pytest.mark.parametrize(
    ("gold", "same", "other"),
    [
        ("(5,\\infty)", "\\{x \\mid x > 5\\}", "\\{x \\mid x \\ge 5\\}"),
        ("(5,\\infty)", "\\left\\{x \\in \\mathbb{R} \\,\\middle|\\, x>5\\right\\}", "\\{n \\in \\mathbb{Z} : n>5\\}"),
        ("[-2,7]", "\\{x : -2 \\le x \\le 7\\}", "\\{x : -2 < x \\le 7\\}"),
        ("(3,4]", "\\{x | x \\in (3,4]\\}", "\\{x | x \\in [3,4]\\}"),
        ("(-\\infty,2) \\cup (3,\\infty)", "\\{x \\mid x < 2 \\text{ or } x > 3\\}", "\\{x \\mid x < 2\\}"),
        ("\\{|x|, 2\\}", "\\{2, |x|\\}", "\\{2, x\\}"),
    ],
)  # fmt: skip
def test_a_set_by_a_condition_is_its_interval(gold: str, same: str, other: str) -> None:
    assert grader_for("math").groups([gold, same, other]) == [0, 0, 2]


@pytest.mark.parametrize(
    ("gold", "same", "other"),
    [
        (column("16/49", "48/49"), f"\\frac{{16}}{{49}}{column('1', '3')}", f"\\frac{{16}}{{49}}{column('1', '2')}"),
        (column("1/2", "3"), f"\\mathbf{{v}} = \\frac12 \\cdot {column('1', '6')}", f"\\frac12 + {column('1', '6')}"),
        (column("-1", "2"), f"-{column('1', '-2')}", column("1", "-2")),
        (column("2x", "2y+2"), f"2{column('x', 'y+1')}", f"2{column('x', 'y')}"),
        (column("\\pi", "0"), f"\\pi{column('1', '0')}", f"A{column('1', '0')}"),
    ],
)  # fmt: skip
def test_a_number_before_a_matrix_is_in_each_of_its_members(gold: str, same: str, other: str) -> None:
    assert grader_for("math").groups([gold, same, other]) == [0, 0, 2]


@pytest.mark.parametrize(
    ("gold", "same", "other"),
    [
        (r"9:30\text{ a.m.}", "9:30 AM", r"9:30\text{ p.m.}"),
        ("6 a.m.", r"6\text{ am}", "6 p.m."),
        (r"\text{3:30 p.m.}", "3:30 PM", "3:30 a.m."),
        ("1 2", "1  2", "3"),
        (r"0.\overline{3}", r"\frac{1}{3}", r"0.\overline{7}"),
        (r"12\,000", "12000", r"13\,000"),
        ("2516_8", "2516_{8}", "2516_7"),
    ],
)
def test_halves_of_a_day_and_numbers_side_by_side(gold: str, same: str, other: str) -> None:
    assert grader_for("math").groups([gold, same, other]) == [0, 0, 2]


@pytest.mark.parametrize("said", [["[0,100]", "[0, 100]", "100"], [r"\{1,125\}", r"\{125, 1\}", "1125"]])
def test_votes_go_by_members_of_brackets(said: list[str]) -> None:
    assert grader_for("math").groups(said) == [0, 0, 2]


@pytest.mark.parametrize(
    "piece",
    [
        "(1,234",
        "[0,100",
        "a'",
        "\\alpha ",
        "a_1",
        "f(x)",
        "(",
        "\\sin ",
        "x = ",
        "1 million ",
        "1 and a half ",
        "\\frac{1}{2} ",
        "\\{x \\mid ",
        "2\\begin{pmatrix} ",
    ],
)
def test_mathematics_without_end_is_read_once(piece: str) -> None:
    before = time.process_time()
    for end in ("", "=1", "^2=1"):
        math_key((piece * 2000)[:1990] + end, Form(), lambda expression, name: None)
    assert time.process_time() - before < 2


@pytest.mark.parametrize(
    "text",
    ["0,100", "000,123", "1,2", "1,5", "\u20ac5,50", "12:30", "20/01/2020", "5.5.5", "2x", "v2", "1/0", "--5", "1 2"],
)
def test_what_is_no_number_has_no_value(text: str) -> None:
    assert number_value(text) is None


@given(st.text(alphabet="0123456789,.:/^{}\\$%- eE+\u00bd\u2212x", max_size=24))
def test_no_text_makes_a_number_raise(text: str) -> None:
    number_value(text)
    for found in NUMERAL.finditer(text):
        assert found.group()
    for kind in KINDS:
        answer = find_answer(text, kind)
        assert answer is None or 0 <= answer.start < answer.end <= len(text)


@pytest.mark.parametrize("text", ["x" * 1900 + "#### =)none", "ha" * 900 + "! = 5", "1" * 20_000 + "=)none"])
def test_the_form_of_what_a_model_repeats_without_end_is_found(text: str) -> None:
    """By a pattern that went back over every way to cut a word this took for ever."""

    def late(number: int, frame: FrameType | None) -> None:
        pytest.fail("half a minute of the processor was not enough")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, 30)
    try:
        assert form_of(["7", text, "7"]) == Form(decimals=0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
