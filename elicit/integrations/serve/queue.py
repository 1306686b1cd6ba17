"""Requests that wait, and the one worker that answers all of a kind that have come by then in one batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from elicit.decoding.engine import EngineDied
from elicit.decoding.loop import Listener
from elicit.integrations.serve.served import Answers, Job
from probes.errors import UserError

LOG = logging.getLogger("elicit.serve")
GATHER = (0.01, 0.1)  # least and most seconds that the first of a batch waits for others
PATIENCE = 0.05  # of the seconds of the batch before: those whom it answered send their next request meanwhile


class Refused(Exception):
    """A request that is not answered, with the status that says why."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


Hear = Callable[[int, int, int, float | None, bool], None]
"""Called in the decoding thread: branch, step, token, log-probability, whether the branch ended by it."""


@dataclass(eq=False)
class _Waiting:
    """A request, and the listener of its prompt."""

    job: Job
    done: asyncio.Future[Answers] = field(repr=False)
    hear: Hear
    gone: bool = False


def deaf(branch: int, step: int, token: int, logprob: float | None, ended: bool) -> None:
    """Of a request that waits for the whole answer."""


class Queue:
    """Answers jobs, batch after batch, in a thread of its own.

    Args:
        answer: answers a batch of jobs that share a key, each with its listener.
        rows: the most branches of a batch; a job that has more is answered alone.
        most: requests that may wait; more are refused.
        seconds: after which a request is given up.
        repair: called after an error that is none of a request's, before the next batch.
        seen: called after each batch with its jobs and seconds.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Job], Sequence[Listener]], list[Answers]],
        *,
        rows: int,
        most: int,
        seconds: float,
        repair: Callable[[], None],
        seen: Callable[[Sequence[Job], float], None],
    ) -> None:
        self.answer, self.rows, self.most, self.seconds = answer, rows, most, seconds
        self.repair, self.seen = repair, seen
        self.waiting: list[_Waiting] = []
        self.running: list[_Waiting] = []
        self.closing = False
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decoding")
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Take no more; end what is being decoded, and refuse what waits."""
        self.closing = True
        for one in self.waiting:
            if not one.done.done():
                one.done.set_exception(Refused(503, "the server is stopping; send it again later"))
        self.waiting = []
        self._arrived.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def submit(self, job: Job, hear: Hear = deaf) -> Answers:
        """Wait for the answer; its tokens are heard as they are decoded. Who stops to wait ends the decoding of it.

        Raises:
            Refused: too many wait, it took too long, the server stops, or its worker failed.
            UserError: what this request alone did wrong.
        """
        if self.closing:
            raise Refused(503, "the server is stopping; send it again later")
        if len(self.waiting) >= self.most:
            raise Refused(429, f"{self.most} requests wait already; send it again later")
        one = _Waiting(job, asyncio.get_running_loop().create_future(), hear)
        self.waiting.append(one)
        self._arrived.set()
        try:
            return await asyncio.wait_for(one.done, self.seconds)
        except TimeoutError:
            raise Refused(504, f"no answer in {self.seconds:g} seconds; ask for fewer tokens") from None
        finally:
            one.gone = True
            if one in self.waiting:  # given up, by the clock or by who sent it
                self.waiting.remove(one)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            await self._arrived.wait()
            if self.closing:
                return
            if not self.waiting:
                self._arrived.clear()
                continue
            last = loop.time() + min(max(PATIENCE * took, GATHER[0]), GATHER[1])
            while sum(one.job.rows for one in self.waiting) < self.rows and loop.time() < last:
                await asyncio.sleep(GATHER[0] / 2)
            self.running = self._taken()
            if not self.running:
                continue
            begun = loop.time()
            await loop.run_in_executor(self._thread, self._decode, loop, self.running)
            took = loop.time() - begun
            self.seen([one.job for one in self.running], took)
            self.running = []

    def _taken(self) -> list[_Waiting]:
        """The oldest and what may share its batch."""
        taken: list[_Waiting] = []
        rows = 0
        for one in list(self.waiting):
            if taken and (one.job.key != taken[0].job.key or rows + one.job.rows > self.rows):
                continue
            taken.append(one)
            rows += one.job.rows
        self.waiting = [one for one in self.waiting if one not in taken]
        return taken

    def _decode(self, loop: asyncio.AbstractEventLoop, some: Sequence[_Waiting]) -> None:
        """Answer a batch; where a request spoils it, by a fault of its own or of this program, each of it alone."""
        try:
            found = self.answer([one.job for one in some], some)
        except UserError as error:
            if len(some) == 1:
                died = isinstance(error, EngineDied)
                _give(loop, some[0], Refused(500, "the engine ended; it begins anew") if died else error)
            else:
                self._decode_each(loop, some)
        except BaseException as error:  # also what would end the thread: the server goes on
            LOG.exception("a batch of %d failed", len(some))
            if len(some) == 1:
                _give(loop, some[0], Refused(500, f"the worker failed ({type(error).__name__}); it begins anew"))
            self.repair()
            if len(some) > 1:
                self._decode_each(loop, some)
        else:
            for one, answers in zip(some, found, strict=True):
                _give(loop, one, answers)

    def _decode_each(self, loop: asyncio.AbstractEventLoop, some: Sequence[_Waiting]) -> None:
        for one in some:
            if not one.gone:
                self._decode(loop, [one])


def _give(loop: asyncio.AbstractEventLoop, one: _Waiting, what: Any) -> None:
    def give() -> None:
        if one.done.done():  # given up meanwhile
            return
        if isinstance(what, Exception):
            one.done.set_exception(what)
        else:
            one.done.set_result(what)

    loop.call_soon_threadsafe(give)
