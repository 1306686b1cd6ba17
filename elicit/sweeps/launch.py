"""Several workers at once: as processes here, as an array of SLURM, or in Ray's actors. All run the same command."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.files import write_whole

LAUNCHERS = ("local", "slurm", "ray")
SCRIPT = """#!/bin/bash
#SBATCH --job-name=elicit-sweep
#SBATCH --array=0-{last}
#SBATCH --output={folder}/slurm-%A-%a.log
#SBATCH --signal=TERM@60
exec {command}
"""


def command_of(folder: Path, more: Sequence[str] = ()) -> list[str]:
    """What one worker is started by."""
    return [sys.executable, "-m", "elicit", "sweep", "work", str(folder), *more]


def _cores() -> int:
    """That this process may use, where the system tells it (Linux), else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(number: int, workers: int) -> dict[str, str]:
    """Of worker `number` of so many on this machine: its share of the cores, and one GPU where there are any."""
    own = dict(os.environ)
    own.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // workers)))
    if gpus := _gpus():
        own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return own


def _gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one for one in given.split(",") if one.strip()]
    import torch

    return [str(n) for n in range(torch.cuda.device_count())]


def local(folder: Path, workers: int, more: Sequence[str] = ()) -> int:
    """Processes on this machine; the largest of their exit codes. An interruption is passed on to them."""
    running = [
        subprocess.Popen(command_of(folder, more), env=environment(n, workers), start_new_session=True)
        for n in range(workers)
    ]

    def stop(number: int, _: Any) -> None:
        for one in running:
            one.send_signal(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        codes = [one.wait() for one in running]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return max(128 - code if code < 0 else code for code in codes)


def slurm(folder: Path, workers: int, more: Sequence[str] = ()) -> Path:
    """The script of an array of workers, to be given to `sbatch`; or, where submitit is installed, submitted by it.

    Returns:
        The script, or submitit's folder of logs.
    """
    if importlib.util.find_spec("submitit") is not None:
        import submitit

        logs = folder / "submitit"
        executor = submitit.AutoExecutor(folder=logs)
        with executor.batch():
            for _ in range(workers):
                executor.submit(submitit.helpers.CommandFunction(command_of(folder, more)))
        return logs
    script = folder / "work.sbatch"
    words = shlex.join(command_of(folder.resolve(), more))
    write_whole(script, SCRIPT.format(last=workers - 1, folder=shlex.quote(str(folder.resolve())), command=words))
    return script


def ray(folder: Path, workers: int, more: Sequence[str] = ()) -> dict[str, int]:
    """An actor a worker, on the cluster that `RAY_ADDRESS` names or one that is started here.

    Returns:
        Exit codes, `died` for an actor that died; others go on, and what it did is taken over by whoever works on the
        folder next.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else the workers of one node are killed together where memory runs out, the innocent with the guilty.
    os.environ.setdefault("RAY_worker_killing_policy_by_group", "true")
    try:
        import ray as cluster
    except ImportError as error:
        raise UserError("ray is not installed here; pip install 'elicit[ray]'") from error
    given: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"object_store_memory": 100 << 20}
    cluster.init(include_dashboard=False, log_to_driver=True, ignore_reinit_error=True, **given)
    gpus = int(cluster.cluster_resources().get("GPU", 0))
    actor = cluster.remote(num_cpus=1, num_gpus=1 if gpus >= workers else 0)(_Actor)
    made = [actor.remote() for _ in range(workers)]
    calls = [one.work.remote(command_of(folder.resolve(), more), os.getcwd()) for one in made]
    found: dict[str, int] = {}
    for call in calls:
        try:
            code = str(cluster.get(call))
        except cluster.exceptions.RayActorError:
            code = "died"
        found[code] = found.get(code, 0) + 1
    return found


class _Actor:
    """Runs one worker; a kill of the actor ends it too."""

    def work(self, command: list[str], place: str) -> int:
        return subprocess.call(command, cwd=place)
