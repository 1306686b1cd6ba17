"""`elicit check-steering --endpoint` asks `elicit serve`: what it can see of it is right, the rest cannot be told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from elicit.integrations.serve.requests import Completion, read
from elicit.integrations.serve.served import Answers, Job, Served
from elicit.models.model import Model
from tests.integrations.test_serve import QUESTIONS, Running, handles, until
from tests.integrations.test_serve import model as model
from tests.support.ports import free_port
from tests.support.shell import shell
from tests.support.tiny import save_tiny

PLAN: dict[str, Any] = {"plan": [{"vector": [0.5] * 32, "layer": 1, "strength": 2.0}]}
UNTOLD = {
    "first position of the prompt", "decoding = whole text", "unsteered decoding = whole text",
    "each position, hook point, scale",
}  # fmt: skip


@pytest.fixture(autouse=True)
def same_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts begin with the same digits each time: the tiny model ends at once after some."""
    digits = count()
    monkeypatch.setattr("steering.check.endpoint.secrets.randbelow", lambda most: 31 * next(digits) % most)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[Running]:
    running = Running(Served(handles(model)), most=64)
    yield running
    running.stop()


def checked(url: str, plan: dict[str, Any] = PLAN, name: str = "direct") -> tuple[int, dict[str, Any], str]:
    words = ["check-steering", "--endpoint", url, "--model", name, "--plan", json.dumps(plan), "--json"]
    code, out, error = shell(*words)
    return code, json.loads(out) if out else {}, error


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {one["question"]: one["verdict"] for one in found["answers"]}


@contextmanager
def commanded(folder: Path) -> Iterator[str]:
    """The command, in a process of its own."""
    port = free_port()
    words = f"-m elicit serve --model {folder} --dtype float32 --device cpu --method direct --port {port}"
    with subprocess.Popen([sys.executable, *words.split()], stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(600):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_the_command_checks_the_command(tmp_path: Path) -> None:
    with commanded(save_tiny(tmp_path)) as url:
        code, found, error = checked(url)
    said = verdicts(found)
    assert (code, found["faults"]) == (0, []), error
    assert {name for name, verdict in said.items() if verdict != "holds"} == UNTOLD
    assert {"anything moved", "batched = single", "unsteered, batched = single", "size"} <= said.keys()
    assert "the chosen token's log-probability alone" in found["about"]


@pytest.mark.parametrize("fault", ["batch differs", "unsteered rows steered", "nothing moved"])
def test_a_fault_of_the_server_is_found_by_name(model: Model, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Plans that are lost in a batch of several, that all of it gets, and that are lost altogether."""
    served = Served(handles(model))
    answer = served.answer
    steered = served.job(read(Completion, {"model": "direct", "prompt": "a", **PLAN})).handle.interventions

    def wrong(jobs: Sequence[Job], listeners: Any) -> list[Answers]:
        if len(jobs) > 1 or fault == "nothing moved":
            plan = steered if fault == "unsteered rows steered" else ()
            jobs = [replace(job, handle=replace(job.handle, interventions=plan)) for job in jobs]
        return answer(jobs, listeners)

    monkeypatch.setattr(served, "answer", wrong)
    running = Running(served)
    try:
        code, found, error = checked(running.base)
    finally:
        running.stop()
    assert (code, found["faults"]) == (1, [fault]), (found, error)


def test_what_the_server_refuses_is_named(server: Running) -> None:
    for plan, name, told in (
        ({"plan": [{**PLAN["plan"][0], "layer": 99}]}, "direct", "layer 99"),
        ({"steer": 1}, "direct", "steer is no field of this request"),
        (PLAN, "cot-decoding", "send kind"),
        (PLAN, "self-consistency", "temperature 0 was given to self-consistency, which samples"),
        (PLAN, "dirct", "did you mean direct"),
    ):
        code, _, error = checked(server.base, plan, name)
        assert (code, told in error) == (2, True), error


def test_each_of_several_prompts_gets_what_it_gets_alone(server: Running) -> None:
    asked = {"model": "direct", "temperature": 1.2, "n": 2, "sample_id": "x", "logprobs": 5, "max_tokens": 9}

    def tokens(choice: dict[str, Any]) -> list[tuple[str, float]]:
        of = choice["logprobs"]
        pairs = list(zip(of["tokens"], of["token_logprobs"], strict=True))
        assert [list(one.items()) for one in of["top_logprobs"]] == [[pair] for pair in pairs]
        return [(piece, round(value, 2)) for piece, value in pairs]

    alone = [server.post("/v1/completions", prompt=one, **asked).json() for one in QUESTIONS]
    whole = server.post("/v1/completions", prompt=QUESTIONS, **asked).json()
    ids = [server.post("/v1/completions", prompt=[[5, 6, 7], [8]][:n], **asked).json() for n in (1, 2)]
    assert [tokens(choice) for choice in whole["choices"]] == [tokens(c) for one in alone for c in one["choices"]]
    assert [choice["index"] for choice in whole["choices"]] == list(range(2 * len(QUESTIONS)))
    assert whole["usage"] == {key: sum(one["usage"][key] for one in alone) for key in whole["usage"]}
    said = [[branch["tokens"] for branch in one["branches"]] for one in whole["elicit"]]
    assert said == [[branch["tokens"] for branch in one["elicit"]["branches"]] for one in alone]
    assert [tokens(c) for c in ids[1]["choices"][:2]] == [tokens(c) for c in ids[0]["choices"]]
    assert len(ids[1]["choices"]) == 4 and isinstance(ids[0]["elicit"], dict)


def test_alternatives_are_the_chosen_token_alone(server: Running) -> None:
    for most in (0, 1, 5):
        (choice,) = server.post("/v1/completions", model="direct", prompt="a b", logprobs=most).json()["choices"]
        of = choice["logprobs"]
        pairs = zip(of["tokens"], of["token_logprobs"], strict=True)
        assert of["top_logprobs"] == ([{piece: value} for piece, value in pairs] if most else None)
        streamed = server.post("/v1/completions", model="direct", prompt="a b", logprobs=most, stream=True)
        events = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
        parts = [one["choices"][0]["logprobs"] or {} for one in events if one["choices"]]
        assert [one for part in parts for one in part.get("top_logprobs") or ()] == (of["top_logprobs"] or [])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": []}, "prompt: give a text or token ids, or 1 to 64 of either"),
        ({"prompt": ["a", 5]}, "prompt: give a text or token ids"),
        ({"prompt": ["a", ""]}, "prompt: give a text or token ids"),
        ({"prompt": ["a"] * 65}, "prompt: give a text or token ids"),
        ({"prompt": [[5], [999]]}, "give ids from 0 to"),
        ({"prompt": ["a"] * 64}, "64 prompts were given; this server takes at most 40 in one request"),
        ({"prompt": ["a", "b"], "stream": True}, "2 prompts were given with stream"),
    ],
)
def test_prompts_that_are_refused(model: Model, server: Running, body: dict[str, Any], told: str) -> None:
    running = Running(Served(handles(model)), most=40) if "at most 40" in told else server
    response = running.post("/v1/completions", **{"model": "direct", "prompt": "a", **body})
    if running is not server:
        running.stop()
    message = response.json()["error"]["message"]
    assert (response.status_code, told in message, "\n" in message) == (400, True, False), message


def test_one_prompt_that_fails_fails_its_request_and_frees_the_others(model: Model, server: Running) -> None:
    """The request has one status; what was waiting for it is given up."""
    spoiled = {"plan": [{"vector": [3e38] * 32, "layer": 0}]}
    response = server.post("/v1/completions", model="direct", prompt=["a", "b", "c"], **spoiled)
    assert response.status_code == 400, response.text
    until(server, waiting=0, decoding=0)
    assert server.post("/v1/completions", model="direct", prompt=["a", "b"]).status_code == 200
