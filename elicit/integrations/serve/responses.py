"""Answers in the words of the protocol. What it has no word for stands under `elicit`, as plain JSON."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from elicit.integrations.serve.flow import Part, finish_of
from elicit.integrations.serve.requests import Asked, Chat
from elicit.integrations.serve.served import Answers


def whole(asked: Asked, found: Sequence[Answers]) -> dict[str, Any]:
    """The response to a request that is answered at once, with the answers to each of its prompts.

    Choices are counted through all prompts; what stands under `elicit` is that of the one prompt, or of each.
    """
    chat = isinstance(asked, Chat)
    choices = [_choice(asked, answers, n) for answers in found for n in range(len(answers.chosen))]
    about = [beside(answers) for answers in found]
    return {
        **_head(asked, "chat.completion" if chat else "text_completion"),
        "choices": [{**choice, "index": place} for place, choice in enumerate(choices)],
        "usage": usage(*found),
        "elicit": about[0] if len(about) == 1 else about,
    }


class Stream:
    """The events of one response that is sent in parts."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.chat = asked, isinstance(asked, Chat)
        self.head = _head(asked, "chat.completion.chunk" if self.chat else "text_completion")
        self.begun: set[int] = set()

    def part(self, place: int, part: Part) -> str:
        """The next part of a choice."""
        said: dict[str, Any] = {"content": part.text} if part.text else {}
        if place not in self.begun:
            said["role"] = "assistant"
        self.begun.add(place)
        found = _logprobs(self.asked, part.pieces, part.logprobs, part.starts)
        choice = {"index": place, "logprobs": found, "finish_reason": part.finish}
        return _event({**self.head, "choices": [choice | ({"delta": said} if self.chat else {"text": part.text})]})

    def end(self, answers: Answers) -> str:
        """After the last part of every choice: how the answer came about, and its usage where that was asked for.

        Who did not ask for the usage reads `choices[0]` of every event, so that one stands there and says nothing.
        """
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        nothing = {"index": 0, **said, "logprobs": None, "finish_reason": None}
        last: dict[str, Any] = {**self.head, "choices": [nothing], "elicit": beside(answers)}
        if (self.asked.stream_options or {}).get("include_usage"):
            last |= {"choices": [], "usage": usage(answers)}
        return _event(last) + "data: [DONE]\n\n"

    def broken(self, status: int, told: str) -> str:
        """The last event of a stream whose answer does not come."""
        return _event(refusal(status, told))


def refusal(status: int, told: str) -> dict[str, Any]:
    """What is said instead of an answer."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": told, "type": kind, "param": None, "code": None}}


def usage(*found: Answers) -> dict[str, int]:
    """Tokens of the prompts, and of all branches that were decoded for the answers."""
    size, spent = sum(len(one.job.prompt) for one in found), sum(one.spent for one in found)
    return {"prompt_tokens": size, "completion_tokens": spent, "total_tokens": size + spent}


def beside(answers: Answers) -> dict[str, Any]:
    """How the answer came about: every branch, what steering moved, and what decides it all."""
    handle = answers.job.handle
    return {
        "method": handle.method,
        "model": handle.model.describe(),
        "decode_key": handle.decode_key,
        "kind": answers.job.kind,
        "stream": answers.job.stream._asdict(),
        "chosen": answers.chosen,
        "branches": [
            {
                "text": trace.text, "tokens": trace.tokens, "answer": trace.answer, "delta": trace.delta,
                "dropped": trace.dropped, "finish": trace.finish, "logprob": trace.total_logprob,
                "moved": trace.moved, "prompt_moved": trace.prompt_moved,
            }
            for trace in answers.traces
        ],
    }  # fmt: skip


def _head(asked: Asked, kind: str) -> dict[str, Any]:
    return {"id": f"elicit-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


def _choice(asked: Asked, answers: Answers, place: int) -> dict[str, Any]:
    trace, chat = answers.traces[answers.chosen[place]], isinstance(asked, Chat)
    count = len(trace.tokens)  # an answer without any has one end and one piece all the same
    found = _logprobs(asked, trace.pieces[:count], trace.logprob, [0, *trace.ends][:count])
    said = {"message": {"role": "assistant", "content": trace.text}} if chat else {"text": trace.text}
    return {**said, "logprobs": found, "finish_reason": finish_of(trace)}


def _logprobs(asked: Asked, pieces: list[str], values: list[float], starts: list[int]) -> dict[str, Any] | None:
    """Of tokens, in the model's own distribution, before temperature and filters, where they were asked for.

    A step keeps no other token than the one that it wrote: where alternatives are asked for, that one stands alone.
    """
    if not asked.wants_logprobs:
        return None
    if isinstance(asked, Chat):
        return {
            "content": [
                {"token": piece, "logprob": value, "bytes": list(piece.encode()), "top_logprobs": []}
                for piece, value in zip(pieces, values, strict=True)
            ]
        }
    top = [{piece: value} for piece, value in zip(pieces, values, strict=True)] if asked.logprobs else None
    return {"tokens": pieces, "token_logprobs": values, "top_logprobs": top, "text_offset": starts}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
