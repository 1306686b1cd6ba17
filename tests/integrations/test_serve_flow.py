"""Streams: what is sent is always the beginning of the answer, comes before it is whole, and ends with who asked."""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elicit.decoding.loop import Listener
from elicit.decoding.record import stop_at
from elicit.decoding.trace import text_of
from elicit.integrations.serve.flow import Flow, Torn
from elicit.integrations.serve.requests import Chat, read
from elicit.integrations.serve.served import Answers, Job, Served
from elicit.models.model import Model
from probes.offsets import decoded
from tests.integrations.test_serve import QUESTIONS, STEER, Running, at_once, handles, text, until
from tests.integrations.test_serve import model as model
from tests.support.ears import Ear
from tests.support.tokenizers import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=90),
    st.lists(st.text("aeno .\n☃", min_size=1, max_size=4), max_size=3),
    st.booleans(),
    st.integers(1, 5),
)
@example([1, 299, 129], [], False, 1)  # an id beyond the tokenizer's between two bytes
@settings(max_examples=100, deadline=None)
def test_what_is_sent_is_always_the_beginning_of_the_answer(
    family: str, ids: list[int], stop: list[str], wants: bool, every: int
) -> None:
    """Of any tokens, characters that never become whole among them, looked at after every few."""
    tokenizer = FAMILIES[family]
    end = next((n for n in range(1, len(ids)) if stop_at(decoded(tokenizer, ids[:n]), stop) is not None), len(ids))
    ids = ids[:end]
    final, _ = text_of(tokenizer, ids, tuple(stop))
    stopped = stop_at(decoded(tokenizer, ids), stop) is not None
    flow = Flow(tokenizer, frozenset(), tuple(stop), len(ids), wants)
    said, logprobs, starts, finishes = "", [], [], []
    for step, token in enumerate(ids):
        flow.hear(step, token, -float(step), stopped and step == len(ids) - 1)
        part = flow.take() if step % every == 0 or step == len(ids) - 1 else None
        if part is not None:
            said, logprobs, starts = said + part.text, logprobs + part.logprobs, starts + part.starts
            finishes.append(part.finish)
        assert final.startswith(said)
    assert said == final and finishes[-1] == ("stop" if stopped else "length") and set(finishes[:-1]) <= {None}
    assert not wants or (logprobs == [-float(n) for n in range(len(ids))] and starts[0] == 0)
    assert flow.take() is None


def test_plain_text_is_not_held_back() -> None:
    tokenizer = FAMILIES["byte-level"]
    ids = tokenizer("So the sum is 17. € The answer", add_special_tokens=False)["input_ids"]
    flow = Flow(tokenizer, frozenset(), ("\n\nQ:",), 99, False)
    sent = []
    for step, token in enumerate(ids):
        flow.hear(step, token, None, False)
        part = flow.take()
        sent.append("" if part is None else part.text)
    assert "".join(sent) == "So the sum is 17. € The answer" and sent.count("") == 2  # of the three bytes of €


def test_an_answer_that_is_decoded_anew_goes_on_where_it_was_or_is_torn() -> None:
    tokenizer = FAMILIES["byte-level"]
    first, other = (tokenizer(s, add_special_tokens=False)["input_ids"] for s in ("So the sum", "We take off"))
    flow = Flow(tokenizer, frozenset(), (), len(first), False)
    for step, token in enumerate(first[:-1]):
        flow.hear(step, token, None, False)
    said = flow.take()
    for step, token in enumerate(first):
        flow.hear(step, token, None, False)
    rest = flow.take()
    assert said is not None and rest is not None and said.text + rest.text == "So the sum"
    flow = Flow(tokenizer, frozenset(), (), 99, False)
    flow.hear(0, first[0], None, False)
    flow.take()
    for step, token in enumerate(other):
        flow.hear(step, token, None, False)
    with pytest.raises(Torn):
        flow.take()


class Held:
    """`Served.answer` that waits before a step of each answer, and counts the tokens of the longest."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.answer, self.step, self.gate, self.heard = served.answer, step, threading.Event(), 0
        self.breaks = False
        monkeypatch.setattr(served, "answer", self)

    def __call__(self, jobs: Sequence[Job], listeners: Sequence[Listener]) -> list[Answers]:
        self.listener = listeners[0]
        return self.answer(jobs, [_Ear(self, one) for one in listeners])


class _Ear:
    def __init__(self, held: Held, listener: Listener) -> None:
        self.held, self.listener = held, listener

    @property
    def gone(self) -> bool:
        return self.listener.gone

    def hear(self, branch: int, step: int, *said: Any) -> None:
        self.listener.hear(branch, step, *said)
        self.held.heard = max(self.held.heard, step + 1)
        if step == self.held.step:
            assert self.held.gate.wait(30)
            if self.held.breaks:
                raise RuntimeError("the device fell off")


@pytest.fixture
def held(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Running, Held]]:
    served = Served(handles(model))
    holding = Held(served, monkeypatch, step=5)
    running = Running(served)
    yield running, holding
    holding.gate.set()
    running.stop()


def body(question: str, name: str = "direct", **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": question}], "stream": True, **more}


def events(response: httpx.Response) -> Iterator[Any]:
    for line in response.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line[6:])


def said(found: Sequence[Any], place: int = 0) -> str:
    choices = [choice for one in found for choice in one["choices"] if choice["index"] == place]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def streaming(running: Running, question: str, **more: Any) -> Any:
    return httpx.stream("POST", f"{running.base}/v1/chat/completions", json=body(question, **more), timeout=60)


def test_tokens_are_sent_as_they_are_decoded(held: tuple[Running, Held]) -> None:
    running, holding = held
    with streaming(running, "a b c", logprobs=True) as response:
        parts = events(response)
        found: list[Any] = []
        while len(said(found)) < 6:  # the next step waits at the gate: these six characters came before the rest
            found.append(next(parts))
        assert holding.heard <= 6 and httpx.get(running.base + "/health").json()["decoding"] == 1
        holding.gate.set()
        found += list(parts)
    whole = running.ask("direct", "a b c", logprobs=True).json()
    assert said(found) == whole["choices"][0]["message"]["content"] and len(said(found)) > 6
    choices = [choice for one in found[:-1] for choice in one["choices"]]
    assert [entry for one in choices for entry in one["logprobs"]["content"]] == (
        whole["choices"][0]["logprobs"]["content"]
    )
    assert "elicit" in found[-1] and "usage" not in found[-1]
    assert found[-1]["choices"][0]["delta"] == {}  # clients read `choices[0]` of every event


def test_who_vanishes_frees_its_row(held: tuple[Running, Held]) -> None:
    running, holding = held
    for stream in (True, False):
        holding.gate.clear()
        holding.heard = 0
        if stream:
            with streaming(running, "gone", max_tokens=60) as response:
                next(events(response))
        else:
            sent = {**body("gone", max_tokens=60), "stream": False}
            with ThreadPoolExecutor(1) as pool:
                lost = pool.submit(httpx.post, f"{running.base}/v1/chat/completions", json=sent, timeout=4.0)
                until(running, decoding=1)
                assert isinstance(lost.exception(), httpx.TimeoutException)
        while not holding.listener.gone:
            time.sleep(0.02)
        holding.gate.set()
        until(running, decoding=0)
        assert holding.heard <= 7
    assert running.ask("direct", "gone", max_tokens=60).json()["usage"]["completion_tokens"] == 60


def test_a_row_that_nobody_waits_for_ends(model: Model) -> None:
    """In one batch with a row that goes on."""
    served = Served(handles(model))
    for name in ("direct", "cot-decoding"):
        jobs = [served.job(read(Chat, {**body(q, name, max_tokens=40, kind="text")})) for q in QUESTIONS[:2]]
        alone = [served.answer([job], [Ear()])[0] for job in jobs]
        mine, rows = served.answer(jobs, [Ear(4), Ear()]), jobs[0].rows
        assert mine[0].spent <= 4 + rows < alone[0].spent
        assert [t.tokens for t in mine[1].traces] == [t.tokens for t in alone[1].traces]


def test_streams_are_the_answers_that_are_sent_whole(model: Model) -> None:
    """With others in the batch: plans, samples, stop strings, methods that choose at the end, completions."""
    running = Running(Served(handles(model)), rows=32)
    try:
        start = text(running.ask("direct", "a b c", max_tokens=40))
        asked: list[dict[str, Any]] = [
            {"name": "direct", "question": "a b c", "max_tokens": 40},
            {"name": "direct", "question": "a b c", "max_tokens": 40, "stop": [start[7:10], "zzz"]},
            {"name": "direct", "question": "p a", "max_tokens": 40, "plan": [STEER]},
            {"name": "direct", "question": "h", "max_tokens": 40, "temperature": 1.3, "n": 3, "sample_id": "x"},
            {"name": "cot-decoding", "question": "a b c", "kind": "text"},
            {"name": "self-consistency", "question": "q b c d", "kind": "text"},
        ]
        whole = at_once([lambda a=a: running.ask(**a) for a in asked])
        calls: list[Callable[[], httpx.Response]] = [
            lambda a=a: running.ask(**a, stream=True, stream_options={"include_usage": True}) for a in asked
        ]
        for response, other in zip(at_once(calls), whole, strict=True):
            assert response.headers["content-type"].startswith("text/event-stream")
            found, expected = list(events(response)), other.json()
            for choice in expected["choices"]:
                assert said(found, choice["index"]) == choice["message"]["content"]
                (finish,) = [c["finish_reason"] for one in found for c in one["choices"]
                             if c["index"] == choice["index"] and c["finish_reason"]]  # fmt: skip
                assert finish == choice["finish_reason"]
            branches = [[one["text"] for one in last["elicit"]["branches"]] for last in (found[-1], expected)]
            assert found[-1]["usage"] == expected["usage"] and branches[0] == branches[1]
            assert response.text.endswith("data: [DONE]\n\n")
        assert start[7:10] not in text(whole[1])
    finally:
        running.stop()


def test_a_stream_that_breaks_says_so(held: tuple[Running, Held]) -> None:
    running, holding = held
    with streaming(running, "a b c") as response:
        parts = events(response)
        found = [next(parts)]
        holding.breaks = True
        holding.gate.set()
        found += list(parts)
    holding.breaks = False
    assert found[-1]["error"]["type"] == "server_error" and "RuntimeError" in found[-1]["error"]["message"]
    assert running.ask("dirct", "a", stream=True).status_code == 404  # before the first part: a status of its own
    assert running.ask("direct", "a", stream=True, plan=[{**STEER, "layer": 99}]).status_code == 400
    assert text(running.ask("direct", "a b c"))


def test_a_worker_that_is_killed_begins_anew(held: tuple[Running, Held]) -> None:
    """The exit is raised in the decoding thread itself, within a step."""
    running, holding = held
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(running.ask, "direct", "a b c")
        until(running, decoding=1)
        (worker,) = (one for one in threading.enumerate() if one.name.startswith("decoding"))
        assert worker.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(SystemExit))
        holding.gate.set()
        response = lost.result()
    message = response.json()["error"]["message"]
    assert (response.status_code, "SystemExit" in message, "\n" in message) == (500, True, False)
    assert text(running.ask("direct", "a b c"))
