"""`elicit serve` under many clients, beside the same questions in one evaluation.

    python -m experiments.benchmarks.serving                              # 64 clients, five minutes
    python -m experiments.benchmarks.serving --seconds 60 --stream
    python -m experiments.benchmarks.serving --seconds 30 --engine graph

Each client sends the next question when it has the answer to the last; plans of two strengths and none take turns, so
that steered and unsteered requests share batches. Before and after, the same questions are answered by the same handles
in batches of as many rows without a server: their rate is what the server's is compared with. Told are requests that
failed, answers that differ from those of the batches (in float32 there are none), tokens/s, the median and the 95th
percentile of seconds, with `--stream` also to the first part of an answer, and what the server's process holds in
memory and open files: before the first request, and after each tenth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import psutil
import torch

import elicit
from elicit.elicited import Elicited
from probes.sites import Site, width
from steering.directions import Direction
from steering.interventions import Add, Intervention, When

STRENGTHS = (None, 1.0, -1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-latent")
    parser.add_argument("--task", default="organism")
    parser.add_argument("--method", default="direct")
    parser.add_argument("--engine", default="hf")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--stream", action="store_true")
    given = parser.parse_args()
    model = elicit.load_model(given.model, dtype=given.dtype, device="cpu", engine=given.engine)
    items = elicit.load_task(given.task, limit=given.clients).test
    vector = torch.randn(width(model.lm), generator=torch.Generator().manual_seed(0))
    handle = elicit.methods.fit(given.method, model, max_new_tokens=given.max_new_tokens)
    arms = [replace(handle, interventions=plan(vector, strength)) for strength in STRENGTHS]
    expected = [[traces[0].text for traces in arm.answer(items)] for arm in arms]
    before = rate(arms, items)
    found = served(given, [item.question for item in items], vector, expected)
    after = rate(arms, items)
    share = found["tokens/s"] / ((before + after) / 2)
    print(f"{given.model} {model.provenance.sha256[:12]}, {given.method}, {given.engine}, {model.dtype}, "
          f"{given.max_new_tokens} tokens, {platform.processor() or platform.machine()}, "
          f"{torch.get_num_threads()} threads\n")  # fmt: skip
    found |= {
        "tokens/s of an evaluation, before and after": f"{before:.1f}, {after:.1f}",
        "share of it": f"{share:.3f}",
    }
    print(f"| {given.clients} clients{' with streams' if given.stream else ''} | |\n| --- | --- |")
    for name, value in found.items():
        print(f"| {name} | {value} |")


def plan(vector: torch.Tensor, strength: float | None) -> tuple[Intervention, ...]:
    if strength is None:
        return ()
    return (Intervention(Add(Direction(vector, Site(10, "resid_post"))), strength, when=When(first=0)),)


def rate(arms: list[Elicited], items: Any) -> float:
    """Tokens/s without a server, each arm's questions in one batch."""
    begun, spent = time.perf_counter(), 0
    for arm in arms:
        spent += sum(trace.spent for traces in arm.answer(items) for trace in traces)
    return spent / (time.perf_counter() - begun)


def served(given: Any, questions: list[str], vector: torch.Tensor, expected: list[list[str]]) -> dict[str, Any]:
    """What the clients saw, and what the server's process held."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "elicit", "serve", "--model", given.model, "--method", given.method,
        "--dtype", given.dtype, "--device", "cpu", "--engine", given.engine,
        "--port", str(port), "--rows", str(given.clients),
    ]  # fmt: skip
    server = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    try:
        base = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            try:
                httpx.get(f"{base}/health")
                break
            except httpx.TransportError:
                if server.poll() is not None:
                    raise SystemExit("the server ended before it began to serve") from None
                time.sleep(0.1)
        return asyncio.run(clients(given, base, questions, vector, expected, psutil.Process(server.pid)))
    finally:
        server.terminate()
        server.wait(60)


async def clients(
    given: Any, base: str, questions: list[str], vector: torch.Tensor, expected: list[list[str]], server: psutil.Process
) -> dict[str, Any]:
    took: list[float] = []
    first: list[float] = []
    spent, failed, differ = 0, 0, 0
    held = [(server.memory_info().rss, server.num_fds())]
    steering = [None, *({"vector": vector.tolist(), "layer": 10, "strength": s, "first": 0} for s in STRENGTHS[1:])]
    begun = time.perf_counter()

    async def client(number: int, http: httpx.AsyncClient) -> None:
        nonlocal spent, failed, differ
        turn = 0
        while time.perf_counter() - begun < given.seconds:
            arm, place = (number + turn) % len(steering), (number + turn) % len(questions)
            body: dict[str, Any] = {
                "model": given.method, "max_tokens": given.max_new_tokens, "kind": "text",
                "messages": [{"role": "user", "content": questions[place]}],
                "stream": given.stream, "stream_options": {"include_usage": True},
            }  # fmt: skip
            if steering[arm] is not None:
                body["plan"] = [steering[arm]]
            sent = time.perf_counter()
            text, usage = "", None
            async with http.stream("POST", f"{base}/v1/chat/completions", json=body) as answer:
                if answer.status_code == 200 and not given.stream:
                    said = json.loads(await answer.aread())
                    text, usage = said["choices"][0]["message"]["content"], said["usage"]
                elif answer.status_code == 200:
                    async for line in answer.aiter_lines():
                        part = json.loads(line[6:]) if line.startswith("data: {") else {}
                        if part.get("choices") and not text:
                            first.append(time.perf_counter() - sent)
                        text += "".join(one["delta"].get("content", "") for one in part.get("choices", ()))
                        usage = part.get("usage", usage)
            took.append(time.perf_counter() - sent)
            turn += 1
            if usage is None:
                failed += 1
                continue
            spent += usage["completion_tokens"]
            differ += text != expected[arm][place]

    async def watch() -> None:
        for _ in range(9):
            await asyncio.sleep(given.seconds / 10)
            held.append((server.memory_info().rss, server.num_fds()))

    limits = httpx.Limits(max_connections=given.clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as http:
        await asyncio.gather(watch(), *(client(number, http) for number in range(given.clients)))
    seconds = time.perf_counter() - begun
    begins = {"seconds to the first part, median and 95%": _middle(first)} if given.stream else {}
    return {
        "seconds": round(seconds, 1), "requests": len(took), "failed": failed, "texts that differ": differ,
        **begins, "seconds to an answer, median and 95%": _middle(took), "tokens/s": round(spent / seconds, 1),
        "MB held before, and after each tenth of the time": ", ".join(f"{rss / 1e6:.0f}" for rss, _ in held),
        "open files": ", ".join(str(count) for _, count in held),
    }  # fmt: skip


def _middle(values: list[float]) -> str:
    return ", ".join(f"{found:.2f}" for found in np.quantile(values, [0.5, 0.95]))


if __name__ == "__main__":
    main()
