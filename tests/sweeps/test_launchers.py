"""The same sweep by three launchers, each with real workers: equal results, also where one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from elicit.sweeps.folder import Folder
from tests.support.shell import shell
from tests.support.tiny import save_tiny

PLAN = """
[axes]
method = ["direct", "self-consistency"]
model = ["{model}"]
task = ["chain-sum:min_terms=2,max_terms=2"]
seed = [0, 1]
[run]
limit = 2
max_new_tokens = 4
against = "none"
dtype = "float32"
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plan")
    (place / "plan.toml").write_text(PLAN.format(model=save_tiny(place / "tiny")))
    return place / "plan.toml"


def table(folder: Path) -> list[dict[str, object]]:
    code, out, error = shell("sweep", "status", str(folder), "--json")
    assert code == 0, error
    found = json.loads(out)
    assert (found["done"], found["again"], found["failed"]) == (4, 0, 0)
    return found["results"]  # type: ignore[no-any-return]


@pytest.mark.long
def test_launchers_do_the_same(plan: Path, tmp_path: Path) -> None:
    tables = []
    for launcher in ("local", "slurm", "ray"):
        place = tmp_path / launcher
        assert shell("sweep", "plan", str(plan), "--out", str(place))[0] == 0
        command = [
            sys.executable,
            "-m",
            "elicit",
            "sweep",
            "work",
            str(place),
            "--launcher",
            launcher,
            "--workers",
            "2",
        ]
        done = subprocess.run([*command, "--stale", "5"], capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        while (
            launcher == "slurm" and Folder(place).counts()["done"] < 4
        ):  # submitit runs them here, and returns at once
            time.sleep(0.2)
        tables.append(table(place))
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.long
def test_an_actor_that_is_killed_leaves_its_job_to_the_other(plan: Path, tmp_path: Path) -> None:
    place = tmp_path / "ray"
    shell("sweep", "plan", str(plan), "--out", str(place))
    command = [sys.executable, "-m", "elicit", "sweep", "work", str(place), "--launcher", "ray", "--workers", "2"]
    with subprocess.Popen([*command, "--stale", "2"], stdout=subprocess.PIPE, text=True) as running:

        def kill() -> None:
            while not (leases := list((place / "lease").glob("[!.]*"))):
                time.sleep(0.02)
            worker = psutil.Process(json.loads(leases[0].read_text())["pid"])
            actor = worker.parent()
            os.kill(worker.pid, signal.SIGKILL)
            if actor is not None:
                os.kill(actor.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        out, _ = running.communicate(timeout=600)
        killer.join()
    assert '"died": 1' in out
    assert Folder(place).counts()["died"] == 1
    table(place)
