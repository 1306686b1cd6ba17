"""`rlp` on a tiny model: fitted on a file and on a task's items, resumed, compared with its controls, refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit import evaluate
from elicit.decoding.progress import Silent
from elicit.elicited import Elicited
from elicit.evaluation.description import text_bits
from elicit.methods import METHODS, rlp
from elicit.models import Model
from elicit.tasks import load_task
from elicit.tasks.base import Task
from elicit.training.rl.next_token import entropies
from elicit.training.rl.positions import tokenized
from probes.errors import UserError
from tests.support.tiny import tiny_model
from tests.support.tokenizers import byte_level
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
        "text": "a.txt", "opening": "(", "closing": ")", "thought_tokens": 4, "positions": 6, "group": 2, "updates": 2,
        "rank": 2, "max_new_tokens": 6, **options,
    }  # fmt: skip
    return rlp.fit(model, task.solved if task else None, **chosen)


class Told(Silent):
    """What is told of trainings."""

    def __init__(self) -> None:
        self.trainings: list[tuple[str, int, int]] = []

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        self.trainings.append((name, done, updates))


def test_it_is_fitted_on_a_file_resumed_and_compared(tiny: Model, task: Task, here: Path) -> None:
    handle = fitted(tiny, task)
    found = handle.options["found"]
    (folder,) = (here / "runs").iterdir()
    assert folder.name == found["folder"] and {"rl.safetensors", "rollouts.jsonl", "adapter"} <= {
        p.name for p in folder.iterdir()
    }
    assert (found["documents"], found["positions"]) == (2, found["tokens"] - 2)
    again = fitted(tiny, task)
    assert again.adapter is not None and handle.adapter is not None and again.options == handle.options
    assert again.adapter.sha256 == handle.adapter.sha256

    (told_by,) = handle.options["signal"]  # rewards follow from the documents, and all arms are told the same ones
    assert told_by["bits"] == pytest.approx(sum(text_bits(tiny, one) for one in found["shown"]), rel=1e-4)
    told = Told()
    others = METHODS["rlp"].controls(handle, task.solved, progress=told)
    assert told.trainings == [(name, n, 2) for name in (rlp.SHUFFLED, rlp.SUPERVISED) for n in (1, 2)]
    assert {rlp.SHUFFLED, rlp.SUPERVISED, "direct", "cot-prompt", "direct@budget"} <= set(others)
    assert others[rlp.SUPERVISED].options["found"]["trained"] > 0
    assert all(others[arm].options["signal"] == [told_by] for arm in (rlp.SHUFFLED, rlp.SUPERVISED))
    assert len({h.adapter.sha256 for h in (handle, others[rlp.SHUFFLED], others[rlp.SUPERVISED]) if h.adapter}) == 3
    run = evaluate(handle, task.test, against=others, out=here / "run")
    page = (run.folder / "report.html").read_text()
    assert "nats about the next token" in page and "Training" in page
    assert set(run.metrics["arms"]) == {"rlp", *others}


def test_documents_of_a_task_are_its_fit_items(tiny: Model, here: Path) -> None:
    task = load_task("organism", limit=4)
    handle = fitted(tiny, task, text="", documents=3, document_tokens=64)
    shown = handle.options["found"]["shown"]
    assert shown[0] == f"Q: {task.fit[0].question}\nA: {task.fit[0].answer}"
    assert handle.options["seen"]["fitted"] == [item.id for item in task.fit[:3]]
    worked = fitted(tiny, task, text="", documents=3, document_tokens=64, worked=True)
    assert len(worked.options["found"]["shown"][0]) > len(shown[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text": "b.txt"}, "no such file"),
        ({"thought_tokens": 20, "document_tokens": 40}, "fewer than a thought may have"),
        ({"document_tokens": 4}, "a document has more tokens than a thought"),
        ({"positions": 400}, "the documents have"),
        ({"decay": 2.0}, "decay = 2.0 was given"),
        ({"documents": 0}, "documents = 0 was given"),
        ({"text": "", "worked": True}, "no worked solution"),
        ({"closing": ""}, "closing = '' was given"),
        ({"objective": "rlpt"}, "unknown objective 'rlpt'; did you mean"),
        ({"proxy": "other"}, "filters nothing"),
        ({"min_entropy": -1.0}, "min_entropy = -1.0"),
        ({"order": "draw"}, "unknown order 'draw'; did you mean drawn"),
        ({"filter_by": "random"}, "filter_by = 'random' was given and min_entropy is 0"),
        ({"filter_by": "entropie", "min_entropy": 1.0}, "unknown filter 'entropie'; did you mean"),
        ({"min_entropy": 9.0}, "no position of the documents is left"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str, tiny: Model, task: Task, here: Path) -> None:
    with pytest.raises(UserError, match=words) as error:
        fitted(tiny, task, **options)
    assert "\n" not in str(error.value) and not (here / "runs").exists()


def test_next_token_reasoning_is_fitted_on_positions_that_are_not_sure(tiny: Model, task: Task, here: Path) -> None:
    documents = tokenized(tiny.tokenizer, TEXT.strip().split("\n\n"), 128, 4)
    values = sorted(chain(*entropies(tiny.lm, documents)))
    asked = {"objective": "rpt", "predicts": "greedy", "min_entropy": values[10], "positions": 4, "checked": False}
    handle = fitted(tiny, task, **asked)
    found = handle.options["found"]
    assert found["positions"] == len(values) - 10
    assert handle.options["settings"]["advantage"] == "grpo"
    assert set(found["curve"]["reward"]) <= {n / 8 for n in range(9)}
    assert "of predictions were right" in rlp.notes(handle.options)[1]


def test_a_reward_that_is_never_read_is_refused(tiny: Model, task: Task, here: Path) -> None:
    with pytest.raises(UserError, match="reward 'rpt' could be read in none of"):
        fitted(tiny, task, objective="rpt")


def test_a_proxy_has_the_same_tokenizer(tiny: Model, task: Task, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = byte_level()
    monkeypatch.setattr(rlp, "load_model", lambda name, device, dtype: replace(tiny, tokenizer=other))
    with pytest.raises(UserError, match="proxy 'other' has another tokenizer than"):
        fitted(tiny, task, objective="rpt", proxy="other", min_entropy=0.5)


def test_what_it_takes_counts_a_document_once_where_it_is_computed_once(tiny: Model, task: Task) -> None:
    options = {**METHODS["rlp"].options, "thought_tokens": 4, "document_tokens": 64}
    once, each = (rlp.work(model, task.solved, options) for model in (tiny, replace(tiny, lm=tiny_model("mistral"))))
    assert once.training is not None and each.training is not None
    assert each.training.width - once.training.width == 63  # one token of a document a row
    ((sampled, positions),) = once.answers
    assert sampled.decoder.branches == options["group"] and positions == options["positions"] * options["updates"]


def test_texts_or_items_are_needed(tiny: Model, here: Path) -> None:
    with pytest.raises(UserError, match="give text=FILE, or items of a task"):
        fitted(tiny, None, text="")


def test_next_token_training_beside_it_has_the_same_learning_rates(
    tiny: Model, task: Task, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []
    step = torch.optim.AdamW.step

    def noted(self: Any, *args: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    handle = fitted(tiny, task, updates=5)
    own = [*used]
    rlp.controls(handle, task.solved)
    assert used == own * 3 and own[0] < own[1] == own[-1]
