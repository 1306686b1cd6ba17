"""A small server of `/v1/completions` around a real model, with steering by the field `steer`, and with faults."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache

from probes.batching import left_pad
from probes.clock import cache_argument
from probes.sites import blocks
from tests.support.hooks import LAYER, on_output, vector

TAKEN = {  # faults that are refusals, and what is refused
    "no echo": lambda body: body.get("echo"),
    "one prompt": lambda body: isinstance(body["prompt"], list),
    "one logprob": lambda body: body["logprobs"] > 1 or body.get("echo"),
    "little": lambda body: body["logprobs"] > 1 or body.get("echo") or isinstance(body["prompt"], list),
}
ERROR = 'no model "\x1b[31mx\x1b[0m"\nat all'


class Completions:
    """Greedy completions of left-padded batches, from a cache, with a cache of prompts where that is the fault."""

    def __init__(self, folder: Any, fault: str = "") -> None:
        self.lm = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.fault = fault
        self.prompts: dict[str, Any] = {}
        self.lock = threading.Lock()

    @torch.no_grad()
    def answer(self, body: dict[str, Any]) -> Any:
        if self.fault == "a list":
            return []
        strength = float((body.get("steer") or {}).get("strength", 0))
        given = body["prompt"]
        prompts = given if isinstance(given, list) else [given]
        with self.lock:
            hook = on_output(blocks(self.lm)[LAYER], lambda h: self._edit(h, strength))
            try:
                run = self._echo if body.get("echo") else self._complete
                choices = run(prompts, body["max_tokens"], body["logprobs"])
            finally:
                hook.remove()
        if self.fault == "no alternatives":
            choices = [{**one, "logprobs": {**one["logprobs"], "top_logprobs": None}} for one in choices]
        if self.fault == "no logprobs":
            choices = [{**one, "logprobs": None} for one in choices]
        choices = [{"index": n, **one} for n, one in enumerate(choices)]
        if self.fault == "one choice":
            choices = choices[:1]
        return {"choices": choices[::-1], "usage": {"completion_tokens": body["max_tokens"]}}

    def _edit(self, h: Tensor, strength: float) -> Tensor:
        if self.fault == "ignores the plan" or (self.fault == "prefill only" and h.shape[1] == 1):
            return h
        where = torch.ones(h.shape[:2])
        if self.fault == "first row only":
            where[1:] = 0
        if self.fault == "last position only":
            where[:, :-1] = 0
        if self.fault == "others in the batch" and len(h) > 1:
            strength = 1.0
        return h + strength * where[..., None] * vector(self.lm)

    def _complete(self, prompts: list[str], count: int, top: int) -> list[dict[str, Any]]:
        ids, mask, positions = left_pad([self.tokenizer(one)["input_ids"] for one in prompts])
        known = self.prompts.get(prompts[0]) if self.fault == "prefixes shared" and len(prompts) == 1 else None
        if known is None:
            cache = {cache_argument(self.lm): DynamicCache()}
            out = self.lm(input_ids=ids, attention_mask=mask.long(), position_ids=positions, **cache)
            known = self.prompts[prompts[0]] = (cache, out.logits[:, -1])
        past, logits = copy.deepcopy(known)
        rows: list[list[Tensor]] = [[] for _ in prompts]
        tokens: list[list[int]] = [[] for _ in prompts]
        for step in range(count):
            said = logits.log_softmax(-1)
            chosen = said.argmax(-1)
            for row in range(len(prompts)):
                rows[row].append(said[row])
                tokens[row].append(int(chosen[row]))
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            place = positions[:, -1:] + 1 + step
            logits = self.lm(chosen[:, None], mask.long(), place, **past).logits[:, -1]
        return [self._choice(t, torch.stack(r), top) for t, r in zip(tokens, rows, strict=True)]

    def _echo(self, prompts: list[str], count: int, top: int) -> list[dict[str, Any]]:
        out = []
        for prompt in prompts:
            ids = torch.tensor([self.tokenizer(prompt)["input_ids"]])
            said = self.lm(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            tokens = [*ids[0].tolist(), int(said[-1].argmax())]
            choice = self._choice(tokens[1:], said, top)
            first = self.tokenizer.decode(tokens[:1])
            of = {name: [None, *column] for name, column in choice["logprobs"].items()}
            out.append({"text": first + choice["text"], "logprobs": {**of, "tokens": [first, *of["tokens"][1:]]}})
        return out

    def _choice(self, tokens: list[int], said: Tensor, top: int) -> dict[str, Any]:
        words = [self.tokenizer.decode([one]) for one in tokens]
        best = [row.topk(top) for row in said]
        names = [[self.tokenizer.decode([int(i)]) for i in one.indices] for one in best]
        of = {
            "tokens": words,
            "token_logprobs": [float(row[one]) for row, one in zip(said, tokens, strict=True)],
            "top_logprobs": [dict(zip(n, b.values.tolist(), strict=True)) for n, b in zip(names, best, strict=True)],
        }
        return {"text": "".join(words), "logprobs": of}


@contextmanager
def serving(folder: Any, fault: str = "") -> Iterator[str]:
    """The server's address, on the loopback."""
    made = Completions(folder, fault)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, said = 200, b""
            if fault == "an error":
                status, said = 404, ERROR.encode()
            elif fault in TAKEN and TAKEN[fault](body):
                status, said = 400, b'{"error": "that is not taken here"}'
            elif fault == "no JSON":
                said = b"<html>\x1b[2J"
            else:
                if fault == "slow":
                    time.sleep(2.0)
                said = json.dumps(made.answer(body)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
