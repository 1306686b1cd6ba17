"""Several processes that one command was started in: which one this is, and what one says to all.

`accelerate launch` starts them; each runs the same program with the same model. They talk by a group of their own on
the hosts' processors, so that a GPU is never waited for, and a process that ends is noticed at once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from probes.errors import ToldElsewhere, UserError

PATIENCE = timedelta(days=1)  # of processes that wait for the first one
NOTICED = 3.0  # seconds in which the system says that a process has ended


def processes() -> int:
    """How many were launched."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", 0))


def first() -> bool:
    """Whether this process is the one that grades and writes."""
    return rank() == 0


def check_launch() -> None:
    """Refuse a launch that started one process where several were asked for.

    Raises:
        UserError: it did.
    """
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and processes() == 1:
        raise UserError(
            "accelerate launch --cpu started one process of several, as it does without MPI; give --multi_gpu instead "
            "of --cpu, which starts them on CPUs as well"
        )


def check_alone(command: str) -> None:
    """Refuse several processes for what is done by one; the first says so.

    Raises:
        UserError: several were launched.
    """
    if processes() > 1:
        text = f"{processes()} processes were launched and elicit {command} works in one; launch elicit run"
        raise UserError(text) if first() else ToldElsewhere(text)


class Processes:
    """All that were launched. What is said must be JSON, and each must say something as often as the others.

    Args:
        device: on which this one computes.

    Attributes:
        count: how many there are.
        rank: which this one is.
    """

    def __init__(self, device: torch.device) -> None:
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        self.count, self.rank = state.num_processes, state.process_index
        self._group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        self._over = False
        self._peers: list[dict[str, Any]] = []
        self._peers = self._gather({"host": socket.gethostname(), "pid": os.getpid()})

    def exchange(self, said: Any) -> list[Any]:
        """What each process says, in their order.

        Raises:
            UserError: one failed instead, or ended; with its number.
        """
        told = self._gather({"said": said})
        for number, one in enumerate(told):
            if "failed" in one:
                raise self.refusal(f"process {number} of {self.count}: {one['failed']}")
        return [one["said"] for one in told]

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block before the others, who then find what it wrote."""
        if self.rank:
            self.exchange(None)
        yield
        if not self.rank:
            self.exchange(None)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Whatever ends the block here ends it in all processes, with its words; and so does their end."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, self._ended) if main else None
        try:
            yield
        except _Gone:
            raise
        except Exception as error:
            if not self._over:
                self._over = True
                with suppress(_Gone):  # then nobody is left to tell
                    self._gather({"failed": str(error) if isinstance(error, UserError) else repr(error)})
            raise
        finally:
            if main:
                signal.signal(signal.SIGTERM, before)

    def _gather(self, one: Any) -> list[Any]:
        out: list[Any] = [None] * self.count
        try:
            torch.distributed.all_gather_object(out, json.dumps(one), group=self._group)
        except RuntimeError as error:
            raise self._gone() from error
        return [json.loads(text) for text in out]

    def refusal(self, text: str) -> UserError:
        """The error of something that all processes have met; the first says it."""
        return _Gone(text) if self.rank == 0 else _GoneElsewhere(text)

    def _ended(self, *_: object) -> None:
        """What launched the processes ends all where one has ended; or somebody ends them."""
        error = self._gone()
        raise error if error.names else KeyboardInterrupt

    def _gone(self) -> _Gone:
        """The error that names who has ended; the first that is left says it."""
        gone: list[int] = []
        here, end = socket.gethostname(), time.monotonic() + NOTICED
        while not gone and time.monotonic() < end:
            gone = [n for n, peer in enumerate(self._peers) if peer["host"] == here and not _runs(peer["pid"])]
            time.sleep(0.02)
        names = ", ".join(f"process {n} (pid {self._peers[n]['pid']})" for n in gone)
        text = f"{names or 'a process'} of {self.count} ended; finished samples are kept, the same command resumes"
        kind = _Gone if self.rank == min(set(range(self.count)) - set(gone)) else _GoneElsewhere
        return kind(text, names)


class _Gone(UserError):
    """Another process failed, or ended: then with the names of those that did."""

    def __init__(self, text: str, names: str = "") -> None:
        super().__init__(text)
        self.names = names


class _GoneElsewhere(_Gone, ToldElsewhere):
    """The same where another process says so."""


def launched(device: torch.device) -> Processes | None:
    """All processes, where there are several."""
    if processes() == 1:
        return None
    if not _KEPT:
        _KEPT.append(Processes(device))
    return _KEPT[0]


_KEPT: list[Processes] = []


def _runs(pid: int) -> bool:
    """Whether a process of this host runs: one that ended and was not yet asked for does not."""
    if os.name != "posix":
        return True  # Windows takes signal 0 for Ctrl-C
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user, or where there is no /proc
    return state not in "ZX"
