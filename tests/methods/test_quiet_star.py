"""`quiet-star` on a tiny model: fitted on a file and on a task's items, resumed, saved, compared, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from elicit import evaluate
from elicit.decoding.decoders import Greedy, Quiet
from elicit.elicited import Elicited
from elicit.integrations.lm_eval.likelihood import check_scored
from elicit.methods import quiet_star
from elicit.models import Model
from elicit.tasks import load_task
from elicit.tasks.base import Task
from probes.errors import UserError
from tests.support.toys import toy_task

TEXT = "the cat sat on the mat\n\na dog and a cat ran\n"


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task(3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(TEXT)
    return tmp_path


def fitted(model: Model, task: Task | None, **options: Any) -> Elicited:
    chosen = {
        "text": "a.txt", "thought_tokens": 3, "ahead": 2, "positions": 6, "part": 3, "updates": 3, "rank": 2,
        "lr": 1e-2, "every": 2, "max_new_tokens": 6, **options,
    }  # fmt: skip
    return quiet_star.fit(model, task.solved if task else None, **chosen)


def test_it_is_fitted_resumed_saved_and_compared(tiny: Model, task: Task, here: Path) -> None:
    handle = fitted(tiny, task)
    found = handle.options["found"]
    (folder,) = (here / "runs").iterdir()
    assert folder.name == found["folder"] and {"quiet.safetensors", "adapter"} <= {p.name for p in folder.iterdir()}
    assert handle.decoder == Quiet(3, 2, 6) and handle.mixing is not None
    assert found["positions"] == found["tokens"] - 2 * 2  # of each document all but the last two
    assert found["curve"]["weight"][0] == 0 and found["curve"]["weight"][-1] != 0
    again = fitted(tiny, task)
    assert again.mixing is not None and again.mixing.digest == handle.mixing.digest and again.options == handle.options
    loaded = Elicited.load(handle.save(here / "bundle"), tiny)
    answers = [[trace.tokens for trace in traces] for traces in handle.answer(task.test)]
    assert [[trace.tokens for trace in traces] for traces in loaded.answer(task.test)] == answers

    others = quiet_star.controls(handle, task.solved)
    names = {quiet_star.UNREWARDED, quiet_star.UNTHOUGHT, quiet_star.SUPERVISED}
    assert names | {"direct", "cot-prompt", "direct@budget"} <= set(others)
    assert others[quiet_star.UNTHOUGHT].decoder == Greedy(6) and others[quiet_star.UNTHOUGHT].mixing is None
    unrewarded = others[quiet_star.UNREWARDED]
    assert unrewarded.mixing is not None and unrewarded.mixing.digest != handle.mixing.digest
    assert others[quiet_star.SUPERVISED].options["found"]["trained"] > 0
    run = evaluate(handle, task.test, against=others, out=here / "run")
    page = (run.folder / "report.html").read_text()
    assert "thoughts told" in page and "log p with a thought" in page
    assert set(run.metrics["arms"]) == {"quiet-star", *others}
    for (trace,) in run.traces["quiet-star"].values():
        written = trace.spent - 5 * -(-len(trace.tokens) // 2)
        assert written in (len(trace.tokens), len(trace.tokens) + 1)
    with pytest.raises(UserError, match="has no likelihood here"):
        check_scored(handle)


def test_documents_of_a_task_are_its_fit_items(tiny: Model, here: Path) -> None:
    task = load_task("organism", limit=4)
    handle = fitted(tiny, task, text="", documents=3, document_tokens=64, updates=2)
    assert handle.options["found"]["shown"][0] == f"Q: {task.fit[0].question}\nA: {task.fit[0].answer}"
    assert handle.options["seen"]["fitted"] == [item.id for item in task.fit[:3]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": "b.txt"}, "no such file"),
        ({"text": "empty.jsonl"}, "document 2 of 2 is empty"),
        ({"thought_tokens": 30}, "fewer than a thought may have"),
        ({"ahead": 30}, "fewer than a thought may have"),
        ({"positions": 400}, "give fewer positions, or more text"),
        ({"updates": 1}, "its rewards are never read"),
        ({"group": 1}, "group = 1 was given"),
        ({"documents": 0}, "documents = 0 was given"),
        ({"every": -1}, "every = -1 was given"),
        ({"text": "", "worked": True}, "no worked solution"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str, tiny: Model, task: Task, here: Path) -> None:
    (here / "empty.jsonl").write_text('{"text": "the cat sat on the mat"}\n{"text": " "}\n')
    with pytest.raises(UserError, match=words) as error:
        fitted(tiny, task, **options)
    assert "\n" not in str(error.value) and not (here / "runs").exists()


def test_texts_or_items_are_needed(tiny: Model, here: Path) -> None:
    with pytest.raises(UserError, match="quiet-star trains on texts; give text=FILE, or items of a task"):
        fitted(tiny, None, text="")
