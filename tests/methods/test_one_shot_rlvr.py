"""`one-shot-rlvr` on a tiny model: fitted, resumed, compared with its controls, its gain taken apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elicit import evaluate
from elicit.decoding.progress import Silent
from elicit.elicited import Elicited
from elicit.methods import MECHANISMS, METHODS, one_shot_rlvr
from elicit.methods.one_shot_rlvr.decomposition import COMPONENTS, decompose, decompose_completions, without_signal
from elicit.models import Model
from elicit.tasks import load_task
from elicit.tasks.base import Task
from experiments.claims.one_example import own_answers
from probes.errors import UserError
from tests.support.toys import toy_task
from tests.support.written import written_run


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task(6)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fitted(model: Model, task: Task, progress: Any = None, **options: Any) -> Elicited:
    chosen = {
        "reward": "exact+random:0.5", "updates": 2, "rollouts": 8, "group": 4, "rollout_tokens": 6, "rank": 2,
        "pool": 3, "max_new_tokens": 6, "check_every": 1, "check": 3, **options,
    }  # fmt: skip
    return one_shot_rlvr.fit(model, task.solved, progress, **chosen)


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[tuple[str, int, int, str]] = []

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        self.said.append((name, done, updates, note))


def test_it_is_fitted_resumed_and_compared(tiny: Model, task: Task, here: Path) -> None:
    heard = Heard()
    handle = fitted(tiny, task, heard)
    assert [(name, done, of) for name, done, of, _ in heard.said] == [("one-shot-rlvr", 1, 2), ("one-shot-rlvr", 2, 2)]
    assert "reward" in heard.said[0][3] and "tokens/s" in heard.said[0][3]
    assert handle.adapter is not None and len(handle.options["found"]["examples"]) == 1
    (folder,) = (here / "runs").iterdir()
    assert folder.name == handle.options["found"]["folder"]
    assert {"rl.safetensors", "rollouts.jsonl", "selection.json", "adapter"} <= {p.name for p in folder.iterdir()}

    again = fitted(tiny, task, heard)
    assert len(heard.said) == 2  # nothing was left to train
    assert again.adapter is not None and again.adapter.sha256 == handle.adapter.sha256
    assert again.options == handle.options

    others = one_shot_rlvr.controls(handle, task.solved)
    plain = {"direct", "cot-prompt", "direct@budget", "cot-prompt@budget"}
    assert set(others) == plain | set(one_shot_rlvr.SPURIOUS)
    for name, instead in one_shot_rlvr.SPURIOUS.items():
        control = others[name].options
        assert control["found"]["examples"] == handle.options["found"]["examples"]
        assert {k: v for k, v in control["settings"].items() if k not in instead} == {
            k: v for k, v in handle.options["settings"].items() if k not in instead
        }
        assert {k: control["settings"][k] for k in instead} == instead

    run = evaluate(handle, task.test, against=others, out=here / "run")
    assert set(run.metrics["arms"]) == {"one-shot-rlvr", *others}
    page = (run.folder / "report.html").read_text()
    assert "Training" in page and "Where the gain comes from" in page and "The pool, by working" in page
    found = decompose(run)
    # A tiny model writes no equation, so that the format arm was taught no format.
    assert set(without_signal(run)) == {"format"} == {*COMPONENTS} - set(found)
    assert "The part of format is left out: its reward was the same for all answers" in page
    assert sum(found[n].value for n in COMPONENTS[1:] if n in found) == pytest.approx(found["gain"].value)
    arms = run.metrics["arms"]
    assert found["gain"].value == pytest.approx(arms["one-shot-rlvr"]["accuracy"] - arms["direct"]["accuracy"])
    sampled = {
        name: [run.traces[arm][item.id][0].text for item in task.test]
        for name, arm in {"trained": "one-shot-rlvr", "direct": "direct", "entropy only": "entropy only"}.items()
    }
    (answer,) = set(handle.options["found"]["answers"])
    golds = [item.answer or "" for item in task.test]
    assert decompose_completions(sampled, golds, answer, kind=task.kind) == found
    loaded = Elicited.load(run.folder / "elicited", tiny)
    assert loaded.adapter is not None and loaded.adapter.sha256 == handle.adapter.sha256

    assert "seen" not in run.metrics
    trained_on = evaluate(handle, task.fit, against="direct", out=here / "fit")
    assert trained_on.metrics["seen"] == {"one-shot-rlvr": {"fitted": 1, "chosen": 0}}
    told = f"Of these {len(task.fit)} items one-shot-rlvr was fitted on 1: its accuracy on them is no test."
    assert told in (trained_on.folder / "report.html").read_text()
    plain = evaluate(handle, task.test, against="direct", out=here / "plain")
    with pytest.raises(UserError, match="run one-shot-rlvr with --controls"):
        decompose(plain)
    assert "Where the gain comes from" not in (plain.folder / "report.html").read_text()
    (run.folder / "items.jsonl").unlink()
    assert "kept no questions" in "".join(one_shot_rlvr.findings(run))


def test_the_parts_of_a_gain_from_completions() -> None:
    said = {
        "trained": ["It is 4.", "It is 9.", "It is 7.", "It is 7."],
        "direct": ["It is 5.", "Well.", "It is 7.", "It is 1."],
        "format reward": ["It is 4.", "Well.", "It is 7.", "It is 1."],
    }
    golds = ["4", "9", "7", "7"]
    found = decompose_completions(said, golds, "7.0", kind="number")
    values = {name: part.value for name, part in found.items()}
    # Three questions are gained: one by the format alone, one is the example's own answer, one remains.
    assert values == {"gain": 0.75, "format": 0.25, "answer copying": 0.25, "remainder": 0.25, "copied": 0.5}
    for broken, words in (
        ({"trained": said["trained"]}, "arms trained were given; give trained and direct"),
        (said | {"chance": said["direct"]}, "arms trained, direct, format reward, chance were given"),
        (said | {"direct": ["It is 5."]}, "1 completions of direct were given for 4 gold answers"),
    ):
        with pytest.raises(UserError, match=words):
            decompose_completions(broken, golds, "7", kind="number")


def test_an_answer_is_copied_however_it_is_written(tiny: Model, tmp_path: Path) -> None:
    said, golds = ["1,234", "1234.0", "1234", "7", "Well."], ["9", "5", "1234", "7", "8"]
    lines = [{"id": n, "question": f"How many {n}?", "answer": gold, "split": "test"} for n, gold in enumerate(golds)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, lines)))
    asked = load_task(str(tmp_path / "sums.jsonl")).test
    others = dict.fromkeys(("direct", "format reward", "entropy only"), lambda item, b: "Well.")
    arms = {"one-shot-rlvr": lambda item, b: f"it is {said[int(item.id)]}", **others}
    run = written_run(tiny, tmp_path / "run", asked, "one-shot-rlvr", arms)
    run.metrics["options"] = {"found": {"answers": ["1234"]}}
    made = run.store.config["arms"]
    made["format reward"]["options"] = {"found": {"summary": {"groups without variance": 0.0}}}
    made["entropy only"]["options"] = {"settings": {"entropy": 0.001}}
    assert own_answers(run).tolist() == [True, True, True, False, False]
    texts = {"trained": [f"The answer is {one}" for one in said], **{name: ["Well."] * 5 for name in others}}
    assert decompose(run) == decompose_completions(texts, golds, "1234", kind="number")
    assert decompose(run)["copied"].value == 0.6


def test_the_format_is_that_of_the_task(tiny: Model, task: Task, here: Path) -> None:
    boxed = replace(task, kind="math")
    handle = fitted(tiny, boxed, check_every=0)
    assert one_shot_rlvr.controls(handle, boxed.solved)["format reward"].options["settings"]["reward"] == "format:boxed"


def test_an_example_by_name(tiny: Model, task: Task, here: Path) -> None:
    handle = fitted(tiny, task, example="fit-2", check_every=0)
    assert handle.options["found"]["examples"] == ["fit-2"] and handle.options["found"]["pool"] == []


@pytest.mark.parametrize(("options", "words"), [
    ({"example": "fit-99"}, "unknown example .* 'fit-99'; did you mean"),
    ({"rank": -1}, "rank = -1 was given"),
    ({"reward": "boxed"}, "could be read in none"),
    ({"reward": "exat"}, "did you mean exact"),
    ({"select": "best"}, "unknown way to select"),
    ({"examples": 7}, "7 examples were asked for"),
    ({"examples": -1}, "examples = -1 was given to one-shot-rlvr; give 1 or more"),
    ({"pool": 0}, "pool = 0 was given"),
    ({"check": -1}, "check = -1 was given"),
])  # fmt: skip
def test_what_is_refused(tiny: Model, task: Task, here: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fitted(tiny, task, **options)


def test_it_is_a_method_that_has_to_be_asked_for(tiny: Model, here: Path) -> None:
    assert one_shot_rlvr.NAME in METHODS and one_shot_rlvr.NAME in MECHANISMS
    assert one_shot_rlvr.missing("smollm2-135m") and not one_shot_rlvr.missing("smollm2-135m-latent")
    with pytest.raises(UserError, match="give items"):
        one_shot_rlvr.fit(tiny, None)
    other = Elicited(tiny, "direct")
    with pytest.raises(UserError, match=r"give one that one-shot-rlvr\.fit made"):
        one_shot_rlvr.controls(other, None)


def test_the_example_of_the_paper_is_an_example_of_any_task_of_numbers(tiny: Model, task: Task, here: Path) -> None:
    handle = fitted(tiny, task, example="pi1", check_every=0, checked=False)
    found = handle.options["found"]
    assert found["examples"] == ["pi1"] and found["answers"] == ["12.8"]
    countdown = load_task("countdown", limit=8)
    with pytest.raises(UserError, match=r"unknown example .* 'pi1'"):  # its grader cannot judge it
        fitted(tiny, countdown, example="pi1")


def test_ids_may_hold_commas(tiny: Model, task: Task, here: Path) -> None:
    """Of ids that are joined by commas the longest that is known is meant."""
    renamed = tuple(replace(item, id=f"sums, {item.id}") for item in task.items)
    named = replace(task, items=(*renamed, replace(task.items[0], id="sums")))
    handle = fitted(tiny, named, select="first", checked=False, updates=1, examples=2)
    assert handle.options["found"]["examples"] == [item.id for item in renamed[:2]]
    others = one_shot_rlvr.controls(handle, named.solved)
    kept = [others[name].options["found"]["examples"] for name in one_shot_rlvr.SPURIOUS]
    assert kept == [handle.options["found"]["examples"]] * len(one_shot_rlvr.SPURIOUS)
    both = fitted(tiny, named, example=f"sums ,{renamed[1].id}", checked=False, updates=1)
    assert both.options["found"]["examples"] == ["sums", renamed[1].id]
