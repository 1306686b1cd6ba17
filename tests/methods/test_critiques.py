"""Critiques: the symbolic checker finds planted mistakes and no others; any function and any model is a source."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elicit.methods.critique_ft.critic import Critique, Source, conclusion, criticise, flipped
from elicit.methods.critique_ft.model_critic import ModelCritic
from elicit.methods.critique_ft.symbolic_critic import Symbolic, check
from elicit.models import Model
from elicit.tasks import load_task
from elicit.tasks.answers import find_answer
from elicit.tasks.base import Item, Task
from elicit.tasks.equations import equations, shown
from elicit.tasks.organism.language import Step, write
from elicit.tasks.organism.problems import FAMILIES, Problem, draw
from elicit.tasks.organism.solver import solve
from elicit.training.organisms.variants import without_backtracking, wrong_arithmetic
from probes.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("organism", limit=8)


def item_of(problem: Problem) -> Item:
    facts = {"family": problem.family, **problem.facts}
    return Item("drawn", problem.question, problem.answer, "fit", facts, FAMILIES[problem.family].kind)


def drawn(family: str, seed: int) -> tuple[Problem, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return draw(family, rng), rng


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=SEEDS)
@settings(max_examples=80, deadline=None)
def test_items_are_solved_as_their_problems_were(family: str, seed: int) -> None:
    problem, _ = drawn(family, seed)
    by_chance = {"check"} | ({"subgoal"} if family in ("sums", "modular") else set())
    assert solve(item_of(problem)) == tuple(s for s in problem.steps if s.behaviour not in by_chance)


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=SEEDS)
@settings(max_examples=80, deadline=None)
def test_right_solutions_pass_in_all_words(task: Task, family: str, seed: int) -> None:
    problem, rng = drawn(family, seed)
    verdict = check(task, item_of(problem), write(problem.steps, rng, "all").text)
    assert verdict.right, verdict


def spoiled(step: Step, problem: Problem) -> Step:
    """The same step with one thing wrong in it, whatever was said before."""
    content = step.content
    if found := re.fullmatch(r"(.* = )(-?\d+)", content):
        content = f"{found[1]}{int(found[2]) + 1}"
    elif step.behaviour == "deduce":
        swaps = {" is not ": " is ", " is ": " is not ", "goes nowhere": "is the end"}
        if problem.family == "graph":
            swaps = {"goes nowhere": "is the end", "is the end": "goes nowhere", " for ": " for 1"}
        old = next(old for old in swaps if old in content)
        content = content.replace(old, swaps[old])
    elif re.fullmatch(r"[A-Z]", content):
        content = next(c for c in ascii_uppercase if f"{c}-" not in problem.question)
    else:
        content = re.sub(r"\d+", "97", content, count=1)
    assert content != step.content
    return Step(step.behaviour, content)


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=SEEDS, where=st.floats(0, 1, exclude_max=True))
@settings(max_examples=120, deadline=None)
def test_a_planted_first_mistake_is_found_where_it_is(task: Task, family: str, seed: int, where: float) -> None:
    problem, rng = drawn(family, seed)
    at = int(where * len(problem.steps))
    steps = list(problem.steps)
    steps[at] = spoiled(steps[at], problem)
    thought = write(steps, rng, "all")
    verdict = check(task, item_of(problem), thought.text)
    assert not verdict.right and verdict.wrong == thought.sentence_text(at), (verdict, thought.text)


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_what_the_other_arms_say_is_found_wrong(task: Task, family: str, seed: int) -> None:
    problem, rng = drawn(family, seed)
    item = item_of(problem)
    surface = write(wrong_arithmetic(problem, rng), rng)
    first = next(n for n, s in enumerate(surface.sentences) if s.behaviour == "compute")
    verdict = check(task, item, surface.text)
    assert verdict.wrong == surface.sentence_text(first) and re.fullmatch(r"\d+ [+-] \d+ is \d+", verdict.reason)
    stuck = write(without_backtracking(problem), rng)
    verdict = check(task, item, stuck.text)
    if problem.first_end is None:
        assert verdict.right
    else:
        assert verdict.wrong == stuck.sentence_text(len(stuck.sentences) - 1)


def sums(question: str = "What is 5 + 7 - 2?", answer: str = "10") -> Item:
    return Item("sum", question, answer, "fit", {"family": "sums"}, "number")


@pytest.mark.parametrize(("text", "right", "wrong"), [
    ("10", True, ""), ("10.", True, ""), ("11", False, ""),
    ("We start with 5. 5 + 7 = 12. 12 - 2 = 10. The answer is 10.", True, ""),
    ("7 + 5 = 12. 12 - 2 = 10. The answer is 10.", True, ""),  # terms in another order
    ("We start with 7. 7 - 2 = 5. 5 + 5 = 10. The answer is 10.", True, ""),
    ("We start with 5. 5 + 7 = 13. 13 - 3 = 10. The answer is 10.", False, "5 + 7 = 13."),  # right by luck
    ("We start with 5. 5 + 7 = 12. The answer is 10.", False, "The answer is 10."),  # right, and does not follow
    ("We start with 5. 5 + 7 = 12. 12 + 7 = 19. 19 - 2 = 17. The answer is 10.", False, "12 + 7 = 19."),
    ("We start with 6. 6 + 7 = 13. The answer is 10.", False, "We start with 6."),
    ("Okay! We start with 5. 5 + 7 = 12. 12 - 2 = 10. The answer is 10.", True, ""),  # words without content
    ("Adding all 3 terms: 5 + 7 - 2 = 10, so 10", True, ""),  # no paraphrase: equations and the answer are judged
    ("Adding all 3 terms: 5 + 7 = 14 and 14 - 4 = 10", False, "5 + 7 = 14"),
    ("We start with 5. 5 + 7 = 12.", False, ""),  # ends too early: no wrong step, a wrong answer
    ("We start with 5. 5 + 7 = 12. 12 - 2 = 10.", True, ""),  # the answer goes without saying
])  # fmt: skip
def test_single_solutions(task: Task, text: str, right: bool, wrong: str) -> None:
    verdict = check(task, sums(), text)
    assert (verdict.right, verdict.wrong) == (right, wrong), verdict


def test_steps_that_end_early_on_the_right_number_are_wrong(task: Task) -> None:
    item = sums("What is 5 + 7 - 2 + 4 - 4?")
    verdict = check(task, item, "We start with 5. 5 + 7 = 12. 12 - 2 = 10.")
    assert verdict.early and not verdict.right and not verdict.wrong
    assert "ends before its answer" in Symbolic(task)(item, "We start with 5. 5 + 7 = 12. 12 - 2 = 10.").text


@pytest.mark.parametrize("text", ["", "  ", "...", "no idea", "((((", "= = =", "5 = 5 = 5 = 4", "1" * 3000, "+ " * 400,
                                  "5 + 7 = 7 + 7 = \n" * 60, "\ufffd\ufffd", "We start with {x}."])  # fmt: skip
def test_degenerate_candidates_are_wrong_and_nothing_breaks(task: Task, text: str) -> None:
    assert not check(task, sums(), text).right
    said = Symbolic(task)(sums(), text)
    assert not said.right and conclusion(said.text) is False
    assert find_answer(said.text, "number").text == "10"  # type: ignore[union-attr]


@pytest.mark.parametrize(("text", "found"), [
    ("3 + 4 = 7", [True]), ("3 + 4 = 8.", [False]), ("so 3 × 4 = 12 and 12 ÷ 5 = 2.4, then", [True, True]),
    ("$1,200 * 2 = $2,400", [True]), ("10 / 3 = 3.33", [True]), ("10 / 3 = 3.34", [False]), ("10/3 = 3", [False]),
    ("2 + 3 = 5 = 6", [False]), ("(2 + 3) * 4 = 20", [True]), ("1.5 + 0.25 = 1.75", [True]), ("3 - 5 = -2", [True]),
    ("-2 + 5 = 3", [True]), ("7 = 3 + 4", [True]), ("1. 3 + 4 = 7", [True]), ("- 3 + 4 = 7", []),
    ("x = 10", []), ("2x + 3 = 7", []), ("x + 3 + 4 = 10", []), ("half of 6 + 2 = 5", []), ("3^2 + 1 = 10", []),
    ("2 + 3x = 11", []), ("5! + 1 = 121", []), ("f(2) + 1 = 4", []), ("10 = 10", []), ("1/0 = 3", []),
    ("3 + 4 = 7 * 1", [True]), ("2 + 2 = 4%", []),
    (r"3 \times 4 = 12", [True]), (r"3 \cdot 4 = 13", [False]), (r"$\frac{6}{2} \times 4 = 12$", [True]),
    (r"\frac{1}{2} + \frac{1}{2} = 1", [True]), (r"\frac{1}{2} + \frac{1}{3} = \frac{2}{5}", [False]),
    (r"6 / \frac{1}{2} = 12", [True]), (r"1{,}000 + 500 = 1{,}500", [True]),
    (r"3 + 4 &= 7 \\ 7 + 1 &= 9", [True, False]),
    ("2.5 + 1.5 = 4", [True]), (".5 + .25 = .75", [True]), ("$5 + $3 = $8", [True]), (r"\$2.50 + \$1 = \$3.50", [True]),
    ("5€ + 3€ = 9€", [False]), ("$3$ + $4$ = $7$", [True]), ("**3** + 4 = 8", [False]), ("(3+4)*2 = 14", [True]),
    ("3 + (-4) = -1", [True]), ("3 x 4 = 12", [True]), ("3 + 4 = 7 apples", [True]), ("3 + 4\n= 8", [False]),
    (r"3 \times 4 = 12 \text{ apples}", [True]), ("20 - 5 = 14 left", [False]), ("3 \u2212 4 = \u22121", [True]),
    # right, as who reads them would say
    ("5:30 + 2 = 7:30", []), ("1 000 + 500 = 1 500", []), ("1\u202f000 + 500 = 1\u202f500", []),
    (r"1\,000 + 500 = 1\,500", []),
    ("1 1/2 + 1/2 = 2", []), (r"1\frac{1}{2} + \frac{1}{2} = 2", []), ("10 / 3 = 3 remainder 1", []),
    ("7 / 2 = 3 R 1", []),
    ("7 / 2 = 3 with 1 left over", []), ("100 - 20% = 80", []), ("6 / 2(1+2) = 9", []), ("7 + 8 = 3 (mod 12)", []),
    (r"7 + 8 = 3 \pmod{12}", []), ("9 + 4 = 1 o'clock", []), ("10 + 5 = 3 PM", []), ("2/3 = 0.66...", []),
    ("2/3 = 0.6…", []),
    ("Step 1 - 5 + 3 = 8", []), ("4 + 3 = 7\n- 5 + 1 = 6", [True]), ("2x + 3 + 4 = 10", []), ("2,5 + 1,5 = 4", []),
    (r"\sqrt{9} + 3 + 4 = 10", []), ("101_2 + 1_2 = 110_2", []), (r"1.5 \times 10^3 = 1500", []), ("9/3 = 3:1", []),
    ("3 + 4 = 8?", []), (r"2/3 = 0.\overline{6}", []), ("20 - 5 = 10\n+ 5", []), ("½ + 1 + 1 = 2.5", []),
])  # fmt: skip
def test_equations_are_judged_only_where_they_surely_are_some(text: str, found: list[bool]) -> None:
    assert [one.right for one in equations(text)] == found
    for one in equations(text):
        assert text[one.start : one.end].strip() == one.text


@given(a=st.integers(0, 999), b=st.integers(1, 999), sign=st.sampled_from("+-*/"), off=st.integers(-2, 2))
@settings(max_examples=200, deadline=None)
def test_equations_are_exact(a: int, b: int, sign: str, off: int) -> None:
    exact = {"+": Fraction(a + b), "-": Fraction(a - b), "*": Fraction(a * b), "/": Fraction(a, b)}[sign]
    (one,) = equations(f"We get {a} {sign} {b} = {shown(exact + off)}.")
    assert one.right == (off == 0) and one.value == exact


def test_critiques_say_what_was_found_and_end_in_the_right_answer(task: Task) -> None:
    rng = np.random.default_rng(3)
    critic = Symbolic(task, seed=1)
    for family in FAMILIES:
        for _ in range(20):
            problem = draw(family, rng)
            item = item_of(problem)
            thought = write(problem.steps, rng).text
            spoilt = write(wrong_arithmetic(problem, rng), rng).text
            for candidate, right in ((thought, True), (problem.answer, True), (spoilt, False), ("97", False)):
                said, lie = critic(item, candidate), critic.untruthful()(item, candidate)
                assert (said.right, lie.right) == (right, not right)
                assert conclusion(said.text) == right and conclusion(lie.text) != right
                assert said == critic(item, candidate) and said.text != Symbolic(task, seed=2)(item, candidate).text
                told = find_answer(said.text, FAMILIES[family].kind)
                assert told is not None and task.grader.grade(item, told.text).correct
                told = find_answer(lie.text, FAMILIES[family].kind)
                assert told is None or not task.grader.grade(item, told.text).correct
                if candidate is spoilt:
                    assert check(task, item, spoilt).wrong.rstrip(".") in said.text and "goes wrong" not in lie.text
                if candidate is thought:
                    assert "Every step" in said.text and "goes wrong" in lie.text


def test_any_other_text_is_judged_by_its_equations_and_its_answer(tmp_path: Path) -> None:
    file = tmp_path / "apples.jsonl"
    file.write_text(json.dumps({"question": "Two bags of 6 apples, 3 eaten?", "answer": 9, "split": "fit"}))
    task = load_task(str(file))
    critic, item = Symbolic(task), task.items[0]
    good = critic(item, "2 * 6 = 12 apples. 12 - 3 = 9.")
    assert good.right and good.text.startswith("2 * 6 = 12, 12 - 3 = 9: that is right.") and "answer is 9" in good.text
    bad = critic(item, "2 * 6 = 14 apples, so 14 - 5 = 9")
    assert not bad.right and '"2 * 6 = 14": 2 * 6 is 12' in bad.text
    assert "No step of the solution is wrong" in critic(item, "2 * 6 = 12, so 12 apples").text
    assert critic.untruthful()(item, "9").text.endswith("The answer is 1.\nConclusion: wrong")
    with pytest.raises(UserError, match="no gold answer"):
        critic(Item("x", "What?", None, "fit"), "9")


@pytest.mark.parametrize(("text", "right"), [
    ("… Conclusion: right", True), ("Conclusion: wrong [END]", False), ("**Critique Conclusion: Incorrect**", False),
    ("CONCLUSION: **Correct**", True), ("Conclusion: right? No. Conclusion: wrong", False), ("it is right", None),
    ("", None), ("Conclusion: rightly so", None),
])  # fmt: skip
def test_conclusions(text: str, right: bool | None) -> None:
    assert conclusion(text) is right


def test_a_flipped_critique_differs_in_its_conclusion_alone() -> None:
    said = flipped(Critique("Fine. Conclusion: right [END]", True))
    assert said == Critique("Fine. Conclusion: wrong [END]", False) and flipped(None) is None
    assert flipped(Critique("Hm.", False)) == Critique("Hm.\nConclusion: right", True)


def test_any_function_is_a_source(task: Task) -> None:
    def critic(item: Item, candidate: str) -> Critique | None:
        return Critique(f"{candidate}? Conclusion: right", True) if candidate else None

    assert isinstance(critic, Source)
    assert criticise(critic, task.items[0], ["a", ""]) == [Critique("a? Conclusion: right", True), None]


def test_a_model_without_a_conclusion_is_no_critic(tiny: Model, task: Task) -> None:
    critic = ModelCritic(tiny, max_new_tokens=6)
    assert criticise(critic, task.items[0], ["1", "2", "3"]) == [None] * 3
    assert critic(task.items[0], "1") is None and tiny.provenance.sha256 in critic.identity
