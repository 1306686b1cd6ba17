"""A run knows what its samples and verdicts rest on; older runs are read, and are nobody's own result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import elicit
from elicit.elicited import Elicited
from elicit.evaluation.run import Store
from elicit.evaluation.run.store import METRICS, SAMPLES
from elicit.methods.compare import SharedOptions, run_together
from elicit.methods.one_shot_rlvr import _folder
from elicit.models import Model, Prompt, load_model
from elicit.models.identity import SCHEMA, grounds
from elicit.tasks import grading, load_task
from elicit.tasks.base import Task
from elicit.training.rl.loop import identity
from elicit.training.rl.settings import Settings
from experiments.claims.base import claims, study_of
from probes.errors import UserError
from tests.support.shell import shell
from tests.support.unsealed import unsealed

OLDER = Path(__file__).parent / "older_run"
GOLD = ("9999", "8888", "7777")


def task_file(folder: Path, gold: Mapping[str, Any] | None = None, **more: Any) -> Path:
    """Three questions with wrong answers, or these; `more` goes into each line."""
    file = folder / "q.jsonl"
    with file.open("w") as opened:
        for split in ("test", "fit", "dev"):
            for n, answer in enumerate(GOLD):
                name = f"{split}-{'abc'[n]}"
                line = {"id": name, "question": f"What is {n} + {n}?", "answer": (gold or {}).get(name, answer)}
                opened.write(json.dumps({**line, "split": split, **more}) + "\n")
    return file


@pytest.fixture
def model(tiny_folder: Path) -> Model:
    """A model of its own, whose tokenizer a test may change."""
    return load_model(str(tiny_folder), dtype="float32")


def direct(model: Model, prompt: str = "qa") -> Elicited:
    return elicit.methods.direct.fit(model, max_new_tokens=4, prompt=prompt)


def run(handle: Elicited, task: Task, out: Path | None = None) -> elicit.Run:
    return elicit.evaluate(handle, task.test, against=(), out=out)


def changed(tmp_path: Path, what: str, model: Model) -> tuple[Task, Model]:
    """The task with one thing changed that decides verdicts or samples, or the model with another tokenizer."""
    tokenizer = model.tokenizer
    if what == "gold":
        return load_task(str(task_file(tmp_path, {"test-b": "1234"}))), model
    if what == "kind":
        return load_task(f"{task_file(tmp_path)}:kind=text"), model
    if what == "metadata":
        return load_task(str(task_file(tmp_path, target=3, numbers=[1, 2]))), model
    if what == "template":
        tokenizer.chat_template = "{{ messages[0]['content'] }} Think."
    if what == "ends":
        assert model.lm.generation_config is not None
        model.lm.generation_config.eos_token_id = [0, 5]
    if what == "tokenizer":
        from tokenizers.normalizers import Lowercase

        tokenizer.backend_tokenizer.normalizer = Lowercase()  # type: ignore[attr-defined]
    return load_task(str(task_file(tmp_path))), model


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("gold", "items"), ("kind", "items"), ("metadata", "items"), ("template", "tokenizer"), ("ends", "ends"),
        ("tokenizer", "tokenizer"),
    ],
)  # fmt: skip
def test_what_is_changed_is_never_answered_from_another_run(
    what: str, named: str, finished: bool, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    task = load_task(str(task_file(tmp_path)))
    prompt = "chat" if what == "template" else "qa"
    first = run(direct(model, prompt), task)
    if not finished:
        (first.folder / METRICS).unlink()
        lines = (first.folder / SAMPLES).read_bytes().splitlines(keepends=True)
        (first.folder / SAMPLES).write_bytes(b"".join(lines[:1]))
    before = (first.folder / SAMPLES).read_bytes()
    task, model = changed(tmp_path, what, model)
    with pytest.raises(UserError, match=f"other {named}.*give another --out"):
        run(direct(model, prompt), task, first.folder)
    again = run(direct(model, prompt), task)
    assert again.folder != first.folder and (first.folder / SAMPLES).read_bytes() == before
    assert [item.answer for item in again.items] == [item.answer for item in task.test]
    assert run(direct(model, prompt), task).folder == again.folder  # the same once more


def test_a_corrected_answer_is_graded(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    handle = direct(model)
    first = run(handle, load_task(f"{task_file(tmp_path)}:kind=text"))
    said = {item: traces[0].text.strip().splitlines()[0] for item, traces in first.traces["direct"].items()}
    assert first.metrics["arms"]["direct"]["accuracy"] == 0
    answers = {item: trace[0].answer or said[item] for item, trace in first.traces["direct"].items()}
    again = run(handle, load_task(f"{task_file(tmp_path, answers)}:kind=text"))
    right = {item for item, traces in again.traces["direct"].items() if traces[0].answer is not None}
    scores = again.metrics["arms"]["direct"]["scores"]
    assert right and {item for item, score in scores.items() if score == 1} == right


def test_a_grader_of_another_version_is_another_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = load_task(str(task_file(tmp_path)))
    math = load_task(f"{task_file(tmp_path)}:kind=math")
    made = load_task("chain-sum:min_terms=2", limit=1)
    other = load_task("chain-sum:min_terms=3", limit=1)
    found = [json.dumps(grading.identity_of(task.grader)) for task in (number, math, made, other)]
    assert len(set(found)) == 4 and "math-verify" in found[1] and "reasoning-gym" in found[2]
    assert "reasoning-gym" not in found[0]
    before = [grounds(task.test, [])["grader"] for task in (number, math, made)]
    monkeypatch.setattr(grading, "VERSION", grading.VERSION + "x")
    assert all(grounds(t.test, [])["grader"] != b for t, b in zip((number, math, made), before, strict=True))
    monkeypatch.undo()
    monkeypatch.setattr(grading, "version", lambda name: "0")
    assert [grounds(t.test, [])["grader"] == b for t, b in zip((number, math, made), before, strict=True)] == [
        True, False, False,
    ]  # fmt: skip


def test_a_call_of_the_tokenizer_does_not_change_its_hash(model: Model) -> None:
    before = model.encoding_sha256
    model.tokenizer(["a", "abc"], padding=True, truncation=True, max_length=2)
    assert model.encoding_sha256 == before


def test_another_template_or_normaliser_changes_its_hash_and_back(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import normalizers

    before = model.encoding_sha256
    with monkeypatch.context() as changed:
        changed.setattr(model.tokenizer, "chat_template", "{{ messages[0]['content'] }}")
        assert model.encoding_sha256 != before
    backend = model.tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    with monkeypatch.context() as changed:
        changed.setattr(backend, "normalizer", normalizers.Lowercase())
        assert model.encoding_sha256 != before
    assert model.encoding_sha256 == before


def test_a_comparison_is_of_its_gold_answers(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared = SharedOptions(max_new_tokens=4)

    def compared(task: Task, out: Path | None = None) -> Path:
        return run_together(model, task.test, ["direct"], shared, out=out).folder

    first = compared(load_task(str(task_file(tmp_path))))
    for name, named in (("test-a", "items, task_items"), ("fit-a", "task_items")):  # it is learned from the fit items
        task = load_task(str(task_file(tmp_path, {name: "1"})))
        with pytest.raises(UserError, match=f"another {named}; give another --out"):
            compared(task, first)
        assert compared(task) != first
    plan = json.loads((first / "plan.json").read_text())
    del plan["schema"]
    (first / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match="comparison of an older version"):
        compared(load_task(str(task_file(tmp_path))), first)


def test_claims_find_no_run_of_other_answers(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = set()
    for gold in ({}, {"test-a": "1"}):
        settings = {"model": str(model.name), "task": str(task_file(tmp_path, gold)), "limit": 3, "max_new_tokens": 4}
        study = study_of(next(iter(claims().values())), quick=True)
        study = replace(study, settings={**study.settings, **settings, "dtype": "float32"})
        folders |= {one.folder.resolve() for one in study.compared(["direct"]).values()}
        folders.add(study.evaluated(direct(model), {}, "alone").folder.resolve())
    assert len(folders) == 4


def test_a_fit_is_of_its_gold_answers(model: Model, tmp_path: Path) -> None:
    settings, asked = Settings(), {"example": "", "examples": 1, "pool": 2, "check": 0}

    def kept(task: Task) -> list[Any]:
        found = identity(model, task.fit, settings, Prompt())
        return [_folder(model, task.fit, settings, asked, "qa"), found["items"], found["ends"], found["tokenizer"]]

    first = kept(load_task(str(task_file(tmp_path))))
    gold = kept(load_task(str(task_file(tmp_path, {"fit-a": "1"}))))
    assert gold[:2] != first[:2] and gold[0] != first[0] and gold[2:] == first[2:]
    model.tokenizer.chat_template = "x"
    template = kept(load_task(str(task_file(tmp_path))))
    assert template[0] != first[0] and template[3] != first[3]


def test_critiques_are_of_their_gold_answers(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"source": "model", "problems": 1, "candidates": 1, "max_new_tokens": 4, "steps": 1}
    for gold, folders in (({}, 1), ({}, 1), ({"fit-a": "1"}, 2)):
        task = load_task(str(task_file(tmp_path, gold)))
        with pytest.raises(UserError, match="no usable row"):  # a model of noise criticises nothing
            elicit.methods.critique_ft.fit(model, task.fit, **asked)
        assert len(list(tmp_path.glob("runs/critique-ft-*"))) == folders


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A finished run as version 0.1.0 left it, before runs knew their gold answers."""
    return Path(shutil.copytree(OLDER, tmp_path / "older"))


def test_an_older_run_opens(older: Path, tmp_path: Path) -> None:
    loaded = elicit.Run.load(older)
    assert loaded.store.config["schema"] == 1 and len(loaded.items) == 3 and loaded.traces
    for command in (
        ["report", str(older), "--analyses", "reflection", "--out", str(tmp_path / "page.html")],
        ["compare", str(older), "--out", str(tmp_path / "compared")],
        ["analyse", "reflection", str(older), "--out", str(tmp_path / "analysed")],
    ):
        code, _, err = shell(*command)
        assert code == 0, err


def test_an_older_run_stands_beside_a_new_one(model: Model, older: Path, tmp_path: Path) -> None:
    kept = elicit.Run.load(older).items
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps({**vars(item), "metadata": None}) + "\n" for item in kept))
    handle = elicit.methods.direct.fit(model, max_new_tokens=6)
    new = elicit.evaluate(handle, load_task(str(file)).test, against=(), out=tmp_path / "new")
    for path in (older, new.folder):  # runs of one model
        metrics = json.loads((unsealed(path) / METRICS).read_text())
        metrics["model"] |= {"sha256": "0" * 64, "name": "tiny"}
        (path / METRICS).write_text(json.dumps(metrics))
    code, _, err = shell("compare", str(older), str(new.folder), "--out", str(tmp_path / "compared"))
    assert code == 0, err
    rows = json.loads((tmp_path / "compared" / "comparison.json").read_text())["arms"]
    assert [row["key"] for row in rows] == ["direct", "direct", "cot-decoding"]
    lines = [json.loads(line) for line in (new.folder / "items.jsonl").read_text().splitlines()]
    lines[1]["answer"] = "1"
    (new.folder / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, err = shell("compare", str(older), str(new.folder))
    assert code == 2 and "has another gold answer" in err and err.count("\n") == 1


@pytest.mark.parametrize("finished", [True, False])
def test_an_older_run_is_no_commands_own(finished: bool, model: Model, tmp_path: Path) -> None:
    """As the older version would have left it: its identity has none of what was added."""
    task = load_task(str(task_file(tmp_path)))
    made = run(direct(model), task, tmp_path / "run")
    config = made.store.config
    identity = {key: config["identity"][key] for key in ("method", "model", "dtype", "task", "items", "arms", "seed")}
    (made.folder / "config.toml").write_text(tomli_w.dumps({**config, "schema": 1, "identity": identity}))
    if not finished:
        (made.folder / METRICS).unlink()
    before = (made.folder / SAMPLES).read_bytes()
    with pytest.raises(UserError, match=r"a run of an older version.*give another --out, or --fresh") as error:
        run(direct(model), task, made.folder)
    assert "\n" not in str(error.value) and (made.folder / SAMPLES).read_bytes() == before
    again = elicit.evaluate(direct(model), task.test, against=(), out=made.folder, fresh=True)
    assert Store.read(again.folder).config["schema"] == SCHEMA


def test_a_16_bit_run_on_a_cpu_that_was_prefilled_otherwise_is_another(tiny_folder: Path, tmp_path: Path) -> None:
    """It would go on with other rounding than it began with; in float32 it goes on."""
    task = load_task(str(task_file(tmp_path)))
    for dtype in ("bfloat16", "float32"):
        handle = direct(load_model(str(tiny_folder), dtype=dtype))
        begun = run(handle, task, tmp_path / dtype).store
        config = {**begun.config, "identity": {k: v for k, v in begun.config["identity"].items() if k != "prefill"}}
        (begun.folder / "config.toml").write_text(tomli_w.dumps(config))
        (begun.folder / METRICS).unlink()
        if dtype == "float32":
            assert run(handle, task, begun.folder).folder == begun.folder
            continue
        with pytest.raises(UserError, match="another prefill; give another --out, or --fresh"):
            run(handle, task, begun.folder)
