"""Tasks of Inspect as tasks: their questions and verdicts are Inspect's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai import Task, eval
from inspect_ai.model import ModelOutput, get_model

from elicit.tasks import load_task, validate
from elicit.tasks.outside import OUTSIDE
from probes.errors import UserError
from tests.inspect import sums
from tests.inspect.sums import spoken

# Inspect leaves streams open, which the collector of garbage tells of.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

HERE = Path(__file__).parent
SAID = ("ANSWER: 9", "ANSWER: 9.0 or so", "9", "It is 9.", "19", "ANSWER: B", "B", "", "9 and 8")


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    OUTSIDE.close()


def in_inspect(task: Task, folder: Path) -> tuple[set[str], dict[str, Any]]:
    """What Inspect asks a model on the third sample, and its scorer's verdict on each of `SAID`, an epoch each."""
    asked, left = set(), list(SAID)

    def answers(input: Any, tools: Any, tool_choice: Any, config: Any) -> ModelOutput:
        asked.add("\n\n".join(message.text for message in input))
        return spoken(left.pop())

    model = get_model("mockllm/model", custom_outputs=answers)
    settings: dict[str, Any] = {"log_dir": str(folder), "display": "none", "log_realtime": False}
    [log] = eval(task, model=model, limit=(2, 3), epochs=len(SAID), **settings)
    assert log.status == "success", log.error.message if log.error else ""
    assert log.samples is not None
    values = {one.output.completion: next(iter((one.scores or {}).values())).value for one in log.samples}
    return asked, values


@pytest.mark.parametrize("name", ["sums", "letters", "lines"])
def test_questions_and_verdicts_are_inspects_own(name: str, tmp_path: Path) -> None:
    task = load_task(f"inspect:{HERE / 'sums.py'}@{name}")
    assert len(task.items) == 40 and task.kind == "whole"
    item = next(item for item in task.items if item.metadata["index"] == 2)
    asked, values = in_inspect(getattr(sums, name)(), tmp_path)
    assert asked == {item.question}
    assert set(values) == set(SAID) and {"C", "I"} <= set(values.values())
    for said, value in values.items():
        assert task.grader.grade(item, said).score == {"C": 1.0, "I": 0.0, "N": 0.0}[value], said
    assert validate(task.test).ok


def test_parameters_reach_the_task_and_metadata_its_items() -> None:
    task = load_task(f"inspect:{HERE / 'sums.py'}@sums,count=12")
    assert {item.id for item in task.items} == {f"s{n}" for n in range(1, 13)}
    assert {item.metadata["level"] for item in task.items} == {0, 1, 2}
    with pytest.raises(UserError, match="it takes no parameter 'size'; it takes count"):
        load_task(f"inspect:{HERE / 'sums.py'}@sums,size=12")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("judged", "its scorer asks a model to judge"),
        ("tools", "its solvers give the model tools"),
        ("critic", "ask another model"),
        ("boxed", "it needs a sandbox"),
        ("twice", "ask the model more than once"),
        ("drawn", "its solvers ask something else of sample 0 each time"),
        ("drawn,count=5", "its solvers ask something else of sample 0 each time"),
        ("SUMS", "it is a list, expected a function"),
        ("nothing", "has no 'nothing'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_task(f"inspect:{HERE / 'sums.py'}@{name}")
