"""The model that Inspect asks. Requests that wait are decoded together: whoever holds the lock decodes for all whose
decoder and stop strings are its own, up to `batch_rows` branches; the others find their answers when their turn comes.

In fp32 no answer depends on the batch; in bf16 rounding may (`elicit/decoding/README.md`). A batch that fails is run
once more one by one, so that one bad prompt fails alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput
from inspect_ai.tool import ToolChoice, ToolInfo
from rich.markup import escape

from elicit.elicited import Elicited
from elicit.integrations.inspect import fields
from elicit.integrations.inspect.answers import output
from elicit.integrations.inspect.arguments import Asked, asked
from elicit.integrations.inspect.requests import Counts, Request, handle_for, requested
from probes.errors import UserError
from probes.inert import one_line

try:  # neither is public: without the one a mistake ends in a traceback, without the other epochs are counted
    from inspect_ai._util.error import PrerequisiteError as Prerequisite
except ImportError:
    Prerequisite = UserError  # type: ignore[assignment, misc]
try:
    from inspect_ai.log._samples import sample_active
except ImportError:

    def sample_active() -> None:  # type: ignore[misc]
        """No sample is known."""


# Always the same one, whichever loop Inspect runs in: each that computes has a pool of its own (`without_pool`).
THREAD = ThreadPoolExecutor(1, thread_name_prefix="decoding")
QUIET = 0.005  # seconds in which nobody else came
OWN_URL = "elicit:"
logger = logging.getLogger(__name__)


class Refused(BaseException):
    """A request that cannot be honoured, where Inspect goes on after errors. No `Exception`: it would go on to the next
    sample, and call an evaluation without a score a success."""


def _own_url(handle: Elicited, arguments: Mapping[str, Any]) -> str:
    """In place of an address, what Inspect's cache tells models of one name apart by; `-M` it leaves out."""
    made = [handle.decode_key, handle.select, sorted((key, repr(value)) for key, value in arguments.items())]
    return OWN_URL + hashlib.blake2b(json.dumps(made).encode(), digest_size=8).hexdigest()


@dataclass
class Slot:
    """A request that waits, and what became of it."""

    request: Request
    answer: ModelOutput | None = None
    error: Exception | None = None
    hopeless: bool = False  # all of its batch failed

    @property
    def done(self) -> bool:
        return self.answer is not None or self.error is not None


class ElicitAPI(ModelAPI):
    """A handle as a model of Inspect.

    Args:
        model_name: `<method>:<model>` or `bundle:<folder>`.
        base_url, api_key: of no use here, but what this wrote as its own address into a log (`OWN_URL`).
        config: refused where it cannot be honoured.
        arguments: `-M`, as `elicit.integrations.inspect.arguments` reads them.

    Raises:
        PrerequisiteError: what is wrong with any of it, in one line.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        **arguments: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        try:
            if base_url is not None and not base_url.startswith(OWN_URL):
                raise UserError(f"base_url {base_url!r} was given and the model runs here; leave it out")
            self.asked: Asked = asked(model_name, arguments, fields.body_of(config.extra_body) is not None)
            fields.check(config, self.asked.handle)
            self.base_url = _own_url(self.asked.handle, arguments)
            if base_url not in (None, self.base_url):
                raise UserError(
                    f"{model_name} is not what the log's {base_url!r} was made of; give the log's -M arguments, or "
                    "evaluate anew"
                )
        except UserError as error:
            raise Prerequisite(escape(one_line(str(error)))) from error
        self.counts = Counts()
        self.waiting: list[Slot] = []
        self.lock = anyio.Lock()
        self.warned = False

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer messages, together with all that waits.

        Raises:
            UserError: what cannot be honoured, or cannot be decoded.
            Refused: the former, where Inspect goes on after errors.
        """
        active: Any = sample_active()
        try:
            if tools:
                raise UserError(f"tool {tools[0].name!r} was given and {self.model_name} calls none; leave tools out")
            slot = Slot(requested(self.asked, self.counts, input, config, active))
        except UserError as error:
            self._abort(error, active)
            raise
        self._warn(slot.request)
        self.waiting.append(slot)
        try:
            async with self.lock:
                if not slot.done:
                    await self._gather(slot)
                    mine = self._take(slot)
                    await anyio.to_thread.run_sync(lambda: THREAD.submit(self._decode, mine).result())
        finally:
            if slot in self.waiting:  # cancelled
                self.waiting.remove(slot)
        if slot.error is not None:
            if slot.hopeless:
                self._abort(slot.error, active)
            raise slot.error
        assert slot.answer is not None
        return slot.answer

    def _abort(self, error: Exception, active: Any) -> None:
        """End an evaluation that would go on after an error that every sample has."""
        if active is not None and not active.fails_on_error:
            logger.error("%s", error)
            raise Refused(str(error)) from error

    def _warn(self, request: Request) -> None:
        if request.seen and not self.warned:
            self.warned = True
            logger.warning(
                "%s was %s on items that are evaluated here, the first is %s: accuracy on them is no test",
                *(self.model_name, request.seen, request.stream.sample),
            )

    def _most(self, slot: Slot) -> int:
        return max(1, self.asked.batch_rows // slot.request.decoder.branches)

    async def _gather(self, slot: Slot) -> None:
        """Wait until nobody comes any more."""
        before = 0
        while before < len(self.waiting) < self._most(slot):
            before = len(self.waiting)
            await anyio.sleep(QUIET)

    def _take(self, slot: Slot) -> list[Slot]:
        """This request, and those that wait for the same."""
        same = [one for one in self.waiting if one is not slot and one.request.key == slot.request.key]
        mine = [slot, *same][: self._most(slot)]
        self.waiting = [one for one in self.waiting if not any(one is taken for taken in mine)]
        return mine

    def _decode(self, slots: Sequence[Slot]) -> None:
        """Answer these requests; one that cannot be keeps its error."""
        try:
            answers = self._answers([slot.request for slot in slots])
        except Exception as error:  # noqa: BLE001 (raised by the request that it belongs to)
            if len(slots) == 1:
                slots[0].error = error
                return
            logger.warning("a batch of %d failed (%s); its requests are run one by one", len(slots), error)
            for slot in slots:
                self._decode([slot])
            for slot in slots:
                slot.hopeless = all(one.error is not None for one in slots)
            return
        for slot, answer in zip(slots, answers, strict=True):
            slot.answer = answer

    def _answers(self, requests: Sequence[Request]) -> list[ModelOutput]:
        began, first = time.perf_counter(), requests[0]
        handle = handle_for(self.asked.handle, first.decoder)
        drafts = handle.respond(
            [one.ids for one in requests],
            [one.kind or "whole" for one in requests],
            [one.stream for one in requests],
            stop=first.stop,
            begun=[one.begun for one in requests],
            partner_prompts=None if first.partner_ids is None else [one.partner_ids or [] for one in requests],
        )
        seconds = time.perf_counter() - began
        return [
            output(self.model_name, self.asked, handle, one, some, len(requests), seconds)
            for one, some in zip(requests, drafts, strict=True)
        ]

    def max_connections(self) -> int:
        """As many as are decoded together. Inspect reads it only where adaptive connections are off."""
        return max(1, self.asked.batch_rows // self.asked.handle.decoder.branches)

    def connection_key(self) -> str:
        """Each model has connections of its own."""
        return self.model_name

    def collapse_user_messages(self) -> bool:
        """User messages in a row are one."""
        return True

    def collapse_assistant_messages(self) -> bool:
        """And so are the assistant's."""
        return True

    async def tokenize(self, text: str) -> list[int]:
        """By the model's own tokenizer."""
        ids: list[int] = self.asked.handle.model.tokenizer(text)["input_ids"]
        return ids

    async def count_text_tokens(self, text: str) -> int:
        """By the model's own tokenizer."""
        return len(await self.tokenize(text))
