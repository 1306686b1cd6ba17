"""A run knows when it is not whole: whatever happens to a file of it, one line says so or nothing changed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import elicit
from elicit.evaluation.run.store import CONFIG, ITEMS, METRICS, PARQUET, SAMPLES
from elicit.models import Model
from probes.errors import UserError
from tests.damage.damages import damaged, flip
from tests.damage.kind import LINE, SAME, Kind, Reading
from tests.damage.runs import KINDS, all_of_it
from tests.support.shell import shell
from tests.support.toys import toy_task
from tests.support.unsealed import unsealed

TRIED = 40  # cuts, bits and other damages of each file; `python -m tests.damage` tries as many as are asked for


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_told_or_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    whole = Reading.of(kind, tmp_path)
    rng, size = random.Random(0), len(whole.data)
    cuts = [whole.data[:n] for n in {0, size - 1, *rng.sample(range(size), min(size, TRIED))}]
    flips = [flip(whole.data, bit) for bit in rng.sample(range(8 * size), min(8 * size, TRIED))]
    others = [damaged(whole.data, "", rng) for _ in range(TRIED)]
    for data in (*cuts, *flips, *others):
        outcome, error = whole.after(data)
        assert outcome in (LINE, SAME), (outcome, error, data)
    assert whole.after(whole.data)[0] == SAME
    half = whole.after(whole.data[: size // 2])[0]
    assert half == (SAME if kind.name == f"unfinished run: {SAMPLES}" else LINE)


def test_what_is_missing_or_of_another_run_is_one_line_with_the_way_out(tiny: Model, tmp_path: Path) -> None:
    task = toy_task(2)
    handle = elicit.methods.direct.fit(tiny, max_new_tokens=4)
    one, two = (elicit.evaluate(handle, task.test, against=(), out=tmp_path / str(s), seed=s).folder for s in (0, 1))
    before = {file.name: file.read_bytes() for file in one.iterdir() if file.is_file()}
    for name in (CONFIG, ITEMS, SAMPLES, PARQUET):
        (one / name).unlink()
        if name == SAMPLES:
            for command in ("report", "compare"):
                code, _, err = shell(command, str(one), "--out", str(tmp_path / "page.html"))
                assert code == 2 and err.count("\n") == 1, err
                assert "is not whole: its samples.jsonl is missing; put the file back" in err
        for other in {None, (two / name).read_bytes()} - {before[name]}:
            if other is not None:
                (one / name).write_bytes(other)
            with pytest.raises(UserError, match=name) as error:
                elicit.Run.load(one).store.check()
            assert "\n" not in str(error.value)
        (one / name).write_bytes(before[name])
    (one / SAMPLES).write_bytes(before[SAMPLES][:-3] + b"\xff\x00\n")  # as the way out says
    (one / METRICS).unlink()
    again = elicit.evaluate(handle, task.test, against=(), out=one)
    assert (one / SAMPLES).read_bytes() == before[SAMPLES] and (one / PARQUET).read_bytes() == before[PARQUET]
    again.store.check()


def test_samples_of_another_run_are_decoded_again(tiny: Model, tmp_path: Path) -> None:
    handles = [elicit.methods.direct.fit(tiny, max_new_tokens=n) for n in (3, 4)]
    task = toy_task(2)
    one, two = (elicit.evaluate(h, task.test, against=(), out=tmp_path / str(n)).folder for n, h in enumerate(handles))
    whole = (one / SAMPLES).read_bytes()
    (one / SAMPLES).write_bytes((two / SAMPLES).read_bytes())
    (one / METRICS).unlink()
    elicit.evaluate(handles[0], task.test, against=(), out=one)
    assert (one / SAMPLES).read_bytes() == whole


def test_an_older_run_is_read_as_it_is(tiny: Model, tmp_path: Path) -> None:
    handle = elicit.methods.direct.fit(tiny, max_new_tokens=4)
    run = elicit.evaluate(handle, toy_task(2).test, against=(), out=tmp_path / "run")
    older = elicit.Run.load(unsealed(run.folder))
    assert older.metrics == run.metrics and older.traces == run.traces and older.outcomes == run.outcomes
    for name in (ITEMS, PARQUET, METRICS):
        whole = (run.folder / name).read_bytes()
        (run.folder / name).write_bytes(whole[:-3])
        with pytest.raises(UserError, match=f"is not whole: its {name}"):
            all_of_it(run.folder / name)
        (run.folder / name).write_bytes(whole)
