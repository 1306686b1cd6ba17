"""What a sweep's folder costs and withstands.

    python -m experiments.benchmarks.sweep              # the first three; minutes
    python -m experiments.benchmarks.sweep --runs       # and twelve real evaluations with four kills

- share: sleeping jobs by one worker and by two: how many times as fast.
- empty: 10,000 jobs that do nothing, by one worker: milliseconds each, and the process's memory at its largest.
- kills: workers that are killed at random moments, twenty times, and the plan written again after each: jobs that are
  done and right, and work that was done twice.
- runs: twelve evaluations by workers of which four are killed, each at another job (a job that is killed twice is set
  aside), beside the same sweep undisturbed: equal results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elicit.sweeps.folder import Folder
from elicit.sweeps.plan import Job
from elicit.sweeps.worker import work

PLAN = """
[axes]
method = ["direct", "cot-prompt", "cot-decoding"]
model = ["smollm2-135m-latent"]
seed = [0, 1, 2, 3]
[run]
limit = 4
max_new_tokens = 24
against = "none"
dtype = "float32"
"""


def jobs(count: int) -> list[Job]:
    return [Job("run", {"model": "", "method": "sleep", "number": n}) for n in range(count)]


def sleeping(place: Path, seconds: float, stale: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.benchmarks.sweep", "--work", str(place), str(seconds), str(stale)]
    )


def share(scratch: Path) -> dict[str, Any]:
    took = []
    for workers in (1, 2):
        place = scratch / f"share {workers}"
        folder = Folder.plan(place, jobs(40))
        running = [sleeping(place, 0.5, 60) for _ in range(workers)]
        while not folder.counts()["running"]:  # Python has started
            time.sleep(0.01)
        begun = time.perf_counter()
        while folder.counts()["done"] < 40:
            time.sleep(0.02)
        took.append(time.perf_counter() - begun)
        for one in running:
            one.wait()
    return {"seconds": [round(one, 1) for one in took], "times_as_fast": round(took[0] / took[1], 2)}


def empty(scratch: Path) -> dict[str, Any]:
    place = scratch / "empty"
    begun = time.perf_counter()
    folder = Folder.plan(place, jobs(10_000))
    planned = time.perf_counter() - begun
    begun = time.perf_counter()
    work(folder, lambda job, run: {})
    took = time.perf_counter() - begun
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = folder.counts()
    return {
        "done": counts["done"], "planned_seconds": round(planned, 2), "milliseconds_each": round(took / 10, 2),
        "megabytes": round(megabytes),
    }  # fmt: skip


def kills(scratch: Path, count: int = 20) -> dict[str, Any]:
    place, drawn = scratch / "kills", random.Random(0)
    folder = Folder.plan(place, jobs(100))
    killed = 0
    running = [sleeping(place, 0.05, 1.0), sleeping(place, 0.05, 1.0)]
    while killed < count:
        time.sleep(drawn.uniform(0.5, 2.5))
        victim = running.pop(drawn.randrange(2))
        victim.kill()
        victim.wait()
        killed += 1
        Folder.plan(place, jobs(100))
        running.append(sleeping(place, 0.05, 1.0))
        if folder.counts()["waiting"] + folder.counts()["running"] == 0:
            break
    for one in running:
        one.wait()
    found = folder.results()
    right = sum(found[key]["number"] == job.given["number"] for key, job in folder.by_key.items() if key in found)
    return {"kills": killed, "jobs": 100, "right": right, **folder.counts()}


def fresh(place: Path) -> bool:
    """Whether the job that is being done has been killed by nobody."""
    leases = {path.name for path in (place / "lease").glob("[!.]*")}
    return bool(leases - {path.name.rpartition("-")[0] for path in (place / "dead").iterdir()})


def runs(scratch: Path) -> dict[str, Any]:
    from elicit.sweeps import joined

    tables, counts, killed = [], {}, 0
    file = scratch / "plan.toml"
    file.write_text(PLAN)
    for name in ("whole", "cut"):
        place = scratch / name
        elicit = [sys.executable, "-m", "elicit", "sweep"]
        subprocess.run([*elicit, "plan", str(file), "--out", str(place)], check=True)
        folder = Folder(place)
        while folder.counts()["done"] + folder.counts()["failed"] < 12:
            worker = subprocess.Popen([*elicit, "work", str(place), "--stale", "4"], stderr=subprocess.DEVNULL)
            if name == "cut" and killed < 4:
                done = folder.counts()["done"]
                while worker.poll() is None and (folder.counts()["done"] <= done or not fresh(place)):
                    time.sleep(0.02)
                if worker.poll() is None:
                    os.kill(worker.pid, signal.SIGKILL)
                    killed += 1
            worker.wait()
        tables.append(joined.table(joined.rows(joined.groups(folder))))
        counts = folder.counts()
    return {"evaluations": 12, "kills": killed, "equal": tables[0] == tables[1], **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", action="store_true")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        place, seconds, stale = given.work

        def do(job: Job, folder: Path) -> Mapping[str, Any]:
            time.sleep(float(seconds))
            return {"number": job.given["number"]}

        work(Folder(Path(place), float(stale)), do, poll=0.05)
        return
    with tempfile.TemporaryDirectory() as made:
        for part in (share, empty, kills, *((runs,) if given.runs else ())):
            print(json.dumps({part.__name__: part(Path(made))}), flush=True)


if __name__ == "__main__":
    main()
