"""The small version of `python -m tests.long`: what a process holds does not grow, and a sample costs what it cost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from elicit.decoding import record
from elicit.decoding.loop import StopRule
from tests.long import folders, requests
from tests.long.__main__ import tiny_served
from tests.long.state import HEAD, Point, row

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_a_runs_journal_grows_by_its_samples_alone(tmp_path: Path) -> None:
    start, one, two, _ = folders.run_folder(tmp_path / "run", [640, 1280])
    assert one.descriptors == two.descriptors == start.descriptors + 2  # the journal's and the lock's
    assert (two.size - one.size) == pytest.approx(one.size, rel=0.05)
    assert two.objects - one.objects < 640 * 2  # of a sample no more than that it is done, and its tokens


def test_a_sweep_holds_nothing_of_what_is_done(tmp_path: Path) -> None:
    start, one, two = folders.sweep_folder(tmp_path / "sweep", [60, 120])
    assert start.descriptors == one.descriptors == two.descriptors
    assert two.objects - one.objects < 60


def test_a_server_holds_nothing_of_what_is_answered(tmp_path: Path) -> None:
    _, one, two = requests.served(tiny_served(tmp_path), [128, 256], rows=32)
    assert two.descriptors == one.descriptors
    assert two.objects - one.objects < 128


def test_stop_strings_of_many_clients_are_not_kept(tmp_path: Path) -> None:
    served = tiny_served(tmp_path)
    model = served.handles["direct"].model
    tables = [
        record._tokens_that_could_end(StopRule(model.eos_ids, (f"x{chr(n)}",), model.tokenizer)).copy()
        for n in [*range(200, 300), 200]
    ]
    assert len(record._COULD_END[model.tokenizer]) <= record.TABLES
    assert (tables[0] == tables[-1]).all()


def test_rows_are_of_what_came_since() -> None:
    said = row(Point(10, 0, 3, 5, 1.0, 100), Point(20, 2_000_000, 4, 6, 1.5, 400))
    assert said == "| 20 | 2 | 4 | 6 | 50.000 | 30 |" and HEAD.count("|") == 14
