"""A taskset of verifiers (0.4, `verifiers.v1`) as items and a grader, by its own code.

Its tasks' prompts are the questions (a system prompt stands before, as text), and its rewards, summed with their
weights over a trace of one answer, are the verdict. Full marks are what the gold answer gets: `answer` of the task's
data, stated in one of the usual forms; of data without one, 1 for each reward. A task of several turns, with tools, a
container, a prepared runtime or a judge is refused by name. Of a taskset without an end the first `MOST` tasks are
read.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from typing import Any

from elicit.tasks.outside_base import FORMS, PROVED, Outside, Refused

MOST = 1000


class VerifiersTask:
    """The items of a taskset, and its rewards."""

    own = True

    def __init__(self, tasks: list[Any]) -> None:
        self.tasks = tasks
        self.golds = [_gold(task) for task in tasks]
        self.form, self.full = FORMS[0], [float(sum(map(_weight, task.hooks("reward")))) for task in tasks]
        if any(gold is not None for gold in self.golds):
            self.form = self._proved()
            self.full = [
                full if gold is None else self._reward(n, self.form.format(gold))
                for n, (gold, full) in enumerate(zip(self.golds, self.full, strict=True))
            ]
        if worst := [n for n, full in enumerate(self.full) if full <= 0]:
            raise Refused(f"the gold answer of task {worst[0]} gets no reward")
        self.rows = [
            {
                "question": _prompt(task), "gold": gold, "answer": None if gold is None else self.form.format(gold),
                "id": task.data.id, "metadata": {} if task.data.name is None else {"name": task.data.name},
            }
            for task, gold in zip(tasks, self.golds, strict=True)
        ]  # fmt: skip

    def score(self, index: int, response: str) -> float:
        """The reward as a fraction of full marks; what is above is full, what is below 0 is none."""
        return min(1.0, max(0.0, self._reward(index, response) / self.full[index]))

    def _proved(self) -> str:
        """The form of the gold answers that is worth most, and more than saying nothing."""
        some = [n for n, gold in enumerate(self.golds) if gold is not None][:PROVED]
        worth = {form: min(self._reward(n, form.format(self.golds[n])) for n in some) for form in FORMS}
        best = max(worth, key=lambda form: worth[form])
        if worth[best] <= max(self._reward(n, "") for n in some):
            raise Refused("its rewards give its gold answers no more than an empty response, however they are stated")
        return best

    def _reward(self, index: int, response: str) -> float:
        import verifiers.v1 as vf

        task = self.tasks[index]
        asked = vf.MessageNode(message=vf.UserMessage(content=_prompt(task)))
        said = vf.MessageNode(parent=0, message=vf.AssistantMessage(content=response), sampled=True)
        trace: Any = vf.Trace(
            task=vf.TraceTask(type=type(task).__name__, data=task.data), agent=vf.AgentInfo(config=vf.AgentConfig()),
            nodes=[asked, said], is_completed=True, ok=True,
        )  # fmt: skip
        asyncio.run(task.score(trace))
        return float(trace.reward)


def opened(taskset: Any, params: dict[str, Any], seed: int, limit: int | None) -> Outside:
    """Make a taskset, and refuse what cannot be honoured.

    Raises:
        Refused: it is none, has no such setting, or needs what is not given here (by name).
    """
    import verifiers.v1 as vf
    from verifiers.v1.utils.generic import concrete_type

    if not (isinstance(taskset, type) and issubclass(taskset, vf.Taskset)):
        raise Refused(f"it is a {type(taskset).__name__}, expected a class of tasksets of verifiers")
    kind = concrete_type(taskset, vf.TasksetConfig, origin=vf.Taskset) or vf.TasksetConfig
    try:
        config = kind(**params)
    except ValueError as error:
        raise Refused(f"its settings are not {params} ({' '.join(str(error).split())[:200]})") from error
    made: Any = taskset(config)
    if made.toolsets(config):
        raise Refused("it gives the model tools, which are not given here")
    tasks = list(itertools.islice(made, MOST) if not made.bounded else made)
    for task in tasks:
        _check(task)
    return VerifiersTask(tasks)


def _check(task: Any) -> None:
    import verifiers.v1 as vf

    where = f"task {task.data.idx}"
    if task.NEEDS_CONTAINER or task.data.image:
        raise Refused(f"{where} needs a container, which is not given here")
    made: Any = type(task)
    if made.setup is not vf.Task.setup or made.finalize is not vf.Task.finalize:
        raise Refused(f"{where} prepares a runtime, which is not given here")
    if made.toolsets(task.config):
        raise Refused(f"{where} gives the model tools, which are not given here")
    if task.plugged_judges():
        raise Refused(f"{where} asks a model to judge, which is not asked here")
    prompt = task.data.prompt
    if prompt is None:
        raise Refused(f"{where} has no prompt: its user opens the conversation, which has several turns")
    if not isinstance(prompt, str) and any(message.role not in ("system", "user") for message in prompt):
        raise Refused(f"{where} begins a conversation, which an item cannot")
    rewards = task.hooks("reward")
    if not rewards:
        raise Refused(f"{where} has no reward")
    for reward in rewards:
        runtime = inspect.signature(reward).parameters.get("runtime")
        if runtime is not None and runtime.default is inspect.Parameter.empty:
            raise Refused(f"the reward {reward.__name__!r} of {where} needs a runtime, which is not given here")


def _prompt(task: Any) -> str:
    said = task.data.prompt_text
    return f"{task.data.system_prompt}\n\n{said}" if task.data.system_prompt else str(said)


def _gold(task: Any) -> str | None:
    found = getattr(task.data, "answer", None)
    return str(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else None


def _weight(reward: Any) -> float:
    return max(0.0, float(getattr(reward, "_vf_weight", 1.0)))
