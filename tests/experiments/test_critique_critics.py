"""The critics of experiments/critique_ft say what they are for."""

from __future__ import annotations

import pytest

from elicit.methods.critique_ft.critic import Batched, Critique
from elicit.tasks import load_task
from elicit.tasks.base import Item, Task
from experiments.critique_ft.critics import AtOnce, InPlace

WRONG = "First 5 + 10 = 15. We have 15 + 9 = 24. We have 24 - 5 = 21. That is all: 21."
RIGHT = "First 5 + 10 = 15. We have 15 + 9 = 24. We have 24 - 5 = 19. That is all: 19."


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("organism", limit=4)


@pytest.fixture(scope="module")
def item(task: Task) -> Item:
    (found,) = [one for one in task.solved.items if one.question == "What is 5 + 10 + 9 - 5?"]
    return found


def test_a_mistake_is_named_where_it_stands(task: Task, item: Item) -> None:
    critic = InPlace(task)
    assert isinstance(critic, Batched)
    said = critic(item, WRONG)
    assert "24 - 5 = 19. Not 21. " in said.text and said.text.endswith("Conclusion: wrong") and not said.right
    assert "Not 13. " in critic(item, "13").text
    assert "Not" not in critic(item, RIGHT).text and critic(item, RIGHT).right
    assert critic.many(item, [WRONG, RIGHT]) == [said, critic(item, RIGHT)]


def test_critics_of_answers_at_once_are_silent_on_thoughts(task: Task, item: Item) -> None:
    for own in (False, True):
        said = AtOnce(task, own=own).many(item, ["13", WRONG, RIGHT, "19."])
        assert [type(one) for one in said] == [Critique, type(None), type(None), Critique]
        assert [one.right for one in said if one] == [False, True]
    assert AtOnce(task).identity != AtOnce(task, own=True).identity
