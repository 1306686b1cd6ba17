"""Graders. What may hang or crash (math-verify, reasoning-gym's scorers) runs in a worker that can be killed.

Measured reasons: math-verify needs the main thread for its own time-outs, finds gold 6 in "Simplify $2+4$"
and a set in two boxes. So the answer is extracted first (`elicit.tasks.answers`), alone is judged, and the
deadline is ours: of processor time, since by the clock a plain answer would be wrong on a loaded machine.

An answer that gets no verdict is not right, and `Grade.unjudged` says why: the scorer `raised`, it used up its `time`
or `memory`, or the worker `died` of it twice. Only a worker that cannot start is an error.
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
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from elicit.tasks.answers import Kind, expression_value, number_value
from elicit.tasks.base import Grade, Grader, Item
from probes.errors import UserError

DEADLINE_S = 10.0  # of processor time
PATIENCE_S = 300.0  # of the clock, beyond the deadline: for a worker that waits and computes nothing
VERSION = 1  # raised whenever an answer is extracted or judged otherwise than before


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


def _judged(operation: str, **arguments: Any) -> Grade:
    """The worker's score. A worker that dies or hangs is replaced once: something else may have killed it."""
    try:
        try:
            return Grade(float(WORKER.ask(operation, **arguments)))
        except (WorkerDied, WorkerHangs):
            return Grade(float(WORKER.ask(operation, **arguments)))
    except Unjudged as error:
        return Grade(0.0, error.reason)


@lru_cache(maxsize=65536)
def _verify(gold: str, answer: str) -> Grade:
    return _judged("verify_math", gold=gold, answer=answer)


class NumberGrader:
    """Exact equality of the numbers written: 1,234 = 1234.00, and 0.33 is not 1/3."""

    def grade(self, item: Item, answer: str | None) -> Grade:
        value = number_value(answer)
        return Grade(float(value is not None and value == number_value(item.answer)))

    def groups(self, answers: Sequence[str]) -> list[int]:
        return _group_by_value(answers)


class ExpressionGrader:
    """Any expression of the item's `numbers` (each at most once, two or more) that makes its `target`; with items whose
    metadata have neither, a number or an expression of the gold answer's exact value.
    """

    def grade(self, item: Item, answer: str | None) -> Grade:
        if "target" not in item.metadata:
            said, gold = _exact(answer), _exact(item.answer)
            return Grade(float(said is not None and said == gold))
        found = expression_value(answer)
        if found is None:
            return Grade(0.0)
        value, used = found
        fits = len(used) > 1 and not Counter(used) - Counter(item.metadata["numbers"])
        return Grade(float(fits and value == item.metadata["target"]))

    def groups(self, answers: Sequence[str]) -> list[int]:
        """Numbers by value; expressions by value and the numbers that they use."""
        keys: list[Any] = []
        for answer in answers:
            number, found = number_value(answer), expression_value(answer)
            keys.append(number if number is not None else (found[0], *sorted(found[1])) if found else _plain(answer))
        return _group_by_key(keys)


class TextGrader:
    """Equality of the texts, without regard to case, blanks and a closing period."""

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(float(answer is not None and _plain(answer) == _plain(item.answer or "")))

    def groups(self, answers: Sequence[str]) -> list[int]:
        return _group_by_key([_plain(a) for a in answers])


class MathGrader:
    """Symbolic equality by math-verify; numbers are compared exactly, without it."""

    @property
    def depends(self) -> dict[str, Any]:
        return {"math-verify": version("math-verify")}

    def grade(self, item: Item, answer: str | None) -> Grade:
        if answer is None or item.answer is None:
            return Grade(0.0)
        return self._compare(item.answer, answer)

    def groups(self, answers: Sequence[str]) -> list[int]:
        firsts: list[int] = []
        out = []
        for i, answer in enumerate(answers):
            first = next((j for j in firsts if self._compare(answers[j], answer).correct), None)
            if first is None:
                firsts.append(i)
            out.append(i if first is None else first)
        return out

    def _compare(self, gold: str, answer: str) -> Grade:
        if gold.strip() == answer.strip():
            return Grade(1.0)
        left, right = number_value(gold), number_value(answer)
        if left is not None and right is not None:
            return Grade(float(left == right))
        return _verify(gold, answer)


class ReasoningGymGrader:
    """The data set's own scorer; it grades partially, and only 1.0 is right."""

    def __init__(self, dataset: str, seed: int, params: dict[str, Any]) -> None:
        self.arguments = {"dataset": dataset, "seed": seed, "params": params}
        self._score = lru_cache(maxsize=65536)(self._ask)

    @property
    def depends(self) -> dict[str, Any]:
        return {**self.arguments, "reasoning-gym": version("reasoning-gym")}

    def _ask(self, index: int, answer: str) -> Grade:
        return _judged("reasoning_gym_score", **self.arguments, index=index, answer=answer)

    def grade(self, item: Item, answer: str | None) -> Grade:
        return Grade(0.0) if answer is None else self._score(item.metadata["index"], answer)

    def groups(self, answers: Sequence[str]) -> list[int]:
        return _group_by_value(answers)


def identity_of(grader: Grader) -> dict[str, Any]:
    """What a grader's verdicts rest on: its name, the version of all grading, and what it says that it `depends` on."""
    return {"name": type(grader).__qualname__, "version": VERSION, **getattr(grader, "depends", {})}


def grader_for(kind: Kind) -> Grader:
    if kind == "number":
        return NumberGrader()
    if kind == "expression":
        return ExpressionGrader()
    return MathGrader() if kind == "math" else TextGrader()


def infer_kind(golds: Sequence[str | None]) -> Kind:
    """The kind of answer that a task asks for, from its gold answers."""
    known = [g for g in golds if g is not None]
    if not known:
        return "text"
    if all(number_value(g) is not None for g in known):
        return "number"
    if all(len(g.strip("() ")) == 1 and g.strip("() ").upper() in "ABCDEFGHIJ" for g in known):
        return "option"
    if any("\\" in g or number_value(g) is not None for g in known):
        return "math"
    return "text"


def check_kind(kind: str, known: Sequence[str]) -> None:
    if kind not in known:
        raise UserError(f"answer kind {kind!r} was given; give one of {', '.join(known)}")


def _exact(text: str | None) -> Fraction | None:
    number, found = number_value(text), expression_value(text)
    return number if number is not None else found[0] if found else None


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").strip("()").casefold()


def _group_by_value(answers: Sequence[str]) -> list[int]:
    keys: dict[str, Any] = {}  # of each text once: most answers to a question are written alike
    for answer in dict.fromkeys(answers):
        value = number_value(answer)
        keys[answer] = _plain(answer) if value is None else value
    same = dict(zip(keys, _group_by_key(list(keys.values())), strict=True))  # the first text that means the same
    first = [answers.index(text) for text in keys]
    return [first[same[answer]] for answer in answers]


def _group_by_key(keys: Sequence[Any]) -> list[int]:
    first: dict[Any, int] = {}
    return [first.setdefault(key, i) for i, key in enumerate(keys)]
