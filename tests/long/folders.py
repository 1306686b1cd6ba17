"""A run's folder and a sweep's folder with very many entries, written and read by the code that every run uses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from elicit.evaluation.run.store import PARQUET, SAMPLES, Store
from elicit.evaluation.run.table import outcomes
from elicit.sweeps.folder import Folder
from elicit.sweeps.plan import Job
from tests.long.state import Point
from tests.support.written import written_task, written_trace

BATCH, KINDS = 64, 512  # samples written together; different texts among them
DAY = 86400


def run_folder(folder: Path, sizes: Sequence[int]) -> Iterator[Point]:
    """Append samples to a run's journal up to each size; then resume it, write its table and read that."""
    words = "a few words and then the answer"
    drawn = [written_trace(item, 0, f"{words} {item.answer}") for item in written_task(KINDS)]
    config = {"identity": {"model": "0", "items": "0"}, "arms": {}, "task": {}}
    store = Store.open(folder, config)
    yield Point.now(0)
    done, batches = 0, count()
    with store.writing() as journal:
        for size in sizes:
            while done < size:
                some = range(done, min(done + BATCH, size))
                journal.append("m", next(batches), [replace(drawn[n % KINDS], item=f"q-{n}") for n in some])
                done = some.stop
            yield Point.now(done, (folder / SAMPLES).stat().st_size)
    with Store.read(folder).writing() as journal:
        assert len(journal.spent["m"]) == done
    store.write_table([f"q-{n}" for n in range(done)])
    assert len(outcomes(folder / PARQUET)["m"]) == done
    yield Point.now(2 * done, (folder / SAMPLES).stat().st_size + (folder / PARQUET).stat().st_size)


def sweep_folder(folder: Path, sizes: Sequence[int]) -> Iterator[Point]:
    """Claim and finish jobs up to each size; every hundredth is first claimed by a worker that died a day ago."""
    jobs = [Job("run", {"seed": n}) for n in range(max(sizes))]
    sweep = Folder.plan(folder, jobs)
    yield Point.now(0)
    done = 0
    for size in sizes:
        for job in jobs[done:size]:
            if done % 100 == 0:
                dead = sweep.claim(job.key)
                assert dead is not None
                os.utime(dead.path, (0, dead.path.stat().st_mtime - DAY))
            lease = sweep.claim(job.key)
            assert lease is not None
            with lease.alive(60.0):
                pass
            assert sweep.finish(lease, job.key, {"accuracy": 0.5})
            done += 1
        yield Point.now(done, sum(file.stat().st_size for file in (folder / "done").iterdir()))
    sweep.close()
    counts = sweep.counts()
    assert counts["done"] == done and counts["died"] == -(-done // 100) and not counts["again"], counts
