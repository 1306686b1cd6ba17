"""What people give in a notebook by mistake is refused in one line: what was given, and what to give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elicit
from elicit.analysis import check_runs
from elicit.evaluation import evaluator
from elicit.methods import METHODS
from elicit.methods.base import NeedsItems
from elicit.models import Model
from elicit.tasks.base import Task
from tests.support.refused import refuse
from tests.support.tiny import save_tiny

EASY = "chain-sum:min_terms=2,max_terms=2"


@pytest.fixture(scope="module")
def task() -> Task:
    return elicit.load_task(EASY, limit=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return elicit.load_model(folder, dtype=torch.float32, device=torch.device("cpu"))  # as people write them


@pytest.fixture(scope="module")
def handle(model: Model) -> elicit.Elicited:
    return elicit.methods.direct.fit(model, max_new_tokens=np.int64(4))


def test_a_path_a_dtype_and_a_device_are_taken(model: Model, folder: Path) -> None:
    assert (model.name, model.dtype) == (str(folder), "float32")
    assert len(repr(model)) < 500
    written = folder.parent / "mine.jsonl"
    written.write_text('{"id": "a", "question": "1 + 1?", "answer": "2", "split": "test"}\n')
    assert len(elicit.load_task(written, limit=np.int64(1)).test) == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": None}, "None was given as name; give a name, a hub id, a folder or a .gguf file"),
        ({"name": ["a"]}, "a list was given as name"),
        ({"name": "tiny", "dtype": 16}, r"16 \(int\) was given as dtype; give one of auto, float32"),
        ({"name": "tiny", "dtype": torch.int8}, "unknown dtype 'int8'"),
        ({"name": "tiny", "revision": 3}, "as revision; give a text"),
    ],
)
def test_of_load_model(given: dict[str, Any], told: str) -> None:
    refuse(told, lambda: elicit.load_model(**given))


def test_a_model_that_is_loaded_already(model: Model) -> None:
    refuse("a LlamaForCausalLM was given as name; .*save it with save_pretrained", lambda: elicit.load_model(model.lm))  # type: ignore[arg-type]
    refuse("a Model was given as name", lambda: elicit.load_model(model))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": None}, "None was given as name; give a task's name"),
        ({"name": EASY, "limit": "4"}, r"'4' \(str\) was given as limit; give a whole number"),
        ({"name": EASY, "limit": 4.0}, "as limit; give a whole number"),
        ({"name": EASY, "limit": True}, "True was given as limit"),
        ({"name": EASY, "seed": None}, "None was given as seed"),
    ],
)
def test_of_load_task(given: dict[str, Any], told: str) -> None:
    refuse(told, lambda: elicit.load_task(**given))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_of_each_fit(name: str, model: Model, task: Task) -> None:
    fit: Callable[..., Any] = METHODS[name].module.fit
    refuse("'tiny' .str. was given as model; give what elicit.load_model returns", lambda: fit("tiny", task.fit))
    refuse("a LlamaForCausalLM was given as model", lambda: fit(model=model.lm, items=task.fit))
    refuse("a Task was given as items; give items of a task, like task.test", lambda: fit(model, task))
    refuse("a list was given as items", lambda: fit(model, items=["What is 1 + 1?"]))
    refuse(f"unknown option of {name} 'promt'; did you mean prompt", lambda: fit(model, task.fit, promt="qa"))
    refuse(f"prompt = 3 was given to {name}; expected str", lambda: fit(model, task.fit, prompt=3))
    if METHODS[name].needs_items:
        with pytest.raises(NeedsItems, match="; give items"):
            fit(model)


def test_of_evaluate(handle: elicit.Elicited, task: Task, tmp_path: Path) -> None:
    evaluate: Callable[..., Any] = elicit.evaluate
    refuse("a Model was given as handle; give what the fit of a method", lambda: evaluate(handle.model, task.test))
    for items, what in ((task, "Task"), (list(task.test), "list"), ((i for i in task.test), "generator")):
        refuse(f"a {what} was given as items; give items of a task", lambda items=items: evaluate(handle, items))
    refuse("None was given as against; give names", lambda: evaluate(handle, task.test, against=None))
    refuse("an Elicited was given as against", lambda: evaluate(handle, task.test, against=handle))
    refuse("an Elicited was given in against", lambda: evaluate(handle, task.test, against=[handle]))
    refuse("against.'a'.; give what the fit", lambda: evaluate(handle, task.test, against={"a": "direct"}))
    inner: Callable[..., Any] = evaluator.evaluate
    refuse("'0' .str. was given as seed", lambda: inner(handle, task.test, seed="0"))
    refuse("'8' .str. was given as batch_rows", lambda: inner(handle, task.test, batch_rows="8"))
    refuse("3 .int. was given as out", lambda: inner(handle, task.test, out=3))
    run = inner(handle, task.test, seed=np.int64(0), out=tmp_path / "run")
    assert repr(run) == f"<run {str(tmp_path / 'run')!r}: direct; 2 items of chain-sum>"
    refuse("a Run was given; give a list of runs", lambda: check_runs(run))
    refuse("'runs/a' .str. was given among the runs", lambda: check_runs(["runs/a"]))


def test_of_a_handle(handle: elicit.Elicited, task: Task) -> None:
    anything: Any = handle
    refuse("'What is 1 . 1.' .str. was given as items", lambda: anything.answer("What is 1 + 1?"))
    refuse("an Item was given as items", lambda: anything.answer(task.test[0]))
    refuse("a Task was given as items", lambda: anything.answers(task))
    refuse("None was given as folder", lambda: anything.save(None))
    refuse("'tiny' .str. was given as model", lambda: elicit.Elicited.load("there", "tiny"))  # type: ignore[arg-type]
    for name, value in (("model", handle.model.lm), ("prompt", "qa"), ("decoder", "greedy"), ("interventions", 3)):
        other = copy(anything)
        object.__setattr__(other, name, value)  # where types are checked as tests run, `replace` is refused for that
        refuse(f"was given as {name}; give", other.__post_init__)


def test_what_pages_call_by_the_packages_name_is_there_without_another_import() -> None:
    code = "import elicit; elicit.analysis.analyse, elicit.hub.push, elicit.methods.fit"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
