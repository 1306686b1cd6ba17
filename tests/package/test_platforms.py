"""What differs between machines and platforms, as far as it can be tried on one: another host's lock, ends of lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from elicit.models import processes
from elicit.sweeps import launch
from elicit.tasks.registry import load_task
from probes import files
from probes.direct import DirectFile
from probes.errors import UserError
from probes.files import HOLDER, LOCK, STALE, locked, write_whole

OTHER = """
import os, sys, time
from pathlib import Path
import socket
socket.gethostname = lambda: "node-2"
import probes.files as files
class Elsewhere:  # a system's lock that this disk does not carry from one machine to the other
    def __init__(self, *args, **more): Path(args[0]).touch()
    acquire = release = lambda self: None
import filelock
filelock.FileLock = Elsewhere
with files.locked(Path(sys.argv[1]), "writing"):
    print("held", flush=True)
    if sys.argv[2] == "dies":
        os._exit(1)
    sys.stdin.readline()
"""


def other_machine(folder: Path, how: str) -> subprocess.Popen[str]:
    """A process that takes the folder as one of another host does, whose locks are not seen here."""
    one = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert one.stdout is not None and one.stdout.readline() == "held\n"
    return one


def test_a_folder_that_another_machine_holds_is_refused(tmp_path: Path) -> None:
    one = other_machine(tmp_path, "stays")
    with pytest.raises(UserError, match=r"another machine .'node-2'. is writing"), locked(tmp_path, "writing"):
        pass
    one.communicate("\n", timeout=60)
    with locked(tmp_path, "writing"):
        pass
    assert not (tmp_path / HOLDER).exists()


def test_a_folder_of_a_machine_that_died_is_free_after_a_while(tmp_path: Path) -> None:
    other_machine(tmp_path, "dies").communicate(timeout=60)
    with pytest.raises(UserError, match="wait for it, or 120 s"), locked(tmp_path, "writing"):
        pass
    touched = (tmp_path / LOCK).stat().st_mtime - STALE - 1
    os.utime(tmp_path / HOLDER, (touched, touched))
    with locked(tmp_path, "writing"):
        assert (tmp_path / HOLDER).read_text() != "node-2"


def test_a_holder_on_this_machine_that_died_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text(files.socket.gethostname())  # the system's own lock went with it
    with locked(tmp_path, "writing"):
        pass


def test_a_holder_is_touched_while_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STALE", 0.02)
    with locked(tmp_path, "writing"):
        os.utime(tmp_path / HOLDER, (0, 0))
        files.Event().wait(0.5)
        assert (tmp_path / HOLDER).stat().st_mtime > 0


def test_lines_end_alike_on_every_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "linesep", "\r\n")
    write_whole(tmp_path / "x", "a\nb\né")
    assert (tmp_path / "x").read_bytes() == "a\nb\né".encode()
    flags: list[int] = []
    opened = os.open
    monkeypatch.setattr(os, "O_BINARY", 1 << 30, raising=False)

    def noted(path: Any, given: int, mode: int = 0o777) -> int:
        flags.append(given)
        return opened(path, given & ~(1 << 30), mode)

    monkeypatch.setattr(os, "open", noted)
    DirectFile(tmp_path / "y").close()
    assert flags and all(one & 1 << 30 for one in flags)


def test_what_a_platform_lacks_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert int(launch.environment(0, 1)["OMP_NUM_THREADS"]) == os.cpu_count()
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    monkeypatch.setattr(processes.os, "name", "nt")
    runs = processes._runs(1)
    monkeypatch.undo()
    assert runs and not sent


def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "C:x.jsonl").write_text('{"question": "1 + 1?", "answer": "2", "split": "test"}\n' * 1)
    assert [item.answer for item in load_task("C:x.jsonl").items] == ["2"]
