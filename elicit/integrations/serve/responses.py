"""Answers in the words of the protocol. What it has no word for stands under `elicit`, as plain JSON."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from elicit.decoding.trace import Trace
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


def streamed(asked: Asked, answers: Answers) -> Iterator[str]:
    """The events of a stream: the answer token by token, sent when all of it is there."""
    chat = isinstance(asked, Chat)
    head = _head(asked, "chat.completion.chunk" if chat else "text_completion")
    counted = bool((asked.stream_options or {}).get("include_usage"))
    for place, number in enumerate(answers.chosen):
        trace = answers.traces[number]
        pieces = [*trace.pieces, ""]
        for n, piece in enumerate(pieces):
            last = n == len(trace.pieces)
            found = _logprobs(trace, chat, n, n + 1) if asked.wants_logprobs and not last else None
            said: dict[str, Any] = {"content": piece} if piece else {}
            if chat and n == 0:
                said["role"] = "assistant"
            part = {"delta": said} if chat else {"text": piece}
            finish = _finish(trace) if last else None
            choice = {"index": place, **part, "logprobs": found, "finish_reason": finish}
            yield _event({**head, "choices": [choice]})
    last_event: dict[str, Any] = {**head, "choices": [], "elicit": beside(answers)}
    yield _event({**last_event, "usage": usage(answers)} if counted else last_event)
    yield "data: [DONE]\n\n"


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
    found = _logprobs(trace, chat, 0, len(trace.tokens)) if asked.wants_logprobs else None
    said = {"message": {"role": "assistant", "content": trace.text}} if chat else {"text": trace.text}
    return {"index": place, **said, "logprobs": found, "finish_reason": _finish(trace)}


def _finish(trace: Trace) -> str:
    return "length" if trace.finish == "length" else "stop"


def _logprobs(trace: Trace, chat: bool, first: int, stop: int) -> dict[str, Any]:
    """Of the tokens [first, stop) in the model's own distribution, before temperature and filters."""
    pieces, values = trace.pieces[first:stop], trace.logprob[first:stop]
    if chat:
        return {
            "content": [
                {"token": piece, "logprob": value, "bytes": list(piece.encode()), "top_logprobs": []}
                for piece, value in zip(pieces, values, strict=True)
            ]
        }
    starts = [0, *trace.ends][first:stop]
    return {"tokens": pieces, "token_logprobs": values, "top_logprobs": None, "text_offset": starts}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
