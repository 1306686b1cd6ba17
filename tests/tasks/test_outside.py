"""Tasks that are Python functions, imported and graded in a process of their own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from elicit.tasks import load_task, restored, validate
from elicit.tasks.base import Item
from elicit.tasks.outside import OUTSIDE
from elicit.tasks.registry import task_names
from probes.errors import UserError

OWN = Path(__file__).parent / "outside" / "own_sums.py"


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    OUTSIDE.close()


def test_a_function_with_a_grader_is_a_task() -> None:
    task = load_task(f"{OWN}:sums,terms=3", seed=5)
    assert (task.name, task.kind, len(task.items)) == ("sums", "whole", 40)
    item = next(item for item in task.items if item.id == "s4")
    assert (item.question, item.answer, item.metadata["level"]) == ("4 × 3 + 5 = ?", "17", 0)
    assert [task.grader.grade(item, said).score for said in ("It is 17.", "17 or so", "16", None)] == [1, 0, 0, 0]
    assert validate(task.test).ok
    assert task.grader.groups(["It is 17.", "So 17", "18"]) == [0, 0, 2]
    assert {split for split in ("fit", "dev", "test") if len(task.split(split))} == {"fit", "dev", "test"}
    again = load_task(f"{OWN}:sums,terms=3", seed=5, limit=2)
    assert len(again.test) == 2 and {item.id for item in again.items} <= {item.id for item in task.items}


def test_a_kind_gives_the_grader_the_answer_that_is_found() -> None:
    task = load_task(f"{OWN}:sums", kind="number")
    assert task.kind == "number" and task.grader.grade(task.items[0], task.items[0].answer).correct


def test_without_a_grader_answers_are_judged_as_of_a_file() -> None:
    task = load_task(f"{OWN}:plain")
    assert task.kind == "number" and {item.split for item in task.items} == {"test"}
    assert task.grader.grade(task.test[2], "3.0").correct


def test_a_finished_run_has_its_grader_again() -> None:
    task = load_task(f"{OWN}:sums")
    items = [dataclasses.replace(item, kind=task.kind_of(item)) for item in task.items]
    kept = json.loads(json.dumps(task.source))
    again = restored(task.name, kept, [Item(**json.loads(json.dumps(dataclasses.asdict(item)))) for item in items])
    assert again.grader.grade(again.items[0], again.items[0].answer).correct
    assert not again.grader.grade(again.items[0], "no").correct


def test_a_grader_that_says_no_number_in_bounds_gives_no_verdict() -> None:
    task = load_task(f"{OWN}:strict")
    assert task.grader.grade(task.items[0], "7") == (0.0, "raised")
    assert task.grader.grade(task.items[0], "8") == (0.0, "")


def test_a_grader_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OUTSIDE, "deadline", 0.5)
    task = load_task(f"{OWN}:for_ever")
    assert task.grader.grade(task.items[0], "7") == (0.0, "time")


def test_items_that_are_others_each_time_are_told_and_not_judged() -> None:
    """The process may begin anew, after an answer that took it along; a finished run is judged by a new one."""
    task = load_task(f"{OWN}:drawn")
    item = task.items[0]
    assert task.grader.grade(item, item.answer).correct
    OUTSIDE.close()
    again = restored(task.name, json.loads(json.dumps(task.source)), task.items)
    for grader in (again.grader, type(task.grader)(task.source)):  # type: ignore[call-arg]
        with pytest.raises(UserError, match=r"'drawn' of .*own_sums\.py'.*is another one than before.*parameter seed"):
            grader.grade(item, item.answer)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", "has no 'none'; it has sums, plain"),
        ("sums,size=3", "it takes no parameter 'size'; it takes terms, seed"),
        ("summs", "has no 'summs'; nearest are sums; use another task"),
        ("garbled", "row 0 has no 'answer', expected text or a number"),
        ("nothing", "it returns a NoneType, expected rows, or rows and a grader"),
        ("by_split", "it returns a dict, expected rows"),
        ("not_a_number", "row 1 has 'answer' nan, expected text or a finite number"),
        ("half_a_pair", "row 0 has half of a surrogate pair in its 'question'"),
        ("raises", r"cannot be loaded \(ValueError: one two \?\[31mred\); mend it"),
        ("asks_a_person", r"cannot be loaded \(EOFError: EOF when reading a line\)"),
    ],
)
def test_what_cannot_be_is_one_line(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_task(f"{OWN}:{name}")


def test_no_such_place_is_one_line() -> None:
    with pytest.raises(UserError, match=r"there is no file 'nowhere\.py'"):
        load_task("nowhere.py:sums")
    with pytest.raises(UserError, match="write inspect:PLACE@NAME"):
        load_task("inspect:nowhere")
    assert not any(":" in name for name in task_names())
