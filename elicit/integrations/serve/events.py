"""A response that is sent while its answer is decoded, as server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from elicit.integrations.serve.flow import Flow, Torn
from elicit.integrations.serve.queue import Hear, Refused, deaf
from elicit.integrations.serve.requests import Asked
from elicit.integrations.serve.responses import Stream
from elicit.integrations.serve.served import Answers, Job
from probes.errors import UserError

LOG = logging.getLogger("elicit.serve")


class Events(StreamingResponse):
    """Parts of each choice as they are sure, or all of one that is chosen among several when it is; then the rest.

    Args:
        asked: the request.
        job: what was read of it.
        answer: waits for the answer, with what hears its tokens.
    """

    def __init__(self, asked: Asked, job: Job, answer: Callable[[Hear], Coroutine[Any, Any, Answers]]) -> None:
        self.stream, self.loop = Stream(asked), asyncio.get_running_loop()
        model = job.handle.model
        how = (model.tokenizer, model.eos_ids, job.stop, job.handle.decoder.max_new_tokens, asked.wants_logprobs)
        self.flows = [Flow(*how) for _ in range(job.choices)]
        self.heard: deque[tuple[int, int, int, float | None, bool]] = deque()
        self.arrived = asyncio.Event()
        self.answer = asyncio.ensure_future(answer(self._hear if job.flows else deaf))
        self.answer.add_done_callback(self._done)
        self.first: list[str] = []
        super().__init__(self._events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def begin(self) -> None:
        """Wait for the first part.

        Raises:
            UserError, Refused: no answer comes.
        """
        try:
            while not self.first and not self.answer.done():
                await self.arrived.wait()
                self.first = self._parts()
            if not self.first:
                self.answer.result()
        except BaseException:
            self.answer.cancel()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.answer.cancel()  # the client is gone: nobody waits

    def _hear(self, branch: int, step: int, token: int, logprob: float | None, ended: bool) -> None:
        self.heard.append((branch, step, token, logprob, ended))
        self.loop.call_soon_threadsafe(self.arrived.set)

    def _done(self, answer: asyncio.Future[Answers]) -> None:
        if not answer.cancelled():
            answer.exception()  # seen, also where the client is gone and nobody is told
        self.arrived.set()

    def _parts(self) -> list[str]:
        """What can be sent of what was heard."""
        self.arrived.clear()
        while self.heard:
            branch, step, token, logprob, ended = self.heard.popleft()
            self.flows[branch].hear(step, token, logprob, ended)
        parts = [(place, flow.take()) for place, flow in enumerate(self.flows)]
        return [self.stream.part(place, part) for place, part in parts if part is not None]

    async def _events(self) -> AsyncIterator[str]:
        try:
            for event in self.first:
                yield event
            while not self.answer.done():
                await self.arrived.wait()
                for event in self._parts():
                    yield event
            answers = self.answer.result()
            for place, flow in enumerate(self.flows):
                flow.end(answers.traces[answers.chosen[place]])
            for event in self._parts():
                yield event
            yield self.stream.end(answers)
        except Torn:
            LOG.error("a batch that was decoded anew came out otherwise, and a stream of it was ended")
            yield self.stream.broken(500, "the answer was decoded anew and came out otherwise; send it again")
        except (UserError, Refused) as error:
            yield self.stream.broken(error.status if isinstance(error, Refused) else 400, str(error))
