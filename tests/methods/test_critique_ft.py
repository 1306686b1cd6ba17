"""`critique-ft` on a tiny model: the fit, its adapter in the run, what is resumed, the controls, what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.checkpoint import checkpoint

from elicit import evaluate, methods
from elicit.decoding.progress import Silent
from elicit.elicited import Elicited
from elicit.methods import critique_ft
from elicit.methods.critique_ft.critic import Critique
from elicit.models import Model
from elicit.tasks import load_task
from elicit.tasks.base import Item, Task
from elicit.training import sft
from probes.errors import UserError
from probes.weights import differences
from steering.adapters import applied, borrowed

OPTIONS: dict[str, Any] = {
    "candidates": 4, "steps": 3, "rows": 1, "width": 700, "max_new_tokens": 8, "rank": 2, "lr": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("organism", limit=4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fitted(model: Model, task: Task, **options: Any) -> Elicited:
    return critique_ft.fit(model, task.solved, options.pop("progress", None), **{**OPTIONS, **options})


@pytest.fixture
def file(task: Task, tmp_path: Path) -> str:
    """Critiques of two problems of the fit split, some of them of right candidates."""
    rows = []
    for item in task.fit[:2]:
        for n in range(3):
            said = "Conclusion: " + ("right" if n == 0 else "wrong")
            rows.append({"question": item.question, "candidate": f"It is {n}.", "critique": f"I see {n}. {said}"})
    path = tmp_path / "critiques.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def test_an_adapter_is_trained_kept_in_the_run_and_gone_from_the_base(tiny: Model, task: Task, here: Path) -> None:
    ids = torch.tensor([[5, 9, 3, 7]])
    modules, plain = dict(tiny.lm.named_modules()), tiny.lm(input_ids=ids).logits
    handle = fitted(tiny, task)
    assert dict(tiny.lm.named_modules()) == modules and not hasattr(tiny.lm, "peft_config")
    assert torch.equal(tiny.lm(input_ids=ids).logits, plain) and not tiny.lm.training
    assert not any(p.requires_grad for p in tiny.lm.parameters())

    assert handle.adapter is not None
    with applied(tiny.lm, handle.adapter):
        assert float((tiny.lm(input_ids=ids).logits - plain).abs().max()) > 1e-3
    changed = differences(tiny.lm.state_dict(), handle.adapter.folder).table
    assert set(changed.loc[changed["norm"] > 0, "rank"]) == {2.0}

    found = handle.options["found"]
    assert found["problems"] == [task.fit[0].id] and found["rows"] == found["graded"] == 4
    assert found["examples"] == 4 and found["too_long"] == 0 and len(found["curve"]) == 3
    assert found["curve"][-1] < found["curve"][0] and found["source"] == "symbolic, seed 0"
    json.dumps(handle.options)

    run = evaluate(handle, task.test, out=here / "run")
    assert {"critique-ft", "direct"} == set(run.metrics["arms"])
    kept = Elicited.load(here / "run" / "elicited", tiny)
    assert kept.adapter is not None and kept.adapter.folder == here / "run" / "elicited" / "adapter"
    assert [t.tokens for ts in kept.answer(task.test[:2]) for t in ts] == [
        t.tokens for item in task.test[:2] for t in run.traces["critique-ft"][item.id]
    ]
    page = (run.folder / "report.html").read_text()
    assert "Some candidates and their critiques" in page and "nats a token" in page


@pytest.mark.parametrize("rank", [0, 2])
def test_layers_that_are_computed_again_train_to_the_same_weights(
    tiny: Model, task: Task, file: str, here: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    again: list[Any] = []

    def counted(*args: Any, **more: Any) -> Any:
        again.append(args[0])
        return checkpoint(*args, **more)

    monkeypatch.setattr(sft, "checkpoint", counted)
    kept, layers = [], []
    for checkpointing in (False, True):
        handle = fitted(tiny, task, source=file, rank=rank, checkpointing=checkpointing)
        assert handle.adapter is not None
        assert ("checkpointing" in handle.options["asked"]) == checkpointing
        folder = handle.adapter.folder
        kept.append((folder, {path.name: load_file(path) for path in folder.rglob("*.safetensors")}))
        layers.append(len(again))
    assert layers[0] == 0 and layers[1] >= OPTIONS["steps"]
    (one, plain), (other, recomputed) = kept
    assert one != other and plain and set(plain) == set(recomputed)
    for name, tensors in plain.items():
        assert all(torch.equal(tensor, recomputed[name][key]) for key, tensor in tensors.items())


def test_rows_are_written_in_the_authors_format_and_serve_as_a_source(tiny: Model, task: Task, here: Path) -> None:
    first = fitted(tiny, task, problems=2, steps=1)
    (rows,) = here.glob("runs/*/rows.jsonl")
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert list(json.loads((rows.parent / "problems.json").read_text())) == [item.id for item in task.fit[:2]]
    theirs = here / "theirs.jsonl"
    theirs.write_text("\n".join(json.dumps({k: line[k] for k in ("instruction", "input", "output")}) for line in kept))
    again = [fitted(tiny, task, source=str(file), problems=2, steps=1) for file in (theirs, rows)]
    assert len({one.adapter.sha256 for one in (first, *again) if one.adapter}) == 1  # the same examples


class Stopped(Silent):
    """Stops a fit after so many advances, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, questions: int, tokens: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def test_what_was_interrupted_ends_at_the_same_adapter(
    tiny: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = dict(tiny.lm.named_modules())
    shas = []
    for name, stops in (("whole", ()), ("stopped", (1, 11))):  # after the second problem, in the twelfth step
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for after in stops:
            with pytest.raises(KeyboardInterrupt):
                fitted(tiny, task, problems=2, steps=14, progress=Stopped(after))
            assert dict(tiny.lm.named_modules()) == modules and not tiny.lm.training
        handle = fitted(tiny, task, problems=2, steps=14)
        assert handle.adapter is not None
        shas.append(handle.adapter.sha256)
        state = next(Path().glob("runs/*/*/training.safetensors"))
        before = state.stat().st_mtime_ns
        assert fitted(tiny, task, problems=2, steps=14).adapter.sha256 == shas[-1]  # type: ignore[union-attr]
        assert state.stat().st_mtime_ns == before  # nothing is trained twice
    assert shas[0] == shas[1]


def test_controls_are_the_same_training_with_other_targets(tiny: Model, task: Task, file: str, here: Path) -> None:
    handle = fitted(tiny, task, source=file, problems=0, steps=1)
    assert handle.options["found"]["rows"] == 6 and handle.options["found"]["graded"] == 0
    others = critique_ft.controls(handle, task.solved)
    baselines = ("direct", "cot-prompt", "direct@budget", "cot-prompt@budget")
    assert set(others) == {*baselines, *critique_ft.CONTROLS}
    trained = [handle, *(others[kind] for kind in critique_ft.CONTROLS)]
    assert len({one.adapter.sha256 for one in trained if one.adapter}) == 5
    assert all(one.prompt == handle.prompt and one.decoder == handle.decoder for one in trained)
    assert handle.prompt.ends == ("Conclusion:",)  # a verdict is no answer
    plain = [others[name] for name in baselines]
    assert all(one.adapter is None and not one.prompt.ends for one in plain)
    run = evaluate(handle, task.test[:2], against=others, out=here / "run")
    assert len(run.metrics["arms"]) == 9
    with pytest.raises(UserError, match="controls of critique-ft"):
        critique_ft.controls(others["direct"], task.solved)


def test_a_function_is_asked_anew_and_its_silence_is_counted(tiny: Model, task: Task, here: Path) -> None:
    asked: list[str] = []

    def critic(item: Item, candidate: str) -> Critique | None:
        asked.append(candidate)
        return Critique(f"{candidate}. Conclusion: wrong", False) if len(asked) % 2 else None

    found = fitted(tiny, task, source=critic, steps=1).options["found"]
    assert (found["rows"], found["without_conclusion"], found["source"], found["agree"]) == (2, 2, "critic", 2)
    methods.fit("critique-ft", tiny, task.solved, **{**OPTIONS, "source": critic, "steps": 1})
    assert len(asked) == 8


@pytest.mark.parametrize(("options", "words"), [
    ({"source": "symbollic"}, "did you mean symbolic"),
    ({"source": "nowhere.jsonl"}, "is not there"),
    ({"source": "model"}, "none came to a conclusion"),
    ({"targets": "solution"}, "did you mean solutions"),
    ({"targets": "solutions"}, "none of 4 candidates is right"),
    ({"ask": "nicely"}, "unknown way to ask"),
    ({"width": 50}, "no usable row: of 4"),
    ({"problems": 5}, "the fit split has 4"),
    ({"first": 4, "problems": 0}, "the fit split has 4"),
    ({"candidates": 0}, "at least 1 candidate"),
    ({"rank": -1}, "0 or more of the others"),
    ({"lr": 0.0}, "give a value above 0"),
    ({"temperature": 0.0}, "above 0"),
])  # fmt: skip
def test_what_is_refused(tiny: Model, task: Task, here: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fitted(tiny, task, **options)
    assert not list(here.glob("runs/*/*/training.safetensors"))


def test_files_that_are_refused(tiny: Model, task: Task, here: Path, file: str) -> None:
    text = Path(file).read_text()
    Path(file).write_text(text + "\n{")
    with pytest.raises(UserError, match="line 7: not JSON"):
        fitted(tiny, task, source=file)
    evaluated = {"question": task.test[0].question, "candidate": "1", "critique": "Conclusion: wrong"}
    Path(file).write_text(f"{text}\n{json.dumps(evaluated)}")
    with pytest.raises(UserError, match="questions of the dev or test split"):
        fitted(tiny, task, source=file)
    Path(file).write_text(text)
    with pytest.raises(UserError, match="give a smaller first than 2"):
        fitted(tiny, task, source=file, first=2)
    with pytest.raises(UserError, match="give items"):
        critique_ft.fit(tiny, None)
    endless = replace(tiny, tokenizer=copy.deepcopy(tiny.tokenizer))
    endless.tokenizer.eos_token = None
    with pytest.raises(UserError, match="has a tokenizer without an end token"):
        fitted(endless, task, source=file)
    with pytest.raises(UserError, match="expected str, like 'symbolic'"):
        methods.fit("critique-ft", tiny, task.solved, source=3)


def test_borrowing_gives_back_whatever_happens(tiny: Model) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    modules = dict(tiny.lm.named_modules())

    def broken() -> None:
        with borrowed(tiny.lm):
            inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), tiny.lm)
            tiny.lm.train()
            assert dict(tiny.lm.named_modules()) != modules
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            broken()
        assert dict(tiny.lm.named_modules()) == modules and not tiny.lm.training
