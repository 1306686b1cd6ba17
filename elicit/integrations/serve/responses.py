"""Answers in the words of the protocol. What it has no word for stands under `elicit`, as plain JSON."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from elicit.integrations.serve.flow import Part, finish_of
from elicit.integrations.serve.requests import Asked, Chat
from elicit.integrations.serve.served import Answers


def whole(asked: Asked, answers: Answers) -> dict[str, Any]:
    """The response to a request that is answered at once."""
    chat = isinstance(asked, Chat)
    return {
        **_head(asked, "chat.completion" if chat else "text_completion"),
        "choices": [_choice(asked, answers, place, chat) for place in range(len(answers.chosen))],
        "usage": usage(answers),
        "elicit": beside(answers),
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
        found = _logprobs(part.pieces, part.logprobs, part.starts, self.chat) if self.asked.wants_logprobs else None
        choice = {"index": place, "logprobs": found, "finish_reason": part.finish}
        return _event({**self.head, "choices": [choice | ({"delta": said} if self.chat else {"text": part.text})]})

    def end(self, answers: Answers) -> str:
        """After the last part of every choice: how the answer came about, and its usage where that was asked for."""
        last: dict[str, Any] = {**self.head, "choices": [], "elicit": beside(answers)}
        if (self.asked.stream_options or {}).get("include_usage"):
            last["usage"] = usage(answers)
        return _event(last) + "data: [DONE]\n\n"

    def broken(self, status: int, told: str) -> str:
        """The last event of a stream whose answer does not come."""
        return _event(refusal(status, told))


def refusal(status: int, told: str) -> dict[str, Any]:
    """What is said instead of an answer."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": told, "type": kind, "param": None, "code": None}}


def usage(answers: Answers) -> dict[str, int]:
    """Tokens of the prompt, and of all branches that were decoded for the answer."""
    size = len(answers.job.prompt)
    return {"prompt_tokens": size, "completion_tokens": answers.spent, "total_tokens": size + answers.spent}


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


def _choice(asked: Asked, answers: Answers, place: int, chat: bool) -> dict[str, Any]:
    trace = answers.traces[answers.chosen[place]]
    found = _logprobs(trace.pieces, trace.logprob, [0, *trace.ends][:-1], chat) if asked.wants_logprobs else None
    said = {"message": {"role": "assistant", "content": trace.text}} if chat else {"text": trace.text}
    return {"index": place, **said, "logprobs": found, "finish_reason": finish_of(trace)}


def _logprobs(pieces: list[str], values: list[float], starts: list[int], chat: bool) -> dict[str, Any]:
    """Of tokens, in the model's own distribution, before temperature and filters."""
    if chat:
        return {
            "content": [
                {"token": piece, "logprob": value, "bytes": list(piece.encode()), "top_logprobs": []}
                for piece, value in zip(pieces, values, strict=True)
            ]
        }
    return {"tokens": pieces, "token_logprobs": values, "top_logprobs": None, "text_offset": starts}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
