"""Several processes evaluate what one does: the same run, whoever stops or ends in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import elicit
from elicit.decoding.engine import engine_of
from elicit.evaluation.evaluator import _arms, _notes, evaluate
from elicit.evaluation.run.store import SAMPLES
from elicit.models import Model
from elicit.models.processes import Processes, check_alone, launched, processes
from elicit.tasks import Task
from probes.errors import UserError
from tests.support.ports import free_port
from tests.support.shell import shell

HERE = Path(__file__).parents[2]
REAL = ["top1", "top2", "entropy", "logprob", "moved"]


class Taking(Processes):
    """Processes that are threads taking turns: one runs until it says something."""

    def __init__(self, count: int, rank: int, said: list[Any], met: threading.Barrier, turn: threading.Lock) -> None:
        self.count, self.rank, self._said, self._met, self._turn = count, rank, said, met, turn
        self._over, self._peers = False, []

    def _gather(self, one: Any) -> list[Any]:
        self._said[self.rank] = json.dumps(one)
        self._turn.release()
        self._met.wait(300)
        told = [json.loads(text) for text in self._said]
        self._met.wait(300)  # none says more before all have heard
        self._turn.acquire()
        return told


def by(count: int, work: Callable[[Processes], Any]) -> list[Any]:
    """What each of so many processes made, or its error."""
    found: list[Any] = [None] * count
    said, met, turn = [None] * count, threading.Barrier(count), threading.Lock()

    def one(rank: int) -> None:
        with turn:
            try:
                found[rank] = work(Taking(count, rank, said, met, turn))
            except Exception as error:  # noqa: BLE001  the test looks at it
                found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture(scope="module")
def task() -> Task:
    return elicit.load_task("chain-sum:min_terms=2,max_terms=3,min_digits=1,max_digits=1", limit=9)


@pytest.fixture(scope="module")
def given(tiny: Model, task: Task) -> dict[str, Any]:
    handle = elicit.methods.cot_decoding.fit(tiny, k=3, max_new_tokens=8)
    names = ["direct", "self-consistency@budget"]
    return {"handle": handle, "items": task.test, "against": elicit.methods.beside(handle, task.test, names)}


@pytest.fixture(scope="module")
def alone(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> elicit.Run:
    return evaluate(**given, out=tmp_path_factory.mktemp("runs") / "alone", batch_rows=12)


def same(run: elicit.Run, other: elicit.Run) -> None:
    """The same samples and metrics; statistics of a token up to the rounding of batches of another size."""
    a, b = (pd.read_parquet(one.folder / "samples.parquet") for one in (run, other))
    assert a.drop(columns=[*REAL, "delta"]).astype(str).equals(b.drop(columns=[*REAL, "delta"]).astype(str))
    for name in REAL:
        for x, y in zip(a[name], b[name], strict=True):
            assert list(x) == pytest.approx(list(y), rel=1e-4, abs=1e-5)
    mine, theirs = ({k: v for k, v in one.metrics.items() if k != "seconds"} for one in (run, other))
    assert rounded(mine) == rounded(theirs)


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_a_run(count: int, given: dict[str, Any], alone: elicit.Run, tmp_path: Path) -> None:
    pages: list[str] = []

    def page(run: elicit.Run) -> str:
        pages.append("page")
        return "page"

    runs = by(count, lambda some: evaluate(**given, out=tmp_path / "run", batch_rows=12, processes=some, page=page))
    assert pages == ["page"] and all(run.folder == tmp_path / "run" for run in runs)
    same(runs[0], alone)
    assert (
        runs[0].store.config["execution"]["processes"] == count and "processes" not in alone.store.config["execution"]
    )
    again = by(2, lambda some: evaluate(**given, out=tmp_path / "run", processes=some))
    assert again[1].metrics == runs[0].metrics


def test_what_any_process_did_otherwise_is_told(tiny: Model) -> None:
    models = [replace(tiny) for _ in range(2)]
    engine_of(models[1]).note("on the reference loop: a decoder")
    arms = [_arms(elicit.Elicited(model, "direct"), {}) for model in models]
    assert by(2, lambda some: _notes(arms[some.rank], some)) == [["on the reference loop: a decoder"]] * 2


def test_any_number_of_processes_resumes_a_run(given: dict[str, Any], alone: elicit.Run, tmp_path: Path) -> None:
    """A run keeps the batches with which it began."""

    class Killed(Exception):
        pass

    class Dying(elicit.evaluation.evaluator.Silent):  # type: ignore[name-defined,misc]
        batches = 0

        def advance(self, questions: int, tokens: int) -> None:
            self.batches += 1
            if self.batches == 3:
                raise Killed

    out = tmp_path / "run"
    ended = by(
        2,
        lambda some: evaluate(**given, out=out, batch_rows=12, processes=some, progress=None if some.rank else Dying()),
    )
    assert isinstance(ended[0], Killed) and "process 0 of 2: " in str(ended[1])
    before = (out / SAMPLES).read_text()
    assert before and not (out / "metrics.json").exists()
    run = evaluate(**given, out=out, batch_rows=12)
    assert (out / SAMPLES).read_text().startswith(before)
    same(run, alone)
    whole = by(2, lambda some: evaluate(**given, out=tmp_path / "whole", batch_rows=12, processes=some))[0]
    assert (whole.folder / SAMPLES).read_text() == (out / SAMPLES).read_text()


def test_a_process_that_fails_is_named_in_all(given: dict[str, Any], tmp_path: Path) -> None:
    def work(some: Processes) -> elicit.Run:
        other = {**given, "items": given["items"][:3]} if some.rank else given
        return evaluate(**other, out=tmp_path / "run", processes=some)

    told = by(3, work)
    assert all(isinstance(error, UserError) for error in told)
    assert str(told[0]) == "process 1 evaluates other questions than the first; give all the same"
    assert not (tmp_path / "run").exists()

    def failing(some: Processes) -> elicit.Run:
        with some.telling():
            if some.rank == 1:
                raise UserError("no memory")
            return evaluate(**given, out=tmp_path / "run", processes=some)

    assert [str(error) for error in by(3, failing)] == [
        "process 1 of 3: no memory",
        "no memory",
        "process 1 of 3: no memory",
    ]


def test_samples_in_bf16_say_that_others_may_round_otherwise(tiny_folder: Path, task: Task, tmp_path: Path) -> None:
    from elicit.report.run_section import notes

    low = elicit.load_model(str(tiny_folder), dtype="bfloat16", device="cpu")
    handle = elicit.methods.direct.fit(low, max_new_tokens=3)
    run = by(2, lambda some: evaluate(handle, task.test[:3], out=tmp_path / "run", processes=some))[0]
    assert run.metrics["processes"] == 2
    assert any(note.startswith("Answered by 2 processes: in bfloat16") for note in notes(run.metrics))


# Talks by the group that processes have, without what launches them.
PAIR = """
import os, signal, sys, torch
from elicit.models.processes import launched
from probes.errors import UserError
all_of_them = launched(torch.device("cpu"))
assert all_of_them.exchange({"at": all_of_them.rank}) == [{"at": 0}, {"at": 1}]
try:
    with all_of_them.telling():
        if all_of_them.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        all_of_them.exchange(None)
except UserError as error:
    print(error)
"""


def started(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
    )  # fmt: skip


def test_a_process_that_ends_is_told_by_its_number(tmp_path: Path) -> None:
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        started(
            ["-c", PAIR], tmp_path, {**where, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "1"}
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=1500) for process in both]
    assert both[1].returncode == -signal.SIGKILL
    assert said[0][0].strip() == (
        f"process 1 (pid {both[1].pid}) of 2 ended; finished samples are kept, the same command resumes"
    ), said[0][1][-2000:]


def test_a_command_on_two_processes_makes_the_run_of_one(tiny_folder: Path, tmp_path: Path) -> None:
    options = [
        "run", "--model", str(tiny_folder), "--set", "k=3", "--limit", "5", "--max-new-tokens", "6",
        "--dtype", "float32", "--device", "cpu", "--out",
    ]  # fmt: skip
    launch = [
        "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port()), "-m", "elicit",
    ]  # fmt: skip
    two = started([*launch, *options, str(tmp_path / "two"), "--json"], tmp_path, {})
    out, err = two.communicate(timeout=1500)
    assert two.returncode == 0, err[-3000:]
    code, alone, _ = shell(*options, str(tmp_path / "one"), "--json")
    assert code == 0
    assert set(json.loads(out)["arms"]) == set(json.loads(alone)["arms"])  # printed once
    same(elicit.Run.load(tmp_path / "two"), elicit.Run.load(tmp_path / "one"))


def test_one_process_is_none_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes() == 1 and launched(torch.device("cpu")) is None
    check_alone("compare --methods")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, said = shell("compare", "--methods", "direct")
    assert code == 2 and "2 processes were launched and elicit compare --methods works in one" in said
    monkeypatch.setenv("RANK", "1")
    assert shell("compare", "--methods", "direct")[::2] == (2, "")  # said once
