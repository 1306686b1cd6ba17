"""A task proves that its gold answers are found in responses that give them; what cannot be proved is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import elicit
from elicit.models import Model
from elicit.tasks import load_task, validate
from elicit.tasks.answers import find_answer
from elicit.tasks.base import Item, Items, Task, check_grader, is_found
from elicit.tasks.grading import grader_for
from elicit.tasks.reasoning_gym import grader_of
from probes.errors import UserError

# Their answers have several lines, or a last character that counts.
WHOLE = (
    "mini-sudoku", "n-queens", "binary-matrix", "kakurasu", "modulo-grid", "tower-of-hanoi", "rearc",
    "manipulate-matrix", "pool-matrix", "sentence-reordering", "emoji-mystery",
)  # fmt: skip


def file_of(folder: Path, *golds: str) -> str:
    path = folder / "q.jsonl"
    lines = [{"question": f"q{n}", "answer": gold, "split": "test"} for n, gold in enumerate(golds)]
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


@pytest.mark.parametrize("name", WHOLE)
def test_answers_that_are_no_line_are_found_as_whole_responses(name: str) -> None:
    task = load_task(name, limit=3)
    assert task.kind == "whole"
    proof = validate(task.all, 9)
    assert proof.ok and proof.found == proof.checked == 9
    for item in task.test:
        for response in (item.answer, f"\n{item.answer}\n", f"I think.\n<answer>\n{item.answer}\n</answer>"):
            found = find_answer(str(response), task.kind)
            assert found is not None and task.grader.grade(item, found.text).correct


@pytest.mark.parametrize("golds", [("(A)", "(B)", "(C)"), ("A.", "B.", "D."), ("A)", "b)", "C)"), ("K", "L", "M")])
def test_options_are_proved_however_they_are_written(golds: tuple[str, ...], tmp_path: Path) -> None:
    task = load_task(file_of(tmp_path, *golds))
    assert task.kind == "option" and validate(task.all).ok


def test_texts_of_several_lines_are_whole_responses(tmp_path: Path) -> None:
    task = load_task(file_of(tmp_path, "1 2\n3 4", "4 3\n2 1"))
    assert task.kind == "whole" and validate(task.all).ok
    task = load_task(file_of(tmp_path, "blue", "green"))
    assert task.kind == "text" and validate(task.all).ok


def test_what_cannot_be_proved_is_refused(tiny: Model, tmp_path: Path) -> None:
    task = load_task(f"{file_of(tmp_path, 'a = 1; b = 2', 'none at all')}:kind=text")
    assert validate(task.all).ok
    lost = load_task(f"{file_of(tmp_path, 'blue', 'x' + chr(10) + 'y')}:kind=text")
    proof = validate(lost.all)
    assert not proof.ok and proof.found == 1 and proof.lost == "x\ny"
    handle = elicit.methods.direct.fit(tiny, max_new_tokens=2)
    with pytest.raises(UserError, match=r"1 are not found in responses that give them, like 'x\\ny'.*kind=whole"):
        elicit.evaluate(handle, lost.test, against=(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_with_one_answer_to_all_questions_is_refused() -> None:
    task = load_task("puzzle24", limit=4)  # whose scorer does not read the question's numbers
    proof = validate(task.all)
    assert proof.gold_right == proof.found == proof.checked and proof.corrupted_right == 0 and not proof.ok
    with pytest.raises(UserError, match=r"'puzzle24' is not to be trusted: '.*' is right on most questions that have"):
        check_grader(task.all, proof)


def test_alike_answers_are_no_constant(tmp_path: Path) -> None:
    golds = ["yes", "Yes", "0", "0.0", "0", "yes"]
    assert validate(load_task(file_of(tmp_path, *golds)).all).constant == ""


def test_signs_count_in_gsm_symbolic() -> None:
    task = load_task("gsm-symbolic", limit=2)
    item = task.items[0]
    assert task.grader.grade(item, item.answer).correct and not task.grader.grade(item, f"-{item.answer}").correct
    assert grader_of(task.source).grade(item, item.answer).correct


@pytest.mark.parametrize(
    ("kind", "gold"),
    [
        ("number", "1,234"), ("number", "-3"), ("number", "2.5"), ("number", "1/3"), ("number", "$18"),
        ("option", "(C)"),
        ("math", r"\frac{1}{2}"), ("math", r"\left( 3, \frac{\pi}{2} \right)"), ("math", "x^2 + 1"),
        ("math", r"\text{east}"),
        ("math", r"[2,5)"), ("text", "Paris"), ("text", "New York"), ("text", "True"), ("expression", "(3 + 4) * 2"),
        ("code", "def f(x):\n    return x + 1"), ("whole", "1 2\n3 4."), ("last-number", "12"),
    ],
)  # fmt: skip
def test_each_kind_finds_its_own_gold(kind: str, gold: str) -> None:
    item = Item("i", "q", gold, "test")
    grader = grader_for(kind)  # type: ignore[arg-type]
    assert is_found(item, grader, kind)  # type: ignore[arg-type]
    task = Task("t", (item,), grader, kind, {"family": "given"})  # type: ignore[arg-type]
    assert validate(Items(task, (item,))).found == 1
