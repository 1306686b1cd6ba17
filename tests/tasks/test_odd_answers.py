"""Answers that nobody expected: none of them ends a run, and those without a verdict are counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from elicit import evaluate
from elicit.cli.options import settings
from elicit.decoding import Sampling
from elicit.evaluation.run.store import PARQUET
from elicit.evaluation.run.table import outcomes, traces
from elicit.methods import direct
from elicit.models import Model, Prompt
from elicit.report.run_section import notes
from elicit.tasks import corrupt, grading, load_task, validate
from elicit.tasks.answers import KINDS, find_answer, number_value
from elicit.tasks.base import Grade, Item, content_id, split_of
from elicit.tasks.grading import OutOfMemory, Worker, WorkerHangs, grader_for, infer_kind
from elicit.training.rl.log import log_line
from elicit.training.rl.rewards import parse
from elicit.training.rl.rollouts import sample
from probes.errors import UserError
from tests.support.shell import shell
from tests.training.test_rl_rewards import context

LONG = "9" * 4301
ONE = ["number", "0x1", "0x1"]
NUMBERS = [LONG, f"-{LONG}", f"1.{LONG}", f".{LONG}", f"{LONG}/7", f"1/{LONG}", f"{LONG}%", f"${LONG}"]
ODD = [*NUMBERS, "\ud800", "1\ud800", "\0", "1+\0", "((((1", ""]
# For expressions alone: math-verify takes long over them.
DEEP = [
    "(" * 190 + "1",
    "(" * 99 + "1+1" + ")" * 99,
    "-" * 199 + "1",
    "1+(" * 60 + "1" + ")" * 60,
]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """A worker of this test alone, with a short deadline."""
    one = Worker(deadline=1.0)
    monkeypatch.setattr(grading, "WORKER", one)
    yield one
    one.close()


class Doomed(Worker):
    """A worker that is killed, as by a kernel without memory, in its next `deaths` requests."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths = deaths

    def _exchange(self, operation: str, arguments: dict[str, Any], deadline: float) -> Any:
        if operation != "ready" and self.deaths:
            self.deaths -= 1
            assert self.process is not None
            self.process.kill()
        return super()._exchange(operation, arguments, deadline)


@pytest.mark.parametrize(
    ("name", "answer"), [("prime-factorization", "abc"), ("prime-factorization", "("), ("boxnet", "5")]
)
def test_a_scorer_that_raises_has_no_verdict(name: str, answer: str) -> None:
    task = load_task(name, limit=1)
    assert task.grader.grade(task.items[0], answer) == Grade(0.0, "raised")


def test_a_run_goes_on_where_the_scorer_raises_and_is_resumed_alike(tiny: Model, tmp_path: Path) -> None:
    items = load_task("prime-factorization", limit=3).test
    handle = direct.fit(tiny, items, max_new_tokens=6)
    run = evaluate(handle, items, against=(), out=tmp_path / "run", batch_rows=1)
    assert run.metrics["arms"]["direct"]["unjudged"] == {"raised": 3} and run.metrics["arms"]["direct"]["right"] == 0
    told = next(line for line in notes(run.metrics) if "verdict" in line)
    assert told == "Answers without a verdict, counted as incorrect: direct 3 the scorer could not read."
    assert told in (run.folder / "report.html").read_text()
    unbounded = {**run.metrics, "scorer_unbounded": ["memory"]}  # as on another platform
    assert "This platform has no bound on the scorer's memory." in notes(unbounded)
    samples = run.folder / "samples.jsonl"
    whole = samples.read_bytes()
    samples.write_bytes(whole[: len(whole) // 2])
    (run.folder / "metrics.json").unlink()
    again = evaluate(handle, items, against=(), out=tmp_path / "run", batch_rows=1)
    assert samples.read_bytes() == whole and again.metrics["arms"] == run.metrics["arms"]


def test_a_rollout_that_the_scorer_cannot_read_is_rewarded_with_nothing(tiny: Model) -> None:
    items = load_task("prime-factorization", limit=1).fit
    (rollouts,) = sample(tiny, items, Prompt(), Sampling(2, max_new_tokens=6))
    (first, *_) = graded = parse("exact").grade(rollouts, context())
    assert [one.total for one in graded] == [0.0, 0.0] and first.read
    assert log_line(rollouts[0], first, 0.0)["unjudged"] == "raised"


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_of_any_length_is_itself_and_no_other(text: str, tmp_path: Path) -> None:
    assert number_value(text) is None
    for kind in KINDS:
        found = find_answer(f"the sum is {text}", kind)
        grader = grader_for(kind)
        assert not grader.grade(Item("i", "q", "5", "test"), found.text if found else None).correct
        assert not grader.grade(Item("i", "q", text, "test"), "5").correct
        assert grader.groups([text, "5", text]) == [0, 1, 0]
    assert infer_kind([text]) == "text" and infer_kind([text, "5"]) == "math"
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"question": "q", "answer": text}) + f'\n{{"question": "p", "answer": {LONG}}}\n')
    assert validate(load_task(str(file)).all).ok


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("gold", ["5", "x+1", "yes"])
def test_no_text_makes_a_grader_raise(gold: str, text: str) -> None:
    for kind in KINDS:
        assert not grader_for(kind).grade(Item("i", "q", gold, "test"), text).correct
        assert not grader_for(kind).grade(Item("i", "q", gold, "test", {"target": 7, "numbers": [3, 4]}), text).correct
        assert grader_for(kind).groups([gold, text, text]) == [0, 1, 1]
    assert corrupt(text) != text and split_of(text) and content_id(text)


@pytest.mark.parametrize("text", DEEP)
def test_no_depth_makes_an_expression_raise(text: str) -> None:
    assert not grader_for("expression").grade(Item("i", "q", "5", "test"), text).correct
    assert corrupt(text) != text


@pytest.mark.parametrize(
    "gold", ["H₂O", "CO₂", "x²", "x²+y²", "5 m²", "①", "½", "٣", "(①)", "H₂O.", "m²)", "Al₂(SO₄)₃", "𝟚", "१२"]
)
def test_the_corrupted_gold_is_wrong_whatever_its_digits(gold: str) -> None:
    for kind in {infer_kind([gold]), infer_kind([gold, "5"]), "text"}:
        item = Item("i", "q", gold, "test")
        assert grader_for(kind).grade(item, gold).correct
        assert not grader_for(kind).grade(item, corrupt(gold)).correct


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r'{"question": "cut \ud83d", "answer": "1"}', r"line 2: half a character \('\\ud83d', a lone surrogate\)"),
        (r'{"question": "q", "answer": "\udc00"}', "line 2: half a character"),
        (r'{"id": "\ud800", "question": "q", "answer": "1"}', "line 2: half a character"),
        (r'{"question": "q", "answer": "1", "note": ["\ud800"]}', "line 2: half a character"),
        ('{"question": "q", "answer": "1", "note": ' + "[" * 100_000 + "]" * 100_000 + "}", "line 2: brackets nested"),
    ],
)
def test_a_line_that_cannot_be_held_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"question": "a", "answer": "1"}\n' + line + "\n")
    with pytest.raises(UserError, match=words):
        load_task(str(file))


@pytest.mark.parametrize("value", [LONG, f"[{LONG}]", "[" * 5000 + "]" * 5000])
def test_a_value_that_cannot_be_held_is_refused_in_one_line(value: str) -> None:
    with pytest.raises(UserError, match=r"was given, .*; give a shorter one"):
        settings([f"k={value}"], {"k": 1})
    assert settings([f"k={value}"], {"k": "text"}) == {"k": value}
    code, _, err = shell("tasks", f"chain-sum:min_terms={value}")
    assert code == 2 and "give a shorter one" in err and len(err) < 200 and err.strip().count("\n") == 0


def test_a_worker_that_dies_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for deaths, grade in ((1, Grade(1.0)), (2, Grade(0.0, "died"))):
        doomed = Doomed(deaths)
        monkeypatch.setattr(grading, "WORKER", doomed)
        item = Item("i", "q", f"x+{deaths}", "test")  # a pair of its own: keys are remembered
        assert grader_for("math").grade(item, f"{deaths}+x") == grade
        assert not doomed.deaths
        doomed.close()


def test_a_worker_that_died_between_two_requests_is_replaced(worker: Worker) -> None:
    for _ in range(2):
        assert worker.ask("math_value", text="1") == ONE
        assert worker.process is not None
        worker.process.kill()
        worker.process.wait()


def test_a_verdict_that_takes_too_long_is_counted(worker: Worker) -> None:
    item = Item("i", "q", "x+1", "test")
    assert grader_for("math").grade(item, "200000000!") == Grade(0.0, "time")
    assert worker.process is None
    assert grader_for("math").groups(["x+1", "1+x"]) == [0, 0]


def test_the_deadline_is_of_processor_time(worker: Worker) -> None:
    worker.ask("math_value", text="1")
    assert worker.process is not None
    pid = worker.process.pid
    os.kill(pid, signal.SIGSTOP)  # as on a machine that has no time for it
    later = threading.Timer(2.0, os.kill, (pid, signal.SIGCONT))
    later.start()
    assert worker.ask("math_value", text="3-2") == ONE
    later.join()


def test_a_worker_that_waits_for_ever_is_killed(worker: Worker) -> None:
    worker.ask("math_value", text="1")
    worker.patience = 0.5
    assert worker.process is not None
    os.kill(worker.process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerHangs):
        worker.ask("math_value", text="x" * 1_000_000)  # more than a pipe holds
    assert worker.process is None


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory hold on Linux alone; the worker says so")
def test_the_workers_memory_is_bounded(worker: Worker) -> None:
    assert worker.ask("swell", size=1_000_000) == 1_000_000 and worker.missing == ()
    with pytest.raises(OutOfMemory, match="4 GiB"):
        worker.ask("swell", size=2**33)
    assert worker.ask("math_value", deadline=60.0, text="1") == ONE


def test_a_worker_that_cannot_start_is_one_line(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="the grading worker cannot start"):
        grader_for("math").grade(Item("i", "q", "x+97", "test"), "97+x")  # not yet known


ASKS = """
from elicit.tasks.grading import WORKER
WORKER.ask("ready")
print(WORKER.process.pid, flush=True)
WORKER.ask("spin", deadline=600.0)
"""
WATCHES = """
import subprocess, sys
code = "from elicit.tasks.grader_process import watch_parent; print(watch_parent(), flush=True)\\nwhile True: pass"
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
assert child.stdout.readline() == b"True\\n"
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize("script", [ASKS, WATCHES], ids=["worker", "without prctl"])
def test_the_worker_ends_with_a_run_that_is_killed(script: str) -> None:
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        time.sleep(1.0)  # it computes now
        run.kill()
    try:
        for _ in range(200):
            if ended(pid):
                return
            time.sleep(0.1)
        raise AssertionError("the worker outlives its run")
    finally:
        if not ended(pid):
            os.kill(pid, signal.SIGKILL)


def ended(pid: int) -> bool:
    """Whether a process is gone; one that nobody has waited for yet is."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_tables_of_older_runs_are_read(tiny: Model, tmp_path: Path) -> None:
    items = load_task("prime-factorization", limit=2).test
    run = evaluate(direct.fit(tiny, items, max_new_tokens=6), items, against=(), out=tmp_path / "run")
    table = run.folder / PARQUET
    (found,) = outcomes(table)["direct"][items[0].id]
    assert found.unjudged == "raised"
    pq.write_table(pq.read_table(table).drop_columns(["unjudged"]), table)
    assert outcomes(table)["direct"][items[0].id] == [found._replace(unjudged="")]
    (trace,) = traces(table, "direct", [items[0].id])[items[0].id]
    assert trace.unjudged == "" and "unjudged" not in trace.to_dict()
