"""A task of Inspect as items and a grader, by its own code.

Its solvers are run with a model that says nothing, and what they would have asked it is the item's question: templates,
system messages (before the question, as text), few-shot texts and multiple choice are honoured so. To judge a response
they are run again with a model that says just that, and the task's scorer is asked. What needs more than one answer of
a model, tools, a sandbox, or a model to judge is refused by name, and so are solvers that draw what they ask, as
`multiple_choice(shuffle=…)` does. Generation settings, epochs and metrics of the task are not read: a run has its own.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from typing import Any

from elicit.tasks.outside_base import FORMS, PROVED, Outside, Refused

SILENT = "elicit/none"
ASKED_AGAIN = 8  # times at least that solvers are run once more, to see whether they ask the same


class _Asked(Exception):
    """Raised by the model that says nothing, with what it was asked."""

    def __init__(self, state: Any) -> None:
        super().__init__("asked")
        self.state = state


class InspectTask:
    """The items of a task, its solvers and its scorer."""

    own = True

    def __init__(self, task: Any) -> None:
        self.task = task
        self.samples = list(task.dataset)
        self.form = FORMS[0]
        prompts = [self._prompt(sample, n) for n, sample in enumerate(self.samples)]
        for again in range(max(ASKED_AGAIN, len(prompts)) if prompts else 0):
            n = again % len(prompts)
            if self._prompt(self.samples[n], n) != prompts[n]:
                raise Refused(
                    f"its solvers ask something else of sample {n} each time, so that no answer can be judged by what "
                    "was asked; let them draw nothing (choices are shuffled by the data set's shuffle_choices)"
                )
        self.form = self._proved()
        self.rows = [
            {
                "question": prompt, "gold": _target(sample), "answer": self.form.format(_target(sample)),
                "id": None if sample.id is None else str(sample.id), "metadata": dict(sample.metadata or {}),
            }
            for sample, prompt in zip(self.samples, prompts, strict=True)
        ]  # fmt: skip

    def score(self, index: int, response: str) -> float:
        from inspect_ai.scorer import value_to_float

        found = asyncio.run(self._judged(self.samples[index], response))
        if found is None or isinstance(found.value, dict | list):
            raise ValueError("the scorer gave no number")
        return float(value_to_float()(found.value))

    def _proved(self) -> str:
        """The form of the gold answers that is right."""
        some = range(min(PROVED, len(self.samples)))
        for form in FORMS:
            if all(self.score(n, form.format(_target(self.samples[n]))) >= 1 for n in some):
                return form
        raise Refused("its scorer finds none of its gold answers right, however they are stated")

    def _prompt(self, sample: Any, n: int) -> str:
        if sample.sandbox or sample.files or sample.setup:
            raise Refused(f"sample {n} needs a sandbox, which is not given here")
        if not _target(sample):
            raise Refused(f"sample {n} has no target, or several")
        try:
            asyncio.run(self._solved(sample, None))
        except _Asked as asked:
            state = asked.state
        else:
            raise Refused("its solvers ask no model")
        if state.tools:
            raise Refused("its solvers give the model tools, which are not given here")
        if any(message.role not in ("system", "user") for message in state.messages):
            raise Refused(f"sample {n} begins a conversation, which an item cannot")
        return "\n\n".join(message.text for message in state.messages)

    async def _judged(self, sample: Any, response: str) -> Any:
        from inspect_ai.scorer import Target

        state = await self._solved(sample, response)
        return await self.task.scorer[0](state, Target(sample.target))

    async def _solved(self, sample: Any, response: str | None) -> Any:
        from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
        from inspect_ai.scorer import Target
        from inspect_ai.solver import TaskState

        said: list[str] = []

        async def generate(state: Any, *_: Any, **__: Any) -> Any:
            if response is None:
                raise _Asked(state)
            if said:
                raise Refused("its solvers ask the model more than once")
            said.append(response)
            state.output = ModelOutput.from_content(SILENT, response)
            state.messages.append(state.output.message)
            return state

        text = sample.input
        state = TaskState(
            model=ModelName(SILENT), sample_id=sample.id if sample.id is not None else 0, epoch=1, input=text,
            messages=[ChatMessageUser(content=text)] if isinstance(text, str) else list(text),
            target=Target(sample.target), choices=sample.choices, metadata=dict(sample.metadata or {}),
        )  # fmt: skip
        return await self.task.solver(state, generate)


def opened(function: Callable[..., Any], params: dict[str, Any], seed: int, limit: int | None) -> Outside:
    """Call the task's function, and refuse what cannot be honoured.

    Raises:
        Refused: it is no task, takes no such parameter, or needs what is not given here (by name).
    """
    from inspect_ai import Task

    os.environ.pop("INSPECT_EVAL_MODEL", None)  # no model stands behind a solver or a scorer here
    if not callable(function):
        raise Refused(f"it is a {type(function).__name__}, expected a function that @task marks")
    takes = inspect.signature(function).parameters
    if wrong := [key for key in params if key not in takes]:
        raise Refused(f"it takes no parameter {wrong[0]!r}; it takes {', '.join(takes) or 'none'}")
    task = function(**params)
    if not isinstance(task, Task):
        raise Refused(f"it returns a {type(task).__name__}, expected a task of Inspect")
    if task.sandbox:
        raise Refused("it needs a sandbox, which is not given here")
    if task.setup:
        raise Refused("it has a setup solver, which is not run here")
    scorers = task.scorer or []
    if len(scorers) != 1:
        raise Refused(f"it has {len(scorers)} scorers, expected one")
    if (getattr(scorers[0], "__module__", "") or "").startswith("inspect_ai.scorer._model"):
        raise Refused("its scorer asks a model to judge, which is not asked here")
    try:
        return InspectTask(task)
    except ValueError as error:
        if "No model specified" in str(error):
            raise Refused("its solvers or its scorer ask another model, which is not asked here") from error
        raise


def _target(sample: Any) -> str:
    target = sample.target
    if isinstance(target, list):
        return str(target[0]) if len(target) == 1 else ""
    return str(target)
