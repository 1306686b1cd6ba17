"""Whether commands of every kind do in a day what they do in minutes: the same under a clock that runs fast.

    python -m tests.long day

Each command of `tests.kills` runs twice in processes of its own, the second time under libfaketime (Debian's package
`faketime`), whose clocks, sleeps and time-outs run so much faster that a day passes. What is left is compared to the
last digit, seconds aside. The endpoint is asked the same questions again and again for a day.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.kills.endpoint import REQUESTS
from tests.kills.kinds import Kind, kinds, left
from tests.same_samples import ROOT, difference, make_inputs
from tests.support.ports import free_port
from tests.support.reliability import row

DAY = 24 * 3600.0
HEAD = row("what", "hours of its clock", "different") + "\n" + row("---", "---:", "---")


def begun(command: Sequence[str], rate: float, folder: Path) -> subprocess.Popen[str]:
    """A command of the suite, in a process whose clock runs so many times as fast."""
    clock = {"FAKETIME": f"+0 x{rate:.0f}", "LD_PRELOAD": library()} if rate > 1 else {}
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "elicit", *command], cwd=folder, env={**os.environ, **own, **clock}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def library() -> str:
    """Where libfaketime lies; its own command starts a process between, which would be watched and ended instead."""
    told = subprocess.run(["faketime", "-f", "+0", "env"], capture_output=True, text=True, check=True).stdout
    return next(line.partition("=")[2] for line in told.splitlines() if line.startswith("LD_PRELOAD="))


def seconds(command: Sequence[str], folder: Path, rate: float = 1) -> float:
    """How long a command takes by a clock on the wall.

    Raises:
        RuntimeError: it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = time.monotonic()
    process = begun(command, rate, folder)
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {said[-500:]}")
    return time.monotonic() - before


def command_for_a_day(kind: Kind, folder: Path) -> tuple[float, str]:
    """Hours that passed for a command, and what it left otherwise than undisturbed."""
    for name in ("plain", "day"):
        if kind.first:
            seconds(kind.first, folder / name)
    rate = DAY / seconds(kind.command, folder / "plain") * 2.5  # the second may be quicker
    took = seconds(kind.command, folder / "day", rate)
    return took * rate / 3600, difference(left(folder / "plain"), left(folder / "day"))


@contextmanager
def endpoint(model: Path, rate: float) -> Iterator[tuple[str, int]]:
    """The address and the process of an endpoint that answers."""
    port = free_port()
    words = f"serve --model {model} --dtype float32 --device cpu --method direct --method cot-decoding --port {port}"
    with begun([*words.split(), "--timeout", "1e6"], rate, model.parent) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            while True:
                try:
                    httpx.get(f"{address}/health").raise_for_status()
                    break
                except httpx.HTTPError as error:
                    if process.poll() is not None:
                        raise RuntimeError("the endpoint did not begin") from error
                    time.sleep(0.1)
            yield address, process.pid
        finally:
            process.terminate()


def answers(address: str) -> list[Any]:
    """Over a connection for each, since by its clock a server would close it before the next."""
    found = [httpx.post(f"{address}/v1/chat/completions", json=one, timeout=600) for one in REQUESTS]
    return [one.raise_for_status().json()["choices"] for one in found]


def endpoint_for_a_day(model: Path, rate: float = 1440) -> tuple[float, str]:
    """Hours of an endpoint that is asked the same again and again, and how far it answered or holds otherwise."""
    with endpoint(model, 1) as (address, _):
        wanted = answers(address)
    with endpoint(model, rate) as (address, process):
        before, held = time.monotonic(), []
        while (hours := (time.monotonic() - before) * rate / 3600) < 24:
            if answers(address) != wanted:
                return hours, "other answers"
            held.append(holds(process))
    quarter, end = held[len(held) // 4], held[-1]
    grown = (
        f"{len(held) * len(REQUESTS):,} answers; {quarter[0]} then {end[0]} MB, {quarter[1]} then {end[1]} descriptors"
    )
    return hours, "" if end[1] <= quarter[1] and end[0] < 1.1 * quarter[0] else grown


def holds(process: int) -> tuple[int, int]:
    """Megabytes of memory and open descriptors of another process (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6), len(os.listdir(f"/proc/{process}/fd"))


def day(folder: Path) -> Iterator[str]:
    """The table, row by row.

    Raises:
        SystemExit: there is no libfaketime.
    """
    if shutil.which("faketime") is None:
        raise SystemExit("tests.long day needs libfaketime; install it (Debian: apt-get install faketime)")
    paths = make_inputs(folder)
    yield HEAD
    for kind in kinds(paths):
        hours, differs = command_for_a_day(kind, folder / "commands" / kind.name)
        yield row(kind.name, f"{hours:.0f}", differs or "nothing")
    hours, differs = endpoint_for_a_day(paths["model"])
    yield row("serve", f"{hours:.0f}", differs or "nothing")
