"""The web application: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/health`, `/metrics`.

Refused in one line, as OpenAI words errors: 400 what a request did wrong, 401 no or a wrong token, 403 a host name that
is not this server's, 404 a name that is not served, 413 too large, 415 no JSON, 429 too many wait, 500 the worker
failed, 503 the server stops, 504 it took too long.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from elicit.integrations.serve.events import Events
from elicit.integrations.serve.queue import LOG, Hear, Queue, Refused, deaf
from elicit.integrations.serve.requests import Chat, Completion, read
from elicit.integrations.serve.responses import refusal, whole
from elicit.integrations.serve.served import Answers, Job, Served, UnknownModel
from probes.errors import UserError, unknown

LARGEST = 4 << 20  # bytes of a request
T = TypeVar("T")
GONE = 499  # the client vanished: nobody reads the status


class _Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("elicit_requests", "Requests, by status.", ["status"], registry=self.registry)
        self.waiting = Gauge("elicit_waiting", "Requests that wait.", registry=self.registry)
        self.tokens = Counter("elicit_tokens", "Tokens decoded, of all branches.", registry=self.registry)
        self.seconds = Histogram("elicit_seconds", "From a request to its answer.", registry=self.registry)
        self.batch = Histogram(
            "elicit_batch_rows", "Branches decoded together.", buckets=[1 << n for n in range(11)],
            registry=self.registry,
        )  # fmt: skip


def application(
    served: Served,
    *,
    token: str = "",
    hosts: Sequence[str] = ("localhost", "127.0.0.1", "[::1]"),
    rows: int = 64,
    most: int = 256,
    seconds: float = 300.0,
    largest: int = LARGEST,
) -> Starlette:
    """The application; a web server of one process runs it.

    Args:
        served: what is served.
        token: that every request but `/health` has to bring; "": none.
        hosts: names by which it may be addressed, so that no page of another site reaches it; `*`: any.
        rows: the most branches decoded together.
        most: requests that may wait.
        seconds: after which a request is given up.
        largest: bytes of a request.
    """
    metrics = _Metrics()
    models = {handle.model.name: handle.model for handle in served.handles.values()}

    def repair() -> None:
        for model in models.values():
            engine = model.kept.pop("engine", None)  # the next batch makes another
            try:
                if engine is not None:
                    engine.close()
            except Exception:  # noqa: BLE001  # it is broken; the server goes on
                LOG.exception("the engine of %s could not be closed", model.name)

    def seen(jobs: Sequence[Job], took: float) -> None:
        metrics.batch.observe(sum(job.rows for job in jobs))

    queue = Queue(served.answer, rows=rows, most=most, seconds=seconds, repair=repair, seen=seen)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        queue.start()
        try:
            yield
        finally:
            await queue.close()

    def answers_to(kind: type[Chat] | type[Completion]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            begun = time.perf_counter()
            asked = read(kind, await _json(request, largest))
            jobs = [served.job(one) for one in asked.each]
            if len(jobs) > 1 and asked.stream:
                raise UserError(f"{len(jobs)} prompts were given with stream; send one, or leave stream out")
            if len(jobs) > most:
                raise UserError(f"{len(jobs)} prompts were given; this server takes at most {most} in one request")

            async def answer(job: Job, hear: Hear = deaf) -> Answers:
                found = await queue.submit(job, hear)
                metrics.tokens.inc(found.spent)
                return found

            async def timed(answers: Coroutine[Any, Any, T]) -> T:
                found = await answers
                metrics.seconds.observe(time.perf_counter() - begun)
                return found

            if not asked.stream:
                found = await _unless_gone(request, timed(_all_of([answer(job) for job in jobs])))
                return JSONResponse(whole(asked, found))
            events = Events(asked, jobs[0], lambda hear: timed(answer(jobs[0], hear)))
            await _unless_gone(request, events.begin())  # what fails before the first has a status of its own
            return events

        return guarded(endpoint)

    def guarded(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            try:
                if token:
                    _check_token(request, token)
                response = await endpoint(request)
            except (UserError, Refused, HTTPException) as error:
                response = _refusal(error)
            metrics.requests.labels(str(response.status_code)).inc()
            return response

        return checked

    async def names(request: Request) -> Response:
        owner = {"object": "model", "created": 0, "owned_by": "elicit"}
        about = {name: {"method": h.method, "base": h.model.name} for name, h in served.handles.items()}
        listed = {name: {"id": name, **owner, "elicit": about[name]} for name in about}
        if "name" not in request.path_params:
            return JSONResponse({"object": "list", "data": list(listed.values())})
        one = request.path_params["name"]
        if one not in listed:
            raise UnknownModel(str(unknown("model", one, listed)))
        return JSONResponse(listed[one])

    async def health(request: Request) -> Response:
        if queue.closing:
            return JSONResponse({"status": "stopping"}, 503)
        return JSONResponse({"status": "ok", "waiting": len(queue.waiting), "decoding": len(queue.running)})

    async def numbers(request: Request) -> Response:
        metrics.waiting.set(len(queue.waiting))
        return PlainTextResponse(generate_latest(metrics.registry))

    return Starlette(
        routes=[
            Route("/v1/chat/completions", answers_to(Chat), methods=["POST"]),
            Route("/v1/completions", answers_to(Completion), methods=["POST"]),
            Route("/v1/models", guarded(names)),
            Route("/v1/models/{name:path}", guarded(names)),
            Route("/metrics", guarded(numbers)),
            Route("/health", health),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        exception_handlers={HTTPException: _not_found},
        lifespan=lifespan,
    )


async def _json(request: Request, largest: int) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the request is no JSON; send content-type: application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise HTTPException(413, f"the request is larger than {largest} bytes; send a shorter prompt")
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise UserError(f"the request is not JSON ({str(error).splitlines()[0]}); send a JSON object") from None


async def _all_of(answers: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all; where one does not come the others are given up."""
    waiting = [asyncio.ensure_future(one) for one in answers]
    try:
        return await asyncio.gather(*waiting)
    finally:
        for one in waiting:
            one.cancel()


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Wait for the answer, and give it up where the client vanishes."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting, watching = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise Refused(GONE, "the client is gone")
        return waiting.result()
    finally:
        waiting.cancel()
        watching.cancel()


def _check_token(request: Request, token: str) -> None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise HTTPException(401, "no token or a wrong one was given; send authorization: Bearer TOKEN")


def _refusal(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        status, told = error.status_code, str(error.detail)
    elif isinstance(error, Refused):
        status, told = error.status, str(error)
    else:
        status, told = (404 if isinstance(error, UnknownModel) else 400), str(error)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "5"}}
    return JSONResponse(refusal(status, told), status, headers.get(status))


async def _not_found(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 404:
        paths = [route.path for route in request.app.routes if "{" not in route.path]
        error = HTTPException(404, f"there is no {request.url.path} here; there are {', '.join(paths)}")
    return _refusal(error)
