"""The saved steps of a training, evaluated on the same items: a table of scores, the curve, what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import elicit
from elicit import evaluate, load_model
from elicit.analysis import analyse, load, save
from elicit.analysis.behaviour.saved_steps import _after, _reward_at, _rewards
from elicit.evaluation.run.run import Run
from elicit.methods import one_shot_rlvr
from elicit.training.rl.curve import Point, columns
from elicit.training.saved import saved_steps
from probes.errors import UserError
from tests.support.toys import toy_task

OPTIONS: dict[str, Any] = {
    "reward": "exact+random:0.5", "updates": 4, "rollouts": 8, "group": 4, "rollout_tokens": 6, "rank": 2, "lr": 5e-2,
    "pool": 3, "max_new_tokens": 6, "checked": False,
}  # fmt: skip


@pytest.fixture
def run(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    task = toy_task(6)
    model = load_model(str(tiny_folder), dtype="float32", device="cpu")
    monkeypatch.setattr(Run, "items", property(lambda self: task.test))
    monkeypatch.setattr("elicit.evaluation.run.store.Store.items", lambda self: task.test)
    handle = one_shot_rlvr.fit(model, task.solved, **OPTIONS, save_every=2)
    return evaluate(handle, task.test, against="direct")


def test_each_saved_step_is_evaluated_on_the_same_items(run: Run, tmp_path: Path) -> None:
    result = analyse("saved-steps", [run])
    (found,) = result.data["runs"].values()
    assert [row["update"] for row in result.table] == [0, 2, 4] == list(found["accuracy"])
    assert set(found["scores"]) == set(run.metrics["arms"]["direct"]["scores"])
    assert {step for scores in found["scores"].values() for step in scores} == {0, 2, 4}
    own = run.metrics["arms"]
    for item, scores in found["scores"].items():  # the ends are arms of the run itself
        assert (scores[0], scores[4]) == (own["direct"]["scores"][item], own["one-shot-rlvr"]["scores"][item])
    made = Run.load(Path(found["run"]))
    handles = saved_steps(one_shot_rlvr.fit(load_model(run.metrics["model"]["name"], dtype="float32", device="cpu"),
                                            toy_task(6).solved, **OPTIONS, save_every=2))  # fmt: skip
    said = [[t.tokens for t in ts] for ts in handles[2].answer(toy_task(6).test)]
    assert said == [[t.tokens for t in ts] for ts in made.traces["update 2"].values()]
    folders = sorted(tmp_path.glob("runs/*"))
    assert analyse("saved-steps", [run]).data == result.data and sorted(tmp_path.glob("runs/*")) == folders
    save(result, tmp_path, {"command": "a test"})
    assert load(tmp_path / "saved-steps.json").data["runs"]["one-shot-rlvr"]["scores"]


def test_what_is_said_after_the_example_is_solved() -> None:
    scores = {0: np.zeros(20), 10: np.zeros(20), 20: np.r_[np.ones(10), np.zeros(10)], 30: np.ones(20)}
    assert "from update 10 to 30 accuracy changes by 1.000" in _after(scores, 5)
    assert "from update 20 to 30 accuracy changes by 0.500" in _after(scores, 15)
    assert "nothing is said" in _after(scores, 25)


def test_every_saving_of_a_long_training_has_a_reward() -> None:
    point = Point(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None, None, 0.0, None, 0.0, 0.0, 1, 1.0)
    curve = columns([point._replace(update=n, reward=n / 1000) for n in range(1000)])
    assert len(curve["update"]) < 1000  # a run keeps fewer
    rewards = _rewards({"curve": curve})
    for step in range(20, 1001, 20):
        assert (step - 4) / 1000 < _reward_at(rewards, step) <= (step - 1) / 1000
    assert np.isnan(_reward_at(rewards, 0)) and np.isnan(_reward_at({}, 20))


def test_two_trainings_without_rewards_have_two_colours(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task, model = toy_task(6), load_model(str(tiny_folder), dtype="float32", device="cpu")
    direct = evaluate(elicit.methods.direct.fit(model, max_new_tokens=2), task.test, against=(), out=tmp_path / "one")
    again = evaluate(elicit.methods.direct.fit(model, max_new_tokens=2), task.test, against=(), out=tmp_path / "two")
    for run in (direct, again):
        run.metrics["options"] = {"found": {"losses": [1.0]}}
    name = "elicit.analysis.behaviour.saved_steps"
    monkeypatch.setattr(f"{name}._steps", lambda run: {0: None, 2: None})
    scores = {item.id: 1.0 for item in task.test}
    made = SimpleNamespace(
        metrics={"arms": {f"update {step}": {"scores": scores} for step in (0, 2)}}, folder=tmp_path / "one"
    )
    monkeypatch.setattr(f"{name}._evaluated", lambda run, steps, rows: made)
    figure = analyse("saved-steps", [direct, again]).figure
    assert len({line.line.color for line in figure.data}) == len(figure.data) == 2


def test_a_training_that_saved_nothing_is_refused(run: Run) -> None:
    import shutil

    for folder in Path("runs").glob("*/steps"):
        shutil.rmtree(folder)
    with pytest.raises(UserError, match="train with save_every of 1 or more"):
        analyse("saved-steps", [run])
    with pytest.raises(UserError, match="no run was given"):
        analyse("saved-steps", [])
