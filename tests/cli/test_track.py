"""`--track`: what is written of a run, once a step, and what a tracker that fails costs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import pytest

from elicit.cli.track import TRACKERS, Tracked, measure_arms, numbered, opened
from elicit.decoding.progress import Silent
from elicit.evaluation.evaluator import evaluate
from elicit.methods import fit
from elicit.models import Model
from elicit.tasks.registry import load_task
from tests.support.shell import shell
from tests.support.written import written_run, written_task

TRAINING = {
    "reward": "exact+random:0.5", "updates": 3, "rollouts": 8, "group": 4, "rollout_tokens": 6, "rank": 2, "pool": 3,
    "max_new_tokens": 6, "check_every": 0, "state_every": 1,
}  # fmt: skip
Read = Callable[[Path], dict[str, list[int]]]
pytestmark = pytest.mark.usefixtures("one_thread")


def of_tensorboard(folder: Path) -> dict[str, list[int]]:
    """Each series' steps, as TensorBoard's own reader has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    latest = max(folder.iterdir(), key=lambda place: len(place.name))
    read = EventAccumulator(str(latest), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: [one.step for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


ASKED = """
import contextlib, io, json, sys
from trackio.cli import main

def said(*words):
    sys.argv, out = ["trackio", *words, "--project", "sums", "--json"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    return json.loads(out.getvalue())

runs = [run["name"] if isinstance(run, dict) else run for run in said("list", "runs")["runs"]]
name = max(runs, key=len)
metrics = said("list", "metrics", "--run", name)["metrics"]
found = {one: said("get", "metric", "--run", name, "--metric", one)["values"] for one in metrics}
print(json.dumps({one: [value["step"] for value in values] for one, values in found.items()}))
"""


def of_trackio(_: Path) -> dict[str, list[int]]:
    """Likewise, as Trackio's command line says it, in one process, which takes seconds to begin."""
    told = subprocess.run([sys.executable, "-c", ASKED], check=True, capture_output=True, text=True).stdout
    found: dict[str, list[int]] = json.loads(told)
    return found


def _trackio_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the folder when it is imported, which TRL has done perhaps."""
    monkeypatch.setenv("TRACKIO_DIR", str(place))
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    pytest.importorskip("trackio")


class Stops(Silent):
    """Is killed while the second update is told."""

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "read"), [("tensorboard", of_tensorboard), ("trackio", of_trackio)])
@pytest.mark.long
def test_a_step_is_tracked_once_and_a_resumed_training_goes_on(
    kind: str, read: Read, tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "trackio":
        _trackio_in(tmp_path / "trackio", monkeypatch)
    pytest.importorskip(kind)
    monkeypatch.chdir(tmp_path)
    place = "sums" if kind == "trackio" else str(tmp_path / "logs")
    given = {"track": f"{kind}:{place}", "method": "one-shot-rlvr", "seed": 0}
    task = load_task("chain-sum", limit=3)

    def track(shown: Silent) -> None:
        both = Tracked(shown, opened(given, "rl"))
        try:
            handle = fit("one-shot-rlvr", tiny, task.solved, both, **TRAINING)
            measure_arms(both, evaluate(handle, task.test, out=tmp_path / "run"))
        finally:
            both.close()

    out = io.StringIO()
    with redirect_stdout(out):
        with pytest.raises(KeyboardInterrupt):
            track(Stops())
        assert read(tmp_path / "logs")["one-shot-rlvr/loss"] == [0]
        track(Silent())  # the second update is kept and was not told
        track(Silent())  # all is there
    found = read(tmp_path / "logs")
    assert found["one-shot-rlvr/loss"] == [0, 1, 2]
    assert {f"one-shot-rlvr/{key}" for key in ("reward", "accuracy", "kl", "tokens_per_second")} <= found.keys()
    assert found["one-shot-rlvr/tokens_per_item"] == [0]
    assert all(len(steps) == len(set(steps)) for steps in found.values())
    given["fresh"] = True
    with redirect_stdout(out):
        for _ in range(2):  # afresh, and resumed
            both = Tracked(Silent(), opened(given, "rl"))
            both.measure("one-shot-rlvr", 0, {"loss": 2.0})
            both.close()
            assert read(tmp_path / "logs") == {"one-shot-rlvr/loss": [0]}  # a track of its own
            given["fresh"] = False
    assert not out.getvalue()  # which is for JSON


def test_the_latest_track_of_a_command_goes_on_and_a_fresh_one_follows_it() -> None:
    there = ["rl-0f", "rl-0f-2", "rl-0f-10", "rl-0f-x", "rl-0f3-11", "sft-0f-12"]
    assert numbered("rl-0f", there, False) == "rl-0f-10" and numbered("rl-0f", there, True) == "rl-0f-11"
    assert numbered("rl-0f", ["rl-0f"], True) == "rl-0f-2"
    assert numbered("rl-0f", [], False) == numbered("rl-0f", [], True) == "rl-0f"


class Broken:
    """A tracker whose disk is full."""

    def __init__(self, place: str, name: str, fresh: bool) -> None:
        self.kept: dict[str, set[int]] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise OSError(28, "No space left on device")


class Kept(Broken):
    """A tracker in memory."""

    def __init__(self, place: str, name: str, fresh: bool) -> None:
        super().__init__(place, name, fresh)
        self.logged: dict[str, float] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.logged |= values


def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "tensorboard", Broken)
    both, err = Tracked(Silent(), Broken("", "", False)), io.StringIO()
    with redirect_stderr(err):
        for step in range(3):
            both.measure("rl", step, {"loss": 1.0})
        both.close()
    assert err.getvalue().count("the track ends here") == 1 and "No space left" in err.getvalue()


def test_an_accuracy_that_is_not_stated_is_not_tracked(tiny: Model, tmp_path: Path) -> None:
    said = {"m": lambda item, b: f"it is {item.answer}", "direct": lambda item, b: "it is 99"}
    run = written_run(tiny, tmp_path, written_task(4), "m", said)
    run.metrics["arms"]["m"] |= {"unjudged": {"time": 1}}
    kept = Kept("", "", False)
    measure_arms(Tracked(Silent(), kept), run)
    assert kept.logged == {
        "m/tokens_per_item": run.metrics["arms"]["m"]["tokens_per_item"], "direct/accuracy": 0.0,
        "direct/tokens_per_item": run.metrics["arms"]["direct"]["tokens_per_item"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "--track", "tensorbord:x"), "did you mean tensorboard"),
        (("run", "--track", "tensorboard"), "write tensorboard:FOLDER"),
        (("run", "--track", "trackio:"), "write tensorboard:FOLDER or trackio:PROJECT"),
        (("run", "--track", "trackio:sums"), "TRACKIO_SPACE_ID is set" if find_spec("trackio") else "pip install"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/else")
    code, out, err = shell(*words)
    assert (code, out) == (2, "") and told in err and err.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["a file", "another's"])
def test_a_place_that_trackio_cannot_write_to_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "sums.db"
    text.write_text("no database, and longer than the head of one. " * 4)
    _trackio_in(text if place == "a file" else tmp_path, monkeypatch)
    code, _, err = shell("run", "--method", "direct", "--track", "trackio:sums", "--limit", "2")
    assert code == 2 and "Trackio cannot write the project 'sums'" in err
    assert not (tmp_path / "runs").exists()


def test_comparing_finished_runs_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    code, _, err = shell("compare", "runs/a", "--track", "tensorboard:logs")
    assert code == 2 and "give it with --methods" in err
