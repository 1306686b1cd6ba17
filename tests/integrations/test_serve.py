"""The endpoint, over a real socket: the texts of `evaluate`, nothing between requests, one line for what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import torch
import uvicorn
from transformers import AutoTokenizer

import elicit
from elicit.decoding.engine import EngineDied
from elicit.elicited import Elicited
from elicit.integrations.serve.app import application
from elicit.integrations.serve.queue import Queue, Refused
from elicit.integrations.serve.requests import Completion, read
from elicit.integrations.serve.served import Answers, Job, Served
from elicit.models.model import Model
from elicit.tasks.free_text import free_text
from probes.errors import UserError
from probes.sites import Site
from steering.directions import Direction
from steering.interventions import Add, Intervention, When
from tests.support.shell import shell
from tests.support.tiny import save_tiny

QUESTIONS = ["a b c", "d d e f g", "h", "i j k l m n o", "p a", "q b c d"]
STEER = {"vector": [0.5] * 32, "layer": 1, "strength": 6.0, "first": 0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return elicit.load_model(str(save_tiny(tmp_path_factory.mktemp("tiny"))), dtype="float32", device="cpu")


def handles(model: Model) -> dict[str, Elicited]:
    short = {"max_new_tokens": 12}
    steered = Intervention(Add(Direction(torch.ones(32), Site(1, "resid_post"))), 3.0, when=When())
    return {
        "direct": elicit.methods.fit("direct", model, **short),
        "cot-decoding": elicit.methods.fit("cot-decoding", model, k=3, **short),
        "self-consistency": elicit.methods.fit("self-consistency", model, samples=3, **short),
        "steered": replace(elicit.methods.fit("direct", model, **short), interventions=(steered,)),
    }


class Running:
    """A server in a thread."""

    def __init__(self, served: Served, **given: Any) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(application(served, **given), log_level="error", timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def post(self, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
        return httpx.post(self.base + path, json=body, timeout=60)

    def ask(self, name: str, question: str, **more: Any) -> httpx.Response:
        return self.post(model=name, messages=[{"role": "user", "content": question}], **more)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[Running]:
    running = Running(Served(handles(model), most=64), most=64, rows=32)
    yield running
    running.stop()


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def at_once(calls: Sequence[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_a_request_gets_what_it_gets_alone_and_what_evaluations_get(server: Running, model: Model) -> None:
    items = free_text(QUESTIONS)
    for name, handle in handles(model).items():
        expected = [[trace.text for trace in traces] for traces in handle.answer(items)]
        asked = [
            {"name": name, "question": q, "kind": "text", "sample_id": item.id}
            for q, item in zip(QUESTIONS, items, strict=True)
        ]
        for found in (at_once([lambda a=a: server.ask(**a) for a in asked]), [server.ask(**a) for a in asked]):
            assert [[b["text"] for b in one.json()["elicit"]["branches"]] for one in found] == expected


def test_what_is_given_back_is_what_the_method_chose(server: Running, model: Model) -> None:
    handle = handles(model)["cot-decoding"]
    items = free_text(QUESTIONS)
    drafts = handle.respond([handle.prompt_ids(item) for item in items], ["text"] * len(items), [i.id for i in items])
    chosen = [handle.chosen(some, "text", item=item.id) for some, item in zip(drafts, items, strict=True)]
    assert {verdict.branch for _, verdict in chosen} - {0}  # else any branch would do
    for question, (traces, verdict) in zip(QUESTIONS, chosen, strict=True):
        (expected,) = (trace.text for trace in traces if trace.index == verdict.branch)
        assert text(server.ask("cot-decoding", question, kind="text")) == expected


def test_each_answer_ends_at_its_own_stop_strings(server: Running) -> None:
    whole = [text(server.ask("direct", question)) for question in QUESTIONS]
    stops = [said[len(said) // 2] for said in whole]
    calls = [
        lambda q=question, stop=stop: server.ask("direct", q, **({} if stop is None else {"stop": [stop]}))
        for question in QUESTIONS
        for stop in (None, *dict.fromkeys(stops))
    ]
    alone = [text(call()) for call in calls]
    assert [text(one) for one in at_once(calls)] == alone
    assert len(set(alone)) > len(QUESTIONS)


def test_requests_with_plans_share_batches_and_change_nobody(server: Running) -> None:
    plans: list[Any] = [None, [STEER], [{**STEER, "strength": -6.0}], [{**STEER, "first": None, "positions": [0]}]]
    calls = [
        lambda q=q, plan=plan, name=name: server.ask(name, q, plan=plan)
        for q in QUESTIONS
        for plan in plans
        for name in ("direct", "steered")
    ]
    alone = [text(call()) for call in calls]
    assert [text(one) for one in at_once(calls)] == alone
    assert len(set(alone)) > len(QUESTIONS) * 2
    moved = server.ask("direct", "a b c", plan=[STEER]).json()["elicit"]["branches"][0]["moved"]
    assert all(share > 0 for share in moved)
    assert 'elicit_batch_rows_bucket{le="1.0"}' in httpx.get(server.base + "/metrics").text


def test_samples_are_keyed_and_several(server: Running) -> None:
    given: dict[str, Any] = {"temperature": 1.5, "seed": 3, "sample_id": "x", "n": 3}
    one, again = server.ask("direct", "a b c", **given), server.ask("direct", "a b c", **given)
    texts = [choice["message"]["content"] for choice in one.json()["choices"]]
    assert len(set(texts)) == 3
    assert texts == [choice["message"]["content"] for choice in again.json()["choices"]]
    first = text(server.ask("direct", "a b c", **{**given, "n": 1}))
    other = text(server.ask("direct", "a b c", **{**given, "n": 1, "epoch": 1}))
    assert first == texts[0] != other


def test_logprobs_streams_and_completions(server: Running, model: Model) -> None:
    whole = server.ask("direct", "a b c", logprobs=True).json()
    content = whole["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in content) == whole["choices"][0]["message"]["content"]
    assert all(one["logprob"] < 0 for one in content)
    streamed = server.ask("direct", "a b c", logprobs=True, stream=True, stream_options={"include_usage": True})
    events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert streamed.text.rstrip().endswith("data: [DONE]")
    parts = [one["choices"][0] for one in events if one["choices"]]
    assert "".join(one["delta"].get("content", "") for one in parts) == whole["choices"][0]["message"]["content"]
    assert [entry for one in parts if one["logprobs"] for entry in one["logprobs"]["content"]] == content
    assert events[-1]["usage"] == whole["usage"]
    ids = model.tokenizer("a b c")["input_ids"]
    by_text = server.post("/v1/completions", model="direct", prompt="a b c", logprobs=1).json()
    by_ids = server.post("/v1/completions", model="direct", prompt=ids, logprobs=1).json()
    assert by_text["choices"] == by_ids["choices"]
    assert len(by_text["choices"][0]["logprobs"]["token_logprobs"]) == by_text["usage"]["completion_tokens"] > 0
    listed = httpx.get(server.base + "/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["direct", "cot-decoding", "self-consistency", "steered"]
    assert httpx.get(server.base + "/v1/models/steered").json() == listed[-1]
    for path, told in (
        ("models/steerd", "did you mean steered"),
        ("responses", "there is no /v1/responses here; there "),
    ):
        answer = httpx.get(f"{server.base}/v1/{path}")
        assert answer.status_code == 404 and told in answer.json()["error"]["message"]


def test_an_answer_of_nothing_has_no_tokens(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token ends it."""
    monkeypatch.setattr(Model, "eos_ids", property(lambda self: frozenset(range(model.vocab_size))))
    running = Running(Served(handles(model)))
    try:
        for stream in (False, True):
            chat = running.ask("direct", "a b c", logprobs=True, stream=stream)
            plain = running.post("/v1/completions", model="direct", prompt="a b c", logprobs=1, stream=stream)
            for one, empty in ((chat, {"content": []}), (plain, {"tokens": [], "token_logprobs": []})):
                lines = [line[6:] for line in one.text.splitlines() if "{" in line] if stream else [one.text]
                found = json.loads(lines[0])["choices"][0]["logprobs"]
                assert {key: found[key] for key in empty} == empty
    finally:
        running.stop()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, {"model": "dirct"}, "did you mean direct"),
        (400, {"messages": []}, "messages"),
        (400, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        (400, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content: give a text"),
        (400, {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}, "--put chat"),
        (400, {"messages": [{"role": "user", "content": " "}]}, "empty question"),
        (400, {"max_tokens": 65}, "at most 64"),
        (400, {"max_tokens": 1.5}, "max_tokens"),
        (400, {"max_tokens": 6, "max_completion_tokens": 5}, "max_completion_tokens = 5 were given; give one of them"),
        (400, {"temprature": 1}, "temprature is no field"),
        (400, {"frequency_penalty": 0.5}, "frequency_penalty was given"),
        (400, {"tools": [{"type": "function"}]}, "tools was given"),
        (400, {"top_logprobs": 5, "logprobs": True}, "top_logprobs was given"),
        (400, {"n": 2}, "give a temperature"),
        (400, {"top_p": 0.3}, "top_p was given to direct without a temperature; give a temperature above 0 as well"),
        (400, {"top_k": 5, "min_p": 0.1, "top_p": 1}, "min_p, top_k were given to direct without a temperature"),
        (400, {"model": "steered", "min_p": 0.1}, "min_p was given to steered without a temperature"),
        (400, {"model": "cot-decoding", "kind": "text", "temperature": 1.0}, "temperature was given to cot-decoding"),
        (400, {"model": "self-consistency", "kind": "text", "n": 2}, "leave n out"),
        (400, {"model": "cot-decoding"}, "send kind"),
        (400, {"kind": "numbr"}, "did you mean number"),
        (400, {"plan": [{**STEER, "layer": 99}]}, "99"),
        (400, {"plan": [{**STEER, "vector": [1.0]}]}, "32"),
        (400, {"plan": [{**STEER, "vector": "mine"}]}, "unknown vector 'mine'"),
        (400, {"plan": [{"vector": [1.0] * 32}]}, "give layer"),
        (400, {"plan": [{**STEER, "first": 10**30}]}, "plan.0.first"),
        (400, {"plan": [{**STEER, "first": None, "positions": [0, -(10**30)]}]}, "plan.0.positions.1"),
        (400, {"plan": [{**STEER, "strength": 0.0}]}, "strength"),
    ],
)
def test_what_is_refused(server: Running, status: int, body: dict[str, Any], told: str) -> None:
    response = server.post(**{"model": "direct", "messages": [{"role": "user", "content": "a"}], **body})
    message = response.json()["error"]["message"]
    assert (response.status_code, told in message, "\n" in message) == (status, True, False), message


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"sample_id": "\ud800"}, "sample_id"),
        ({"messages": [{"role": "user", "content": "a \udfff b"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud83d"}]}]}, "0.content.0.text"),
        ({"messages": [{"role": "user", "content": "a", "name": "\ud800"}]}, "messages.0.name"),
        ({"stop": ["a", "\ud800"]}, "stop.1"),
        ({"plan": [{**STEER, "vector": "\ud800"}]}, "plan.0.vector"),
        ({"plan": [{**STEER, "point": "\ud800"}]}, "plan.0.point"),
        ({"kind": "\ud800"}, "kind"),
        ({"model": "\ud800"}, "model"),
        ({"a\ud800": 1}, "the name of a field"),
        ({"stream_options": {"\ud800": True}}, "the name of a field"),
    ],
)
def test_half_a_character_is_refused_wherever_it_stands(server: Running, body: dict[str, Any], where: str) -> None:
    """JSON can write half of a character beyond the first 65,536, which is no text."""
    asked = {"model": "direct", "messages": [{"role": "user", "content": "a"}], **body}
    head = {"content-type": "application/json"}
    response = httpx.post(server.base + "/v1/chat/completions", content=json.dumps(asked), headers=head)
    message = response.json()["error"]["message"]
    told = f"{where} holds half of a character; send whole ones"
    assert (response.status_code, told in message, "\n" in message) == (400, True, False), message


def test_filters_do_without_a_temperature_what_they_ask_for_or_nothing(server: Running) -> None:
    greedy = text(server.ask("direct", "a b c"))
    for given in ({"top_p": 1.0, "top_k": 0, "min_p": 0.0}, {"temperature": 0, "top_p": 0.3, "top_k": 5}):
        assert text(server.ask("direct", "a b c", **given)) == greedy
    assert text(server.ask("self-consistency", "a b c", kind="text", top_k=1)) == greedy  # has a temperature of its own


def test_malformed_oversized_and_foreign_requests(model: Model) -> None:
    running = Running(Served(handles(model)), token="0123456789abcdef", largest=2000)
    try:
        url, mine = running.base + "/v1/chat/completions", {"authorization": "Bearer 0123456789abcdef"}
        as_json = {**mine, "content-type": "application/json"}
        body = {"model": "direct", "messages": [{"role": "user", "content": "a b"}]}
        for status, headers, content in (
            (200, as_json, json.dumps(body)),
            (400, as_json, "{"),
            (400, as_json, "[" * 1500),
            (400, as_json, "[1]"),
            (400, as_json, b"\xff\xfe"),
            (415, mine, json.dumps(body)),
            (413, as_json, json.dumps({**body, "user": "x" * 3000})),
            (401, {"content-type": "application/json"}, json.dumps(body)),
            (401, {**as_json, "authorization": "Bearer 0123456789abcdeF"}, json.dumps(body)),
            (400, {**as_json, "host": "example.org"}, json.dumps(body)),
        ):
            assert httpx.post(url, content=content, headers=headers).status_code == status, (headers, content)
        assert httpx.get(running.base + "/metrics").status_code == 401
        assert httpx.get(running.base + "/health").json()["status"] == "ok"
        assert httpx.get(running.base + "/nowhere", headers=mine).json()["error"]["type"] == "invalid_request_error"
    finally:
        running.stop()


def test_what_is_lost_or_breaks_is_noticed_by_nobody_else(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that vanish, a full queue, requests that take too long, a worker that breaks, a server that stops."""
    served = Served(handles(model))
    answer, gate = served.answer, threading.Event()
    breaks: list[Exception] = []

    def slow(jobs: Sequence[Job], listeners: Any) -> list[Answers]:
        gate.wait(20)
        if breaks:
            raise breaks.pop()
        return answer(jobs, listeners)

    monkeypatch.setattr(served, "answer", slow)
    running = Running(served, most=2, seconds=3.0)
    try:
        with ThreadPoolExecutor(8) as pool:
            first = pool.submit(running.ask, "direct", "a b c")  # is being decoded, and waits at the gate
            until(running, decoding=1)
            body = {"model": "direct", "messages": [{"role": "user", "content": "gone"}]}
            with pytest.raises(httpx.TimeoutException):
                httpx.post(running.base + "/v1/chat/completions", json=body, timeout=0.2)
            until(running, waiting=0)
            held = [pool.submit(running.ask, "direct", q) for q in QUESTIONS[:2]]
            until(running, waiting=2)
            assert running.ask("direct", "one too many").status_code == 429
            time.sleep(3.2)
            assert [one.result().status_code for one in (first, *held)] == [504, 504, 504]
            gate.set()
            until(running, decoding=0)
            expected = text(running.ask("direct", "a b c"))
            for error, told in (
                (RuntimeError("the device fell off"), "RuntimeError"), (EngineDied("its process ended"), "engine ended")
            ):  # fmt: skip
                breaks.append(error)
                broken = running.ask("direct", "a b c")
                assert (broken.status_code, told in broken.text) == (500, True)
                assert text(running.ask("direct", "a b c")) == expected
            spoiled = {"vector": [3e38] * 32, "layer": 0}
            good, bad = at_once(
                [lambda: running.ask("direct", "a b c"), lambda: running.ask("direct", "a", plan=[spoiled])]
            )
            assert (text(good), bad.status_code) == (expected, 400)
            gate.clear()
            last = pool.submit(running.ask, "direct", "a b c")
            until(running, decoding=1)
            running.server.should_exit = True
            gate.set()
            assert text(last.result()) == expected  # what was being decoded is sent
    finally:
        gate.set()
        running.stop()


def until(running: Running, **state: int) -> None:
    for _ in range(400):
        found = httpx.get(running.base + "/health").json()
        if all(found[key] == value for key, value in state.items()):
            return
        time.sleep(0.02)
    raise AssertionError(f"{found} is not {state}")


def test_a_request_that_breaks_the_worker_breaks_it_for_itself_alone(model: Model) -> None:
    """All are taken into one batch, whichever fault of one of them nobody foresaw."""
    served = Served(handles(model))
    asks = [{"model": "direct", "prompt": "a b", "sample_id": one} for one in ("x", "bad", "y")]
    jobs = [served.job(read(Completion, one)) for one in asks]
    sizes, repairs = [], []

    def answer(some: Sequence[Job], listeners: Any) -> list[Answers]:
        sizes.append(len(some))
        if any(job.stream.sample == "bad" for job in some):
            raise ValueError("surrogates not allowed")
        return served.answer(some, listeners)

    async def ask() -> list[Any]:
        queue = Queue(
            answer, rows=9, most=9, seconds=60.0, repair=lambda: repairs.append(len(sizes)), seen=lambda *_: None
        )
        queue.start()
        found: list[Any] = await asyncio.gather(*[queue.submit(job) for job in jobs], return_exceptions=True)
        await queue.close()
        return found

    first, bad, last = asyncio.run(ask())
    assert sizes == [3, 1, 1, 1] and repairs == [1, 3]  # before each is decoded alone, and after the one that broke it
    assert isinstance(bad, Refused) and bad.status == 500 and "ValueError" in str(bad)
    assert first.traces[0].text == last.traces[0].text != ""


def test_what_waits_is_refused_by_a_server_that_stops(model: Model) -> None:
    served = Served(handles(model))
    job = served.job(read(Completion, {"model": "direct", "prompt": "a b"}))

    def nothing(*_: Any) -> None:
        pass

    async def stop() -> list[Any]:
        queue = Queue(served.answer, rows=1, most=9, seconds=9.0, repair=nothing, seen=nothing)
        waiting = asyncio.ensure_future(queue.submit(job))
        await asyncio.sleep(0)
        await queue.close()
        return await asyncio.gather(waiting, queue.submit(job), return_exceptions=True)

    found = asyncio.run(stop())
    assert all(isinstance(one, Refused) and one.status == 503 for one in found)


def thinking(folder: Path, mark_is_a_token: bool = True) -> str:
    """A tiny model whose chat template writes the marks of a thought."""
    save_tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if mark_is_a_token:  # in the place of a character that nothing here says
        raw = json.loads((folder / "tokenizer.json").read_text())
        raw["model"]["vocab"] = {"</think>" if k == "~" else k: v for k, v in raw["model"]["vocab"].items()}
        raw["added_tokens"].append({
            "id": raw["model"]["vocab"]["</think>"], "content": "</think>", "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": False,
        })  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(raw))
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<think></think>{% endfor %}"
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are made and not run."""
    monkeypatch.setattr("uvicorn.Server.run", lambda self: None)


FREE = ["direct", "cot-prompt", "self-consistency", "cot-decoding", "power-sampling"]


@pytest.mark.parametrize(
    ("kind", "served", "left_out"),
    [
        ("plain", FREE, dict.fromkeys(("no-thinking", "budget-forcing"), "has no marks around thoughts")),
        ("thinking", [*FREE, "no-thinking", "budget-forcing"], {}),
        ("long mark", [*FREE, "no-thinking"], {"budget-forcing": "give waits=0"}),
    ],
)
def test_all_that_need_no_fit_are_served_where_they_can_be(
    begun: None, tmp_path: Path, kind: str, served: list[str], left_out: dict[str, str]
) -> None:
    folder = str(save_tiny(tmp_path)) if kind == "plain" else thinking(tmp_path, kind == "thinking")
    code, _, error = shell("serve", "--model", folder, "--device", "cpu")
    assert code == 0 and f"serving {', '.join(served)} of" in error, error
    lines = [line.removeprefix("elicit: ") for line in error.splitlines() if "is left out" in line]
    assert len(lines) == len(left_out)
    assert all(any(line.startswith(name) and why in line for line in lines) for name, why in left_out.items())
    for name, why in left_out.items():  # asked for by name it is refused instead
        code, _, error = shell("serve", "--model", folder, "--device", "cpu", "--method", name)
        assert (code, why in error) == (2, True), error


def test_no_method_is_said_to_need_a_fit_that_needs_none(begun: None, tmp_path: Path) -> None:
    folder = thinking(tmp_path)
    model = elicit.load_model(folder, dtype="float32", device="cpu")
    for name in elicit.methods.METHODS:
        try:
            elicit.methods.fit(name, model, None)
        except UserError:
            wanted = "needs a fit"
        else:
            wanted = "puts the question to its tools again" if name == "cognitive-tools" else ""
        code, _, error = shell("serve", "--model", folder, "--device", "cpu", "--method", name)
        assert (code, wanted in error) == (2 if wanted else 0, True), error


def test_the_command_refuses_what_it_cannot_serve() -> None:
    for arguments, told in (
        (["--host", "0.0.0.0"], "ELICIT_SERVE_TOKEN"),
        (["--method", "sae-steer"], "needs a fit"),
        (["--method", "cognitive-tools"], "--method cognitive-tools puts the question to its tools again"),
        (["--method", "dirct"], "did you mean direct"),
        (["--bundle", "x"], "write NAME=PATH"),
        (["--kind", "numbr"], "did you mean number"),
    ):
        code, _, error = shell("serve", *arguments)
        assert (code, told in error) == (2, True), error
