"""Very many requests to `serve`, by the application itself, without a network in between."""

from __future__ import annotations

import asyncio
import ctypes
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from elicit.integrations.serve.app import application
from elicit.integrations.serve.served import Served
from tests.long.state import Point

CLIENTS = 64


async def ask(app: Any, body: dict[str, Any]) -> int:
    """The status of one request."""
    sent: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> dict[str, Any]:
        if not events:
            await asyncio.Event().wait()  # the client stays until it is cancelled
        return events.pop()

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"",
        "headers": headers, "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "server": ("localhost", 80), "client": ("localhost", 1),
    }  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])


def served(served: Served, sizes: Sequence[int], rows: int = 64, trim: bool = False) -> Iterator[Point]:
    """Requests of 64 clients up to each size, with questions of many lengths; every tenth is streamed.

    Args:
        served: what is served.
        sizes: at which the process is looked at.
        rows: decoded together.
        trim: whether free memory is given back to the system before a look, so that what is held is seen.
    """

    app = application(served, rows=rows)
    rng, names = random.Random(0), list(served.handles)

    async def some_of_them(count: int) -> None:
        bodies = [_body(rng, names) for _ in range(count)]
        assert set(await asyncio.gather(*(ask(app, body) for body in bodies))) == {200}

    with asyncio.Runner() as runner:
        life = app.router.lifespan_context(app)
        runner.run(life.__aenter__())
        done = 0
        for size in (CLIENTS, *sizes):
            while done < size:
                count = min(CLIENTS, size - done)
                runner.run(some_of_them(count))
                done += count
            if trim:
                ctypes.CDLL(None).malloc_trim(0)
            yield Point.now(done)
        runner.run(life.__aexit__(None, None, None))


def _body(rng: random.Random, names: Sequence[str]) -> dict[str, Any]:
    words = " ".join(rng.choice("abcdefgh") for _ in range(rng.randrange(1, 60)))
    return {
        "model": rng.choice(names), "messages": [{"role": "user", "content": words}],
        "max_tokens": rng.choice((6, 24)), "stream": rng.random() < 0.1,
    }  # fmt: skip
