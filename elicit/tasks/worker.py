"""The process that graders and generators which may hang or crash run in, as the parent sees it.

Measured reasons: math-verify needs the main thread for its own time-outs, and reading an expression may take for ever.
So the deadline is ours: of processor time, since by the clock a plain answer would be wrong on a loaded machine.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

from probes.errors import UserError

DEADLINE_S = 10.0  # of processor time
PATIENCE_S = 300.0  # of the clock, beyond the deadline: for a worker that waits and computes nothing


class Unjudged(RuntimeError):
    """The worker gave no result; `reason` is one of `raised`, `time`, `memory`, `died`."""

    reason = "raised"


class DeadlineExceeded(Unjudged):
    """The request used up its processor time, and the worker with it."""

    reason = "time"


class WorkerHangs(DeadlineExceeded):
    """No reply for long, though processor time is left: the worker was killed."""


class OutOfMemory(Unjudged):
    """The request used up the worker's memory."""

    reason = "memory"


class WorkerDied(Unjudged):
    """The worker ended while it was asked."""

    reason = "died"


class Worker:
    """`python -m elicit.tasks.grader_process`: requests and replies are lines of JSON; started when first asked.

    Args:
        deadline: seconds of processor time for a request.
        start_deadline: the same for the first one.
        patience: seconds of the clock beyond a deadline until a silent worker is killed.
    """

    def __init__(
        self, deadline: float = DEADLINE_S, start_deadline: float = 120.0, patience: float = PATIENCE_S
    ) -> None:
        self.deadline = deadline
        self.start_deadline = start_deadline
        self.patience = patience
        self.process: subprocess.Popen[bytes] | None = None
        self.missing: tuple[str, ...] = ()  # bounds that this platform does not offer; known once it runs
        self.lock = threading.Lock()

    def ask(self, operation: str, deadline: float | None = None, **arguments: Any) -> Any:
        """The result of one of the worker's operations.

        Raises:
            Unjudged: the request failed in the worker, or took the worker with it; the next call starts a new one.
            UserError: the worker cannot start, or lacks what the operation needs.
        """
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self._start()
            return self._exchange(operation, arguments, deadline or self.deadline)

    def _start(self) -> None:
        self.close()  # what is left of one that died between two requests
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "elicit.tasks.grader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,  # the libraries print warnings there; shown if the worker dies
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",  # some generators walk over sets
                "OPENBLAS_NUM_THREADS": "1",  # each thread reserves memory, which is bounded
            },
            start_new_session=True,  # Ctrl-C in the terminal is the parent's to handle
        )
        atexit.register(self.close)
        try:
            bounds = self._exchange("ready", {}, self.start_deadline)
        except Unjudged as error:
            raise UserError(f"the grading worker cannot start ({error}); mend the installation") from error
        self.missing = tuple(name for name, holds in bounds.items() if not holds)

    def _exchange(self, operation: str, arguments: dict[str, Any], deadline: float) -> Any:
        process = self.process
        assert process is not None
        request = json.dumps([operation, arguments, deadline]) + "\n"
        replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # In a thread: a pipe that is read or written cannot be waited for with a limit on every platform.
        threading.Thread(target=_converse, args=(process, request.encode(), replies), daemon=True).start()
        try:
            line = replies.get(timeout=deadline + self.patience)
        except queue.Empty:
            self.close()
            raise WorkerHangs(f"no reply within {deadline + self.patience:g} s") from None
        except BaseException:
            self.close()  # a reply may still be on its way: never read it as the next request's
            raise
        if not line:
            raise self._end(process, deadline)
        reply = json.loads(line)
        if "unready" in reply:
            raise UserError(f"the grading worker cannot do {operation} ({reply['unready']}); mend the installation")
        if "memory" in reply:
            self.close()  # it may hold on to what it took
            raise OutOfMemory(reply["memory"])
        if "error" in reply:
            raise Unjudged(reply["error"])
        return reply["result"]

    def _end(self, process: subprocess.Popen[bytes], deadline: float) -> Unjudged:
        """Why a worker ended in the middle of a request."""
        code = process.wait()
        self.stderr.seek(0)
        said = self.stderr.read()[-2000:].decode(errors="replace").strip()
        self.close()
        if hasattr(signal, "SIGPROF") and code == -signal.SIGPROF:
            return DeadlineExceeded(f"no result within {deadline:g} s of processor time")
        return WorkerDied(f"the grading worker died with code {code}: {said.splitlines()[-1] if said else ''}")

    def close(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            assert process.stdin is not None and process.stdout is not None
            atexit.unregister(self.close)
            process.kill()
            process.wait()
            with suppress(OSError):  # a request that it did not read is still to be written
                process.stdin.close()
            process.stdout.close()
            self.stderr.close()


def _converse(process: subprocess.Popen[bytes], request: bytes, replies: queue.SimpleQueue[bytes]) -> None:
    """Send a request and wait for its reply; an empty one says that the worker has ended."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(request)
        process.stdin.flush()
        replies.put(process.stdout.readline())
    except (OSError, ValueError):  # it has ended, or was closed by who asked
        replies.put(b"")


WORKER = Worker()
