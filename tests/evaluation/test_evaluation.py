"""Whole runs on a tiny model: samples, resume after a kill, budgets, figures, the saved handle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import elicit
from elicit.decoding.progress import Silent
from elicit.decoding.record import Record
from elicit.evaluation.budget import draw_to_budget
from elicit.evaluation.metrics.run_metrics import _calibration
from elicit.evaluation.run import Store
from elicit.evaluation.run.store import SAMPLES
from elicit.models import Model
from elicit.tasks import Task
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.support.written import written_task, written_trace

TASK = "chain-sum:min_terms=2,max_terms=3,min_digits=1,max_digits=1"
WAIT = 1500  # seconds: the machine may be busy
AGAINST = ("direct", "self-consistency", "self-consistency@budget", "direct@budget")


@pytest.fixture(scope="module")
def task() -> Task:
    return elicit.load_task(TASK, limit=12)


@pytest.fixture(scope="module")
def handle(tiny: Model) -> elicit.Elicited:
    return elicit.methods.cot_decoding.fit(tiny, k=4, max_new_tokens=10)


@pytest.fixture(scope="module")
def run(handle: elicit.Elicited, task: Task, tmp_path_factory: pytest.TempPathFactory) -> elicit.Run:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return elicit.evaluate(handle, task.test, against=AGAINST, out=folder, batch_rows=16)


def samples(folder: Path) -> list[str]:
    return (folder / SAMPLES).read_text().splitlines()


def test_a_run_holds_what_it_should(run: elicit.Run, task: Task) -> None:
    names = {p.name for p in run.folder.iterdir()}
    assert {"config.toml", SAMPLES, "samples.parquet", "metrics.json", "report.html", "elicited"} <= names
    metrics = run.metrics
    assert list(metrics["arms"]) == ["cot-decoding", *AGAINST]
    assert set(metrics["readings"]) == {"greedy", "max", "sum", "vote", "mean-logprob", "logprob", "random", "oracle"}
    assert metrics["readings"]["max"]["accuracy"] == metrics["arms"]["cot-decoding"]["accuracy"]
    assert metrics["readings"]["greedy"]["accuracy"] == metrics["arms"]["direct"]["accuracy"]
    assert len(metrics["coverage_by_rank"]["coverage"]) == 4
    frame = pd.read_parquet(run.folder / "samples.parquet")
    assert len(frame) == sum(len(traces) for source in run.traces.values() for traces in source.values())
    assert (frame.groupby("source").size()["cot-decoding"]) == 4 * len(task.test)
    assert run.summary().loc["cot-decoding", "accuracy"] == metrics["arms"]["cot-decoding"]["accuracy"]


def test_the_greedy_branch_is_the_direct_answer(run: elicit.Run) -> None:
    for item, traces in run.traces["cot-decoding"].items():
        assert traces[0].tokens == run.traces["direct"][item][0].tokens
        assert len({t.tokens[0] if t.tokens else None for t in traces}) == 4


def test_a_budget_is_never_exceeded_and_is_used(run: elicit.Run) -> None:
    sources = run.traces
    assert "direct@budget" not in sources  # the same samples, read by another rule
    for item, traces in sources["self-consistency@budget"].items():
        budget = sum(t.spent for t in sources["cot-decoding"][item])
        spent = sum(t.spent for t in traces)
        assert spent <= budget or len(traces) == 1
        assert spent + 10 > budget  # the next sample, at most ten tokens, no longer fits
        assert [t.index for t in traces] == list(range(len(traces)))


def test_samples_for_a_budget_do_not_depend_on_the_batch(tiny: Model, task: Task) -> None:
    one = elicit.methods.self_consistency.matched(tiny, max_new_tokens=8, seed=3)
    budget = {item.id: 40 + 13 * n for n, item in enumerate(task.test)}
    (together,) = draw_to_budget([(one, task.test)], [budget], rows=64)
    for n in range(len(task.test)):
        (alone,) = draw_to_budget([(one, task.test[n : n + 1])], [budget], rows=5)
        item = task.test[n].id
        assert [t.tokens for t in alone[item]] == [t.tokens for t in together[item]]


def test_no_sample_for_a_budget_is_drawn_further_than_it_could_be_kept(tiny: Model, task: Task) -> None:
    class Steps(Silent):
        def __init__(self) -> None:
            self.rounds: list[int] = []

        def step(self, step: int, open_rows: int) -> None:
            if step == 1:
                self.rounds.append(0)
            self.rounds[-1] = step

    some, left = task.test[:3], 9
    one = elicit.methods.self_consistency.matched(tiny, max_new_tokens=24, seed=3)
    whole = replace(one, decoder=replace(one.decoder, samples=6)).answer(some)
    budget = {item.id: traces[0].spent + left for item, traces in zip(some, whole, strict=True)}
    steps = Steps()
    (drawn,) = draw_to_budget([(one, some)], [budget], rows=64, progress=steps)
    assert len(steps.rounds) > 1 and max(steps.rounds[1:]) <= left
    for item, traces in zip(some, whole, strict=True):
        kept = [n for n in range(6) if not n or sum(t.spent for t in traces[: n + 1]) <= budget[item.id]]
        assert len(kept) < 6 and [t.tokens for t in drawn[item.id]] == [traces[n].tokens for n in kept]


def test_samples_beyond_a_budget_are_ended_early(tiny: Model, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples that are kept of ones drawn whole, for fewer tokens; of two handles as of each by itself."""

    class Tokens(Silent):
        computed = 0

        def step(self, step: int, open_rows: int) -> None:
            self.computed += open_rows

    def drawn(*numbers: int) -> tuple[list[list[list[int]]], int]:
        asked, tokens = [(handles[n], some) for n in numbers], Tokens()
        found = draw_to_budget(asked, [budgets[n] for n in numbers], rows=64, progress=tokens)
        return [[t.tokens for t in one[item.id]] for one in found for item in some], tokens.computed

    some = task.test[:4]
    handles = [m.matched(tiny, max_new_tokens=24, seed=3) for m in (elicit.methods.direct, elicit.methods.cot_prompt)]
    budgets = [{item.id: 40 + 17 * n + 5 * m for n, item in enumerate(some)} for m in range(2)]
    (first, few), (second, _), (both, _) = drawn(0), drawn(1), drawn(0, 1)
    assert both == first + second
    whole = replace(handles[0], decoder=replace(handles[0].decoder, samples=16)).answer(some)
    for item, traces, found in zip(some, whole, first, strict=True):
        kept = [n for n in range(16) if not n or sum(t.spent for t in traces[: n + 1]) <= budgets[0][item.id]]
        assert 1 < len(kept) < 16 and found == [traces[n].tokens for n in kept]
    monkeypatch.setattr(Record, "_within", lambda self, still: still)
    again, many = drawn(0)
    assert again == first and few < many


@pytest.fixture(scope="module")
def short(handle: elicit.Elicited, task: Task, tmp_path_factory: pytest.TempPathFactory) -> elicit.Run:
    """A run of four questions in several batches."""
    folder = tmp_path_factory.mktemp("short") / "whole"
    return elicit.evaluate(handle, task.test[:4], against=AGAINST, out=folder, batch_rows=8)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
@example(cut=0.0)
@example(cut=0.999)  # within the last line
def test_resumed_equals_uninterrupted(
    short: elicit.Run, handle: elicit.Elicited, task: Task, tmp_path_factory: pytest.TempPathFactory, cut: float
) -> None:
    """Whatever part of the file had reached the disk, the finished run holds the same samples."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    folder.mkdir()
    (folder / "config.toml").write_bytes((short.folder / "config.toml").read_bytes())
    whole = (short.folder / SAMPLES).read_bytes()
    (folder / SAMPLES).write_bytes(whole[: int(cut * len(whole))])
    again = elicit.evaluate(handle, task.test[:4], against=AGAINST, out=folder)
    assert (folder / SAMPLES).read_bytes() == whole
    assert {k: v for k, v in again.metrics.items() if k != "seconds"} == {
        k: v for k, v in short.metrics.items() if k != "seconds"
    }


@contextmanager
def started(command: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that Ctrl-C reaches and that does not outlive the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # else one that is ignored here is ignored there
    try:
        process = subprocess.Popen(command, text=True, **streams)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.long
def test_a_killed_process_is_resumed(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "elicit", "run", "--model", str(tiny_folder), "--dtype", "float32", "--task", TASK]
    command += ["--limit", "12", "--max-new-tokens", "40", "--set", "k=4", "--batch-rows", "8", "--json"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True)
    with started([*command, "--out", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (killed / SAMPLES).is_file() or (killed / SAMPLES).stat().st_size < 4_000:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert 0 < len(samples(killed)) < len(samples(whole))
    done = subprocess.run([*command, "--out", str(killed)], check=True, capture_output=True, text=True)
    assert samples(killed) == samples(whole)
    assert json.loads(done.stdout)["items"] == 12


@pytest.mark.processor
def test_ctrl_c_keeps_what_is_finished(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "elicit", "run", "--model", str(tiny_folder), "--task", TASK, "--limit", "64"]
    command += ["--max-new-tokens", "200", "--batch-rows", "10", "--out", str(tmp_path / "run")]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "run" / SAMPLES).is_file() or not (tmp_path / "run" / SAMPLES).stat().st_size:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error
    assert Store.read(tmp_path / "run").traces()


def test_a_finished_run_is_not_computed_again(run: elicit.Run, handle: elicit.Elicited, task: Task) -> None:
    before = os.stat(run.folder / "metrics.json").st_mtime_ns
    assert elicit.evaluate(handle, task.test, against=AGAINST, out=run.folder).metrics == run.metrics
    assert os.stat(run.folder / "metrics.json").st_mtime_ns == before
    with pytest.raises(elicit.UserError, match="holds a run with other arms; give"):
        elicit.evaluate(handle, task.test, against="direct", out=run.folder)
    with pytest.raises(elicit.UserError, match=r"holds a run with other items, .*another seed; give"):
        elicit.evaluate(handle, task.test[:1], against=AGAINST, out=run.folder, seed=9)


def test_a_folder_that_is_no_run_is_left_alone(handle: elicit.Elicited, task: Task, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(elicit.UserError, match="holds no run"):
        elicit.evaluate(handle, task.test, out=tmp_path, fresh=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_handle_comes_back_as_it_was_saved(handle: elicit.Elicited, tiny: Model, task: Task, tmp_path: Path) -> None:
    from elicit.models.model import Provenance

    handle.save(tmp_path)
    assert elicit.Elicited.load(tmp_path, tiny) == handle
    push = Intervention(Add(Direction(torch.ones(32), Site(2))), when=When.programmed([0.5, 1.0]))
    steered = replace(handle, interventions=(push,))
    steered.answer(task.dev[:1])  # what it keeps for its own use while it answers is no part of it
    steered.save(tmp_path / "steered")
    assert elicit.Elicited.load(tmp_path / "steered", tiny) == steered
    other = replace(tiny, provenance=Provenance("x", "x", "", "0" * 64))
    assert elicit.Elicited.load(tmp_path, other).model is other  # a prompt and a decoder fit any model


def test_a_prompt_that_shows_what_is_asked_is_refused(tiny: Model, task: Task, tmp_path: Path) -> None:
    shown = elicit.methods.direct.fit(tiny, task.fit, prompt="few-shot", max_new_tokens=4)
    with pytest.raises(elicit.UserError, match="shows questions that are evaluated"):
        elicit.evaluate(shown, task.all, against=(), out=tmp_path / "run")
    assert elicit.evaluate(shown, task.test[:2], against=(), out=tmp_path / "run").metrics["items"] == 2


def test_another_handle_under_the_evaluated_ones_name_is_refused(
    handle: elicit.Elicited, task: Task, tmp_path: Path
) -> None:
    other = replace(handle, select="greedy")
    with pytest.raises(elicit.UserError, match=r"against holds a handle named cot-decoding, as .*; name it otherwise"):
        elicit.evaluate(handle, task.test[:2], against={handle.method: other}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_grader_that_cannot_be_trusted_stops_the_run(handle: elicit.Elicited, tmp_path: Path) -> None:
    broken = elicit.load_task("game-of-life-halting", limit=2)
    with pytest.raises(elicit.UserError, match="not to be trusted"):
        elicit.evaluate(handle, broken.test, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_figures_and_report_open_offline(run: elicit.Run) -> None:
    for name in ("branch-tree", "calibration", "coverage", "readings", "tokens"):
        assert run.figure(name).data
    page = (run.folder / "report.html").read_text()
    assert "<script src" not in page and "<link" not in page
    with pytest.raises(elicit.UserError, match="did you mean branch-tree"):
        run.figure("branchtree")


def test_intervals_of_calibration_are_over_questions(run: elicit.Run) -> None:
    """Fifty branches of each of four questions, of which two are right throughout: they are no 200 observations."""
    items = written_task(4).items
    branches = {
        q.id: [replace(written_trace(q, 0, "x"), delta=0.5, score=float(n < 2))] * 50 for n, q in enumerate(items)
    }
    (found,) = _calibration(branches, list(branches), 0)["bins"]
    assert (found["n"], found["questions"], found["right"]) == (200, 4, 0.5)
    assert found["interval"][0] < 0.1 and found["interval"][1] > 0.9
    assert all(" questions, " in said for said in run.figure("calibration").data[0].hovertext)


def test_a_margin_at_the_edge_of_a_bin_lies_in_the_bin_that_begins_there() -> None:
    items = written_task(1).items
    for edge in range(-5, 6):
        branches = {items[0].id: [replace(written_trace(items[0], 0, "x"), delta=edge / 5)]}
        (found,) = _calibration(branches, list(branches), 0)["bins"]
        assert (found["low"], found["high"]) == (min(edge, 4) / 5, (min(edge, 4) + 1) / 5)


def test_the_prompted_span_is_found_on_the_path(tiny: Model, task: Task) -> None:
    asked = elicit.methods.cot_decoding.fit(tiny, k=3, span="prompted", max_new_tokens=10)
    plain = elicit.methods.cot_decoding.fit(tiny, k=3, max_new_tokens=10)
    for with_prompt, without in zip(asked.answer(task.dev[:4]), plain.answer(task.dev[:4]), strict=True):
        for a, b in zip(with_prompt, without, strict=True):
            assert a.tokens == b.tokens and a.spent > b.spent
            if a.answer is not None and a.span is not None:
                assert a.answer in "".join(a.pieces[a.span[0] : a.span[1]])


def test_options_are_checked() -> None:
    from elicit.methods import check_options

    check_options("cot-decoding", {"k": 5, "select": "sum", "filters": False})
    for bad, word in (({"k": 2.5}, "expected int"), ({"kk": 2}, "did you mean k"), ({"filters": 1}, "expected bool")):
        with pytest.raises(elicit.UserError, match=word):
            check_options("cot-decoding", bad)
