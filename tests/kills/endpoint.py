"""An endpoint that is killed while it answers: what its clients had no answer to is asked again of a new one."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.kills.process import SAID, forked, killed
from tests.support.ports import free_port

NAME = "serve"
REQUESTS = [
    {
        "model": model,
        "messages": [{"role": "user", "content": f"What is {n} + 4?"}],
        "max_tokens": 60,
        "seed": n,
        "kind": "number",
    }
    for n in range(12)
    for model in ("direct", "cot-decoding")
]


class Endpoint:
    """Kills of `elicit serve`, between its first request and its last answer."""

    def __init__(self, model: Path, place: Path) -> None:
        place.mkdir(parents=True)
        self.model, self.place = model, place
        child, port = self._begun()
        begun = time.monotonic()
        self.whole: dict[int, Any] = {}
        for one in self._asked(port, self.whole):
            one.join()
        self.seconds = time.monotonic() - begun
        killed(child)
        assert len(self.whole) == len(REQUESTS), "requests were refused"

    def tried(self, rng: random.Random) -> tuple[int, str]:
        """As a command's."""
        answers: dict[int, Any] = {}
        kills = 0
        for _ in range(rng.choice((1, 2))):
            child, port = self._begun()
            asking = self._asked(port, answers)
            time.sleep(rng.random() * self.seconds)
            kills += len(answers) < len(REQUESTS)
            killed(child)
            for one in asking:
                one.join()
        if not kills:
            return 0, ""
        child, port = self._begun()
        for one in self._asked(port, answers):
            one.join()
        killed(child)
        wrong = [n for n in range(len(REQUESTS)) if answers.get(n) != self.whole[n]]
        return kills, f"requests {wrong} have other answers" if wrong else ""

    def _begun(self) -> tuple[int, int]:
        """The process of an endpoint that answers, and its port."""
        port = free_port()
        words = f"serve --model {self.model} --dtype float32 --device cpu --method direct --method cot-decoding"
        child = forked([*words.split(), "--port", str(port)], self.place)
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                return child, port
            except httpx.HTTPError as error:
                if os.waitpid(child, os.WNOHANG)[0]:
                    raise RuntimeError((self.place / SAID).read_text()[-300:]) from error
                time.sleep(0.05)

    def _asked(self, port: int, answers: dict[int, Any]) -> list[threading.Thread]:
        """Clients at work, one for each request that has no answer."""

        def ask(n: int) -> None:
            try:
                found = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=REQUESTS[n], timeout=120)
            except httpx.TransportError:
                return  # the endpoint was killed: it is asked again
            assert found.status_code == 200, found.text
            answers[n] = found.json()["choices"]

        asking = [threading.Thread(target=ask, args=(n,)) for n in range(len(REQUESTS)) if n not in answers]
        for one in asking:
            one.start()
        return asking
