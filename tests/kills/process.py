"""Commands of the suite in processes of their own, forked from one that has loaded what they need."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import elicit.evaluation.evaluator
import elicit.methods
import elicit.training.trl_common  # noqa: F401
from elicit.cli import main

SAID = "said"  # what a command printed


def forked(command: Sequence[str], folder: Path) -> int:
    """Begin a command of the suite in a process group of its own; the process."""
    if child := os.fork():
        return child
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        with (folder / SAID).open("ab") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        sys.argv = ["elicit", *command]
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        os._exit(code)


def ended(child: int, seconds: float = 600.0) -> bool:
    """Whether a process ends within so many seconds.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            if status:
                raise RuntimeError(f"exit status {status}")
            return True
        time.sleep(0.005)
    return False


def killed(child: int) -> None:
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
