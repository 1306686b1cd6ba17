"""Sweeps: each job once, whoever is killed; the same results as undisturbed; one line for what is wrong."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from elicit.cli.sweep import Doer
from elicit.sweeps import joined, launch
from elicit.sweeps.folder import Folder, Lease
from elicit.sweeps.plan import Job
from elicit.sweeps.worker import work
from probes.errors import UserError
from tests.support.shell import shell
from tests.support.sleeping import jobs
from tests.support.tiny import save_tiny


def number(job: Job, folder: Path) -> Mapping[str, Any]:
    return {"number": job.given["number"]}


def worker(place: Path, seconds: float, stale: float = 1.0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.sleeping", str(place), str(seconds), str(stale)]
    return subprocess.Popen(command)


def check_whole(folder: Folder) -> None:
    """Every job is done, once, with its own result; no lease is left."""
    assert [found["number"] for found in folder.results().values()] == [job.given["number"] for job in folder.jobs]
    counts = folder.counts()
    assert (counts["done"], counts["failed"], counts["running"]) == (len(folder.jobs), 0, 0)


def test_workers_share_the_jobs(tmp_path: Path) -> None:
    folder = Folder.plan(tmp_path, jobs(24))
    both = [worker(tmp_path, 0.1), worker(tmp_path, 0.1)]
    assert [one.wait() for one in both] == [0, 0]
    check_whole(folder)
    assert len({found["worker"] for found in folder.results().values()}) == 2
    assert folder.counts()["again"] == 0


def test_workers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    folder = Folder.plan(tmp_path, jobs(16))
    drawn = random.Random(0)
    for turn in range(5):
        one = worker(tmp_path, 0.1)
        while folder.counts()["done"] <= 2 * turn or not folder.counts()["running"]:
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, 0.08))
        one.kill()
        one.wait()
        for lease in (tmp_path / "lease").glob("[!.]*"):  # as it will be when the job is taken over
            os.utime(lease, (1, 1))
    work(Folder(tmp_path), number)
    check_whole(folder)
    assert folder.counts()["died"] >= 3


def test_an_interrupted_worker_lets_its_job_go(tmp_path: Path) -> None:
    Folder.plan(tmp_path, jobs(2))

    def interrupted(job: Job, folder: Path) -> Mapping[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(Folder(tmp_path), interrupted)
    assert os.listdir(tmp_path / "lease") == []
    assert work(Folder(tmp_path), number) == {"done": 2, "again": 0, "failed": 0}


def test_of_many_who_take_a_lease_over_one_succeeds(tmp_path: Path) -> None:
    """Also where another began it anew between the look and the move: that one's is given back."""
    folder = Folder.plan(tmp_path, jobs(1))
    (key,) = folder.by_key
    for turn in range(20):
        for path in [*(tmp_path / "dead").iterdir(), *(tmp_path / "lease").iterdir()]:
            path.unlink()
        first = Folder(tmp_path).claim(key)
        assert first is not None
        os.utime(first.path, (1, 1))
        won: list[Lease] = []
        start = threading.Barrier(6)

        def claim(won: list[Lease] = won, start: threading.Barrier = start) -> None:
            mine = Folder(tmp_path)
            start.wait()
            if (lease := mine.claim(key)) is not None:
                won.append(lease)

        threads = [threading.Thread(target=claim) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([lease for lease in won if lease.mine]) == len(won) == 1, turn
        assert not first.mine


def test_a_lease_is_as_old_as_the_folder_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines whose clocks are an hour apart."""
    folder = Folder.plan(tmp_path, jobs(1))
    (key,) = folder.by_key
    assert folder.claim(key) is not None
    true = time.time
    for apart in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda apart=apart: true() + apart)
        assert Folder(tmp_path, 60.0).claim(key) is None
    os.utime(tmp_path / "lease" / key, (true() - 61, true() - 61))
    assert Folder(tmp_path, 60.0).claim(key) is not None


def test_a_job_that_kills_its_worker_twice_is_set_aside(tmp_path: Path) -> None:
    folder = Folder.plan(tmp_path, jobs(3))
    key = next(iter(folder.by_key))
    for _ in range(2):
        lease = folder.claim(key)
        assert lease is not None
        os.utime(lease.path, (1, 1))
    work(Folder(tmp_path), number)
    assert folder.counts() == {
        "jobs": 3, "done": 2, "running": 0, "failed": 1, "waiting": 0, "again": 0, "died": 2,
    }  # fmt: skip
    assert "died 2 times" in folder.failures()[key]


def test_who_was_thought_dead_stores_nothing_twice(tmp_path: Path) -> None:
    folder = Folder.plan(tmp_path, jobs(1))
    (key,) = folder.by_key
    slow = folder.claim(key)
    assert slow is not None
    os.utime(slow.path, (1, 1))
    quick = folder.claim(key)
    assert quick is not None
    with slow.alive(0.01):
        time.sleep(0.1)
    assert slow.lost
    assert folder.finish(quick, key, {"number": 0, "who": "quick"})
    assert not folder.finish(slow, key, {"number": 0, "who": "slow"})
    assert folder.results()[key]["who"] == "quick"
    assert folder.counts()["again"] == 1


def test_what_fails_is_kept_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    some = jobs(4)
    after = [Job("analyse", {"name": "x"}, (some[0].key,)), Job("analyse", {"name": "y"}, (some[2].key,))]
    folder = Folder.plan(tmp_path, [*some, *after])

    def fails(job: Job, place: Path) -> Mapping[str, Any]:
        if job.given.get("number") == 0:
            raise UserError("no such thing; give another")
        if job.given.get("number") == 1:
            raise ZeroDivisionError("by nothing")
        return dict(job.given)

    assert work(folder, fails) == {"done": 3, "again": 0, "failed": 2}
    told = folder.failures()
    assert told[some[0].key] == "no such thing; give another"
    assert "ZeroDivisionError: by nothing" in told[some[1].key]
    assert "needs has failed" in told[after[0].key]
    assert folder.done(after[1].key)


def work_without_room(place: Path, bytes_left: int) -> subprocess.CompletedProcess[str]:
    """A worker of jobs that write 64 kB each, where no file may become larger than so many bytes."""
    code = f"""
import resource, sys
from pathlib import Path
from elicit.cli import main
from elicit.cli.sweep import Doer

def do(self, job, folder):
    folder.mkdir(exist_ok=True)
    (folder / "part").write_bytes(bytes(65536 if job.given["number"] else 16))
    return dict(job.given)

Doer.do = do
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes_left}, {bytes_left}))
sys.argv = ["elicit", "sweep", "work", {str(place)!r}]
main()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_a_full_disk_ends_the_worker_and_no_job(tmp_path: Path) -> None:
    folder = Folder.plan(tmp_path, jobs(3, models=1))
    for bytes_left, done in ((65535, 1), (16, 1), (0, 1)):  # the second job's file; a lease
        ended = work_without_room(tmp_path, bytes_left)
        last = ended.stderr.strip().splitlines()[-1]
        assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
        assert "no room to write" in last and last.startswith("elicit: "), last
        counts = folder.counts()
        assert (counts["done"], counts["failed"], counts["running"], counts["waiting"]) == (done, 0, 0, 2)
        assert not [one for part in ("done", "failed") for one in (tmp_path / part).glob(".*")]
    assert work_without_room(tmp_path, 1 << 20).returncode == 0
    check_whole(folder)


PLAN = """
analyses = ["format-share"]
[axes]
method = ["direct", "self-consistency"]
model = ["{model}"]
task = ["chain-sum:min_terms=2,max_terms=2"]
seed = [0, 1]
[axes.options]
samples = [2, 3]
[run]
limit = 3
max_new_tokens = 6
against = "none"
dtype = "float32"
"""


def test_a_sweep_that_is_cut_is_the_sweep_that_is_not(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(PLAN.format(model=save_tiny(tmp_path / "tiny")))
    tables = []
    for name in ("whole", "cut"):
        place = tmp_path / name
        assert shell("sweep", "plan", str(file), "--out", str(place))[0] == 0
        folder = Folder(place)
        assert [job.kind for job in folder.jobs].count("run") == 6  # direct has no samples
        doer, count = Doer(), [0]

        def do(job: Job, run: Path, doer: Doer = doer, count: list[int] = count, name: str = name) -> Mapping[str, Any]:
            count[0] += 1
            if name == "cut" and count[0] in (2, 4):
                raise KeyboardInterrupt
            return doer.do(job, run)

        for _ in range(2 if name == "cut" else 0):
            with pytest.raises(KeyboardInterrupt):
                work(Folder(place), do)
        work(Folder(place), do)
        assert folder.counts()["done"] == len(folder.jobs)
        tables.append(joined.table(joined.rows(joined.groups(folder))))
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == 4
    code, out, _ = shell("sweep", "status", str(tmp_path / "cut"), "--json")
    assert (code, json.loads(out)["done"]) == (0, 7)


def test_a_fit_is_a_job_whose_bundle_is_evaluated_on_every_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = save_tiny(tmp_path / "tiny")
    Path("plan.toml").write_text(f"""
[axes]
method = ["one-shot-rlvr"]
model = ["{model}"]
task = ["chain-sum:min_terms=2,max_terms=2", "chain-sum:min_terms=3,max_terms=3"]
[options]
reward = "exact+random:0.5"
updates = 1
rollouts = 4
group = 4
rollout_tokens = 4
rank = 2
pool = 2
check_every = 0
[run]
limit = 2
max_new_tokens = 4
against = "none"
dtype = "float32"
track = "tensorboard:tracks"
[fit]
task = "chain-sum:min_terms=2,max_terms=2"
""")
    assert "1 fits, 2 runs and 0 analyses" in shell("sweep", "plan", "plan.toml", "--out", "sweep")[1]
    assert shell("sweep", "work", "sweep")[0] == 0
    folder = Folder(Path("sweep"))
    assert folder.counts()["done"] == 3
    fitted, *runs = folder.jobs
    assert fitted.kind == "fit" and all(job.needs == (fitted.key,) for job in runs)
    bundle = folder.run_folder(fitted.key) / "bundle"
    weights = (bundle / "adapter" / "adapter_model.safetensors").read_bytes()
    for job in runs:
        kept = folder.run_folder(job.key) / "elicited" / "adapter" / "adapter_model.safetensors"
        assert kept.read_bytes() == weights
    assert len(list(Path("runs").glob("one-shot-rlvr-fit-*"))) == 1  # trained once
    assert len(list(joined.rows(joined.groups(folder)))) == 2
    tracks = [file.read_bytes() for file in Path("tracks").rglob("events.*")]
    assert sum(b"one-shot-rlvr/loss" in track for track in tracks) == 1  # of the fit
    assert sum(b"one-shot-rlvr/tokens_per_item" in track for track in tracks) == 2  # of the runs


def test_without_submitit_a_script_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    script = launch.slurm(Folder.plan(tmp_path, jobs(1)).path, 4, ["--stale", "60"])
    text = script.read_text()
    assert "--array=0-3" in text
    assert text.endswith(f"-m elicit sweep work {tmp_path.resolve()} --stale 60\n")
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


@pytest.mark.long
def test_an_interruption_reaches_the_workers(tmp_path: Path) -> None:
    Folder.plan(tmp_path, jobs(2))
    one = worker(tmp_path, 30)
    while not list((tmp_path / "lease").glob("[!.]*")):
        time.sleep(0.02)
    one.send_signal(signal.SIGINT)
    one.wait()
    assert os.listdir(tmp_path / "lease") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[axis]\nmethod = ['direct']", "did you mean axes"),
        ("[axes]\nmethods = ['direct']", "did you mean axes.method"),
        ("[axes]\nmethod = []", "axes.method"),
        ("[axes]\nmethod = ['dirct']", "did you mean direct"),
        ("[axes]\nmethod = ['direct', 'cot-decoding']\n[axes.options]\nk = []", "axes.options.k: list should have"),
        ("[axes]\nmethod = ['direct']\nseed = ['a']", "axes.seed.0"),
        ("[axes]\nmethod = ['direct', 'direct']", "two jobs are equal"),
        ("[axes]\nmethod = ['direct']\n[run]\nlimt = 3", "did you mean limit"),
        ("[axes]\nmethod = ['direct']\n[run]\nlimit = 'x'", "run.limit"),
        ("[axes]\nmethod = ['direct']\n[run]\nout = 'x'", "each job has a folder of the sweep's own"),
        ("[axes]\nmethod = ['direct']\n[axes.options]\nk = [3]", "unknown option of these methods"),
        ("[axes]\nmethod = ['cot-decoding']\n[options]\nk = 'x'", "k"),
        ("[axes]\nmethod = ['direct']\n[fit]\ntsk = 'chain-sum'", "did you mean fit.task"),
        ("[axes]\nmethod = ['direct']\n[run]\ncontrols = true\n[fit]\ntask = 'chain-sum'", "give one"),
        ("analyses = ['pas-at-k']\n[axes]\nmethod = ['direct']", "did you mean pass-at-k"),
        ("[axes]\nmethod = ['direct']\n[run]\ntrack = 'tensorbord:x'", "did you mean tensorboard"),
        ("[axes]\nmethod = ['direct']\nseed = [-1]", "axes.seed.0: input should be greater than or equal to 0"),
        ("[axes]\nmethod = ['direct']\ntask = ['chain-sun']", "did you mean chain-sum"),
        ("[axes]\nmethod = ['direct']\ntask = ['chain-sum:min_trms=2']", "has no parameter 'min_trms'"),
        ("[axes]\nmethod = ['direct']\n[fit]\ntask = 'chain-sun'", "did you mean chain-sum"),
        *(
            (f"[axes]\nmethod = ['direct']\n[run]\n{line}", told)
            for line, told in (
                ("preset = 'cot-decoding-mistral-7b'", "a sweep does not take; write out the settings that elicit pre"),
                ("size = 'short'", "run.size = 'short' was given, which a sweep does not take"),
                ("dry_run = true", "run.dry_run = True was given, which a sweep does not take"),
                ("seed = 3", "list it in axes.seed"),
                ("limit = true", "expected a value like 128"),
                ("limit = 0", "run.limit = 0 was given; give at least 1"),
                ("limit = [1]", "run.limit: expected true or false, a number or a text"),
                ("batch_rows = '8'", "run.batch_rows = '8' was given; expected a whole number"),
                ("device_map = 1", "expected text"),
                ("against = 'none, dirct'", "unknown baseline 'dirct'; did you mean direct"),
                ("dtype = 'float33'", "did you mean float32"),
                ("split = 'tset'", "did you mean test"),
                ("engine = 'nope'", "unknown engine 'nope'"),
                ("engine_setting = 'fuse=true'", "expected a list of texts"),
                ("engine = 'graph'\nengine_setting = ['fus=true']", "did you mean fuse"),
                ("trainer = 'own'", "unknown option of direct 'trainer'"),
            )
        ),
        ("[axes", "is not TOML"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    code, _, error = shell("sweep", "plan", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "sweep"))
    assert (code, told in error, error.count("\n")) == (2, True, 1), error
    assert not (tmp_path / "sweep").exists()


def test_an_engine_is_told_its_settings(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f"""
[axes]
method = ["direct"]
model = ["{save_tiny(tmp_path / "tiny")}"]
task = ["chain-sum"]
[run]
limit = 2
max_new_tokens = 4
against = "none"
dtype = "float32"
device = "cpu"
engine = "graph"
engine_setting = ["fuse=true"]
""")
    assert shell("sweep", "plan", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "sweep"))[0] == 0
    doer = Doer()
    assert work(Folder(tmp_path / "sweep"), doer.do)["done"] == 1
    assert (doer.model.engine, doer.model.engine_options) == ("graph", {"fuse": True})


UNGRADED = """
import os

def sums():
    rows = [{"question": f"{n} + 0 = ?", "answer": str(n)} for n in range(1, 41)]
    return rows, grade

def grade(response, row):
    if not any(c.isdigit() for c in response):
        os._exit(1)
    return response.rstrip(".").endswith(row["answer"])
"""


def test_runs_without_an_accuracy_are_shown_and_written(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(UNGRADED)
    (tmp_path / "plan.toml").write_text(f"""
[axes]
method = ["direct"]
model = ["{save_tiny(tmp_path / "tiny")}"]
task = ["{tmp_path}/sums.py:sums"]
[run]
limit = 2
max_new_tokens = 4
against = "none"
dtype = "float32"
""")
    place, table, page = (str(tmp_path / name) for name in ("sweep", "table.csv", "page.html"))
    assert shell("sweep", "plan", str(tmp_path / "plan.toml"), "--out", place)[0] == 0
    code, out, error = shell("sweep", "status", place, "--out", table, "--page", page)
    assert code == 2 and "1 waiting" in out and "no run of" in error and not Path(page).exists()
    assert shell("sweep", "work", place)[0] == 0
    for more in ((), ("--json",)):
        Path(page).unlink(missing_ok=True)
        Path(table).unlink()
        code, out, error = shell("sweep", "status", place, "--out", table, "--page", page, *more)
        assert code == 0, error
        assert json.loads(out)["results"][0]["accuracy"] == "" if more else "not stated" in out
        assert Path(page).is_file() and len(Path(table).read_text().splitlines()) == 2


def test_a_sweep_with_failed_jobs_ends_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(f"""
[axes]
method = ["direct"]
model = ["{save_tiny(tmp_path / "tiny")}"]
task = ["chain-sum:min_terms=2,max_terms=2", "gone.jsonl"]
[run]
limit = 2
max_new_tokens = 4
dtype = "float32"
""")
    assert shell("sweep", "plan", "plan.toml", "--out", "sweep")[0] == 0
    for _ in range(2):  # also where nothing is left to do
        code, _, error = shell("sweep", "work", "sweep")
        assert code == 1 and "1 of 2 jobs failed; elicit sweep status sweep says why" in error
    assert Folder(Path("sweep")).counts()["done"] == 1


def test_folders_that_are_none(tmp_path: Path) -> None:
    folder = Folder.plan(tmp_path / "a", jobs(2))
    with pytest.raises(UserError, match="holds another sweep"):
        Folder.plan(tmp_path / "a", jobs(3))
    (tmp_path / "a" / "jobs.json").write_text((tmp_path / "a" / "jobs.json").read_text().replace("sleep", "wake"))
    for place, told in ((tmp_path, "holds no sweep"), (tmp_path / "a", "was changed")):
        code, _, error = shell("sweep", "work", str(place))
        assert (code, told in error) == (2, True), error
    (tmp_path / "a" / "jobs.json").write_text("{")
    assert "cannot be read" in shell("sweep", "status", str(tmp_path / "a"))[2]
    for file in (tmp_path / "a" / "lease").iterdir():
        file.unlink()
    (tmp_path / "a" / "lease").rmdir()
    with pytest.raises(UserError, match="no lease can be made"):
        work(folder, number)
    assert "did you mean slurm" in shell("sweep", "work", str(tmp_path / "a"), "--launcher", "slrum")[2]
