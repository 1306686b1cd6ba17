"""Tasksets of verifiers as tasks: a verdict is the sum of their own rewards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elicit.tasks import load_task, validate
from elicit.tasks.outside import OUTSIDE
from probes.errors import UserError

pytest.importorskip("verifiers")
HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    OUTSIDE.close()


def test_rewards_of_verifiers_are_verdicts() -> None:
    task = load_task(f"verifiers:{HERE / 'tasksets.py'}@Sums,count=20")
    assert len(task.items) == 20
    item = next(item for item in task.items if item.metadata["index"] == 2)
    assert (item.question, item.answer) == ("Add.\n\nWhat is 3 + 3?", "6")
    said = {"It is 6.": 1.0, "7": 0.0, "\\boxed{7}": 0.2, "\\boxed{}6": 1.0}
    assert {one: task.grader.grade(item, one).score for one in said} == pytest.approx(said)
    assert validate(task.test).ok


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Opens", "its user opens the conversation, which has several turns"),
        ("Prepares", "prepares a runtime"),
        ("SumTask", "expected a class of tasksets"),
        ("Sums,size=3", "its settings are not {'size': 3}"),
    ],
)
def test_tasksets_that_cannot_be_honoured_are_refused_by_name(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_task(f"verifiers:{HERE / 'tasksets.py'}@{name}")
