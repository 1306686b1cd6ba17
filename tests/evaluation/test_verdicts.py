"""Answers without a verdict for want of time: counted, alike in any order, and no accuracy where they are many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from elicit.evaluation.metrics.bottom_line import of_run
from elicit.evaluation.metrics.verdicts import is_accuracy, not_stated
from elicit.evaluation.seeds import rows_of as seed_rows
from elicit.evaluation.seeds import runs_over_seeds
from elicit.models import Model
from elicit.report import compare_runs, rows_of
from elicit.report.run_section import arm_table, group_parts, notes, reading_rows, run_sections
from elicit.tasks import grading
from elicit.tasks.worker import Worker
from probes.errors import UserError
from tests.support.shell import shell
from tests.support.written import written_run, written_task


def arm(lost: int, *, items: int = 40, branches: float = 1, why: str = "time") -> dict[str, object]:
    return {"unjudged": {why: lost} if lost else {}, "branches_per_item": branches, "accuracy": 0.25}


def test_at_most_five_in_a_hundred_may_be_lost() -> None:
    assert is_accuracy(arm(0), 40) and is_accuracy(arm(2), 40) and not is_accuracy(arm(3), 40)
    assert is_accuracy(arm(3, branches=2), 40)
    assert is_accuracy(arm(7, branches=2.8), 50) and not is_accuracy(arm(8, branches=2.8), 50)  # 7 of 140 are five
    assert is_accuracy(arm(40, why="raised"), 40)  # what a scorer cannot read is not right: a verdict
    assert all(not is_accuracy(arm(3, why=why), 40) for why in ("memory", "died"))
    assert not_stated({"a": arm(1)}, 40) == ""
    told = not_stated({"a": arm(1), "b": arm(7)}, 40)
    assert told.startswith("No accuracy is stated: 7 of 40 answers of b have no verdict, more than 5%;")


def test_a_run_that_lost_many_verdicts_states_no_accuracy(tiny: Model, tmp_path: Path) -> None:
    said = {"m": lambda item, b: f"it is {item.answer}", "direct": lambda item, b: f"it is {item.answer}"}
    run = written_run(tiny, tmp_path / "run", written_task(4), "m", said)
    whole = run.summary()
    assert whole.loc["m", "accuracy"] == 1 and not of_run(run.metrics).sentence.startswith("No accuracy")
    run.metrics["arms"]["direct"] |= {"unjudged": {"time": 1}}
    line = of_run(run.metrics)
    assert line.outcome == "no verdicts" and "1 of 4 answers of direct have no verdict" in line.sentence
    rows = run.summary()
    assert rows.loc["m", "accuracy"] == 1 and math.isnan(rows.loc["direct", "accuracy"])
    assert math.isnan(rows.loc["direct", "difference"]) and rows.loc["direct", "tokens/item"] > 0
    _, (_, direct) = arm_table(run.metrics)
    assert direct[1] == "not stated (100.0 or more)" and direct[3:5] == ("", "")
    assert any("direct 1 used up the scorer's time" in note for note in notes(run.metrics))


def test_nor_do_tables_over_runs_and_seeds(tiny: Model, tmp_path: Path) -> None:
    said = {"m": lambda item, b: f"it is {item.answer}", "direct": lambda item, b: "it is 99"}
    runs = [written_run(tiny, tmp_path / str(n), written_task(4), "m", said) for n in range(2)]
    assert [row["difference"] for row in compare_runs(runs[:1])["arms"] if "difference" in row] == [1.0]
    assert [row["accuracy"] for row in runs_over_seeds(dict(enumerate(runs)))["arms"]] == [1.0, 0.0]
    runs[1].metrics["arms"]["m"] |= {"unjudged": {"time": 1}}
    result = compare_runs(runs[1:])
    assert [row["stated"] for row in result["arms"]] == [True, False] and "difference" not in result["arms"][1]
    assert [row[1:6] for row in rows_of(result)][1] == ("not stated (100.0 or more)", "", "", "", "")
    pooled = runs_over_seeds(dict(enumerate(runs)))["arms"]
    assert pooled[0] == {"arm": "m"} and "difference" not in pooled[1]
    assert seed_rows(pooled)[0] == ("m", "not stated", "", "")


def test_nor_does_the_rest_of_the_page(tiny: Model, tmp_path: Path) -> None:
    """Readings, groups, avg@k and figures state no accuracy either, nor what would be a difference to one."""
    task = written_task(4)
    for n, item in enumerate(task.items):
        item.metadata["level"] = n % 2
    said = {"m": lambda item, b: f"it is {item.answer if b else 9}", "direct": lambda item, b: f"it is {item.answer}"}
    run = written_run(tiny, tmp_path / "run", task, "m", said, 2)
    run.metrics["samples"] = {"avg_at_k": {"k": 2, "mean": 0.5, "interval": [0.1, 0.9]}}
    titles = lambda: [part[0] for part in run_sections(run) if isinstance(part, tuple)]  # noqa: E731
    assert titles() == ["Accuracy", "One question", "Calibration", "Coverage"]
    assert reading_rows(run.metrics)[0][2] and any("avg@2" in note for note in notes(run.metrics))
    whole = reading_rows(run.metrics)

    run.metrics["arms"]["direct"] |= {"unjudged": {"time": 1}}
    assert reading_rows(run.metrics) == [(rule, accuracy, "") for rule, accuracy, _ in whole]
    assert "not stated (100.0 or more)" in group_parts(run.metrics)[0]
    assert [label.split(":")[0] for label in run.figure("readings").data[0].y] == ["m"] * len(whole)

    run.metrics["arms"]["m"] |= {"unjudged": {"time": 2}}
    rows = reading_rows(run.metrics)
    assert rows[0] == ("greedy", "not stated (0.0 or more)", "") and len(rows) == len(whole)
    assert all(row[1].startswith("not stated (") and row[2] == "" for row in rows)
    assert not any("avg@2" in note or "AUROC" in note for note in notes(run.metrics))
    assert titles() == ["One question"]
    for name in ("readings", "calibration", "coverage"):
        with pytest.raises(UserError, match="2 of 8 answers of m have no verdict"):
            run.figure(name)


def test_nor_does_a_regraded_run(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"m": lambda item, b: f"it is {item.answer}", "direct": lambda item, b: "it is 99"}
    old, new = (written_run(tiny, tmp_path / name, written_task(4), "m", said) for name in ("old", "new"))
    old.metrics["arms"]["m"] |= {"unjudged": {"time": 1}}
    monkeypatch.setattr("elicit.evaluation.run.run.Run.load", lambda folder: old)
    monkeypatch.setattr("elicit.evaluation.regrade.regrade", lambda *given: new)
    code, out, err = shell("regrade", "old")
    assert code == 0, err
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "m not stated (100.0 or more) 100.0 4 0 0" in lines and "direct 0.0 0.0 4 0 0" in lines


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    one = Worker(deadline=0.5)
    monkeypatch.setattr(grading, "WORKER", one)
    yield one
    one.close()


def test_verdicts_do_not_hang_on_the_order(worker: Worker) -> None:
    """A dear expression costs its own time, and nothing of the next one's."""
    dear, cheap = r"\int_0^{10^9}\sin(x^{x^x})^{x!}dx", [r"\frac{1}{2}+\frac{1}{3}", r"\sqrt{12}-\sqrt{3}"]
    found = []
    for order in ([dear, *cheap], [*cheap, dear]):
        grading._math_value.cache_clear()
        found.append({text: grading._math_value(text, "") for text in order})
    assert found[0] == found[1] and found[0][dear][1] == "time" and all(found[0][text][0] for text in cheap)
    grading._math_value.cache_clear()
