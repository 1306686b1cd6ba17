"""Single measurements on a device, with random weights of true shapes: the worker of `experiments.benchmarks.device`.

It reads a JSON line a measurement from standard input and answers with one. It is started by its path with another
commit's folder first on the path of imports, so it stands on what `elicit`, `probes` and `steering` had there as well,
and on nothing else of `experiments`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from elicit.decoding import Branching, Decoder, Greedy, Sampling, StopRule
from elicit.decoding.engine import UNSTEERED, Batch, decode_batch, engine_of
from elicit.decoding.loop import Rows
from elicit.models.model import Model, Provenance
from probes.capture import capture
from probes.confidence import token_statistics, top2
from probes.sites import Site, decoder, width
from steering.directions import Direction
from steering.interventions import Add, Intervention, Plan, When

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": dict(model_type="llama", vocab_size=4096, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
                 num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    "135m": dict(model_type="llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                 num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=8192),
    "1.5b": dict(model_type="qwen2", vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
                 num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=8192),
    "7b": dict(model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
               num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False, max_position_embeddings=8192),
}  # fmt: skip
NO_STOP = StopRule(frozenset())
ENDS = 64  # of the unequal answers: each token ends one with probability 1/64
PROFILED = (4, 12)  # steps of two profiles, whose difference is that of whole steps alone
ROUNDS = 2


@dataclass(frozen=True)
class Sizes:
    """Questions, branches of each, prompt tokens, new tokens."""

    questions: int
    branches: int
    prompt: int
    new: int

    @property
    def rows(self) -> int:
        return self.questions * self.branches


SIZES = {"cuda": Sizes(32, 10, 200, 64), "cpu": Sizes(2, 3, 12, 14)}


class Bench:
    """A model with random weights and what is measured of it.

    Args:
        shape: one of `SHAPES`.
        device: `cuda` or `cpu`.
    """

    def __init__(self, shape: str, device: str) -> None:
        arguments = dict(SHAPES[shape])
        config = CONFIG_MAPPING[arguments.pop("model_type")](**arguments)
        torch.manual_seed(0)
        with torch.device(device):
            lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        lm.generation_config.eos_token_id = None
        lm.requires_grad_(False)
        self.lm, self.config, self.device, self.sizes = lm, config, device, SIZES[device]
        words = Tokenizer(WordLevel({f"t{i}": i for i in range(config.vocab_size)}, unk_token="t0"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
        self.model = Model(shape, lm, tokenizer, Provenance(shape, "random weights", "", "0" * 64))
        draw = np.random.default_rng(0)
        n = self.sizes.prompt
        self.prompts = [draw.integers(10, 4000, n).tolist() for _ in range(self.sizes.questions)]
        lengths = np.linspace(n // 4, 7 * n // 4, self.sizes.questions).astype(int)
        self.ragged = [draw.integers(10, 4000, length).tolist() for length in lengths]

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def timed(self, work: Callable[[], object], rounds: int = ROUNDS) -> float:
        """Seconds, the median."""
        out = []
        for _ in range(rounds):
            self.sync()
            began = time.perf_counter()
            work()
            self.sync()
            out.append(time.perf_counter() - began)
        return statistics.median(out)

    def decode(
        self, engine: str, how: Decoder, *, prompts: Sequence[list[int]] = (), plan: Plan = (), stop: StopRule = NO_STOP
    ) -> list[list[Any]]:
        asked = prompts or self.prompts
        arms = (("steered", plan),) if plan else UNSTEERED
        batch = Batch(asked, [str(i) for i in range(len(asked))], how, stop, arms=arms)
        return decode_batch(self.of(engine), batch)

    def of(self, engine: str) -> Model:
        """The model as an engine decodes it; `graph+fuse` is that engine with that option on."""
        if engine not in self._engines:
            name, *on = engine.split("+")
            told: dict[str, Any] = {"engine_options": dict.fromkeys(on, True)} if on else {}
            self._engines[engine] = replace(self.model, engine=name, **told)
        return self._engines[engine]

    @cached_property
    def _engines(self) -> dict[str, Model]:
        return {}

    def tokens_a_second(self, engine: str, how: Decoder, **more: Any) -> dict[str, Any]:
        self.decode(engine, replace(how, max_new_tokens=8), **more)
        made: list[list[Any]] = []
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = self.timed(lambda: made.append(self.decode(engine, how, **more)))
        tokens = sum(branch.spent for branches in made[0] for branch in branches)
        peak = {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)} if self.device == "cuda" else {}
        step = 1000 * seconds / how.max_new_tokens
        rows = sum(map(len, made[0]))
        told = engine_of(self.of(engine)).how
        return {"rows": rows, "tok_s": round(tokens / seconds), "ms_step": round(step, 2), **peak, "how": told}


def cot(b: Bench, engine: str) -> dict[str, Any]:
    return b.tokens_a_second(engine, Branching(b.sizes.branches, b.sizes.new))


def sampling(b: Bench, engine: str) -> dict[str, Any]:
    return b.tokens_a_second(engine, Sampling(b.sizes.branches, 0.7, max_new_tokens=b.sizes.new))


def greedy(b: Bench, engine: str) -> dict[str, Any]:
    return b.tokens_a_second(engine, Greedy(b.sizes.new), prompts=b.prompts * 2)


def steered(b: Bench, engine: str) -> dict[str, Any]:
    """One vector at the middle layer, at every step, of as many rows as `greedy`."""
    vector = torch.randn(width(b.lm), generator=torch.Generator().manual_seed(0))
    one = Intervention(Add(Direction(vector, Site(b.config.num_hidden_layers // 2))), 1.0, when=When.every_step())
    return b.tokens_a_second(engine, Greedy(b.sizes.new), prompts=b.prompts * 2, plan=(one,))


def unequal(b: Bench, engine: str) -> dict[str, Any]:
    """Prompts of 1/4 to 7/4 of the usual length, and answers that end at any step with probability 1/64."""
    how = Sampling(b.sizes.branches, 1.0, max_new_tokens=4 * b.sizes.new)
    ends = StopRule(frozenset(range(0, b.config.vocab_size, ENDS)))
    return b.tokens_a_second(engine, how, prompts=b.ragged, stop=ends)


def same_tokens(b: Bench, engine: str) -> dict[str, Any]:
    """Which part of greedy answers is the reference's, token for token up to the first that differs."""
    ours, theirs = (b.decode(one, Greedy(b.sizes.new)) for one in (engine, "hf"))
    pairs = [(a.tokens, c.tokens) for x, y in zip(ours, theirs, strict=True) for a, c in zip(x, y, strict=True)]
    alike = [np.cumprod(a[: len(c)] == c[: len(a)]).mean() for a, c in pairs]
    return {"alike": round(float(np.mean(alike)), 4), "whole": round(float(np.mean(np.array(alike) == 1)), 4)}


def generate(b: Bench, engine: str) -> dict[str, Any]:
    """`generate` of transformers, each prompt repeated for each branch."""
    ids = torch.tensor(b.prompts, device=b.device).repeat_interleave(b.sizes.branches, 0)
    given = dict(attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0)
    b.lm.generate(ids, max_new_tokens=4, **given)
    seconds = b.timed(lambda: b.lm.generate(ids, max_new_tokens=b.sizes.new, **given))
    tokens = b.sizes.rows * b.sizes.new
    return {"rows": b.sizes.rows, "tok_s": round(tokens / seconds), "ms_step": round(1000 * seconds / b.sizes.new, 2)}


def captured(b: Bench, engine: str) -> dict[str, Any]:
    """`resid_post` of all layers to shards, and of one layer to memory, beside the same forwards without hooks."""
    texts = b.prompts * 4
    tokens = sum(map(len, texts))
    sites = [Site(layer) for layer in range(b.config.num_hidden_layers)]

    @torch.inference_mode()
    def plain() -> None:
        for start in range(0, len(texts), 32):
            decoder(b.lm)(torch.tensor(texts[start : start + 32], device=b.device), use_cache=False)

    def to_disk(some: list[list[int]]) -> None:
        with tempfile.TemporaryDirectory() as place:
            capture(b.lm, some, sites, out=Path(place) / "shards")

    to_disk(texts[:4])
    without = b.timed(plain)
    disk = b.timed(lambda: to_disk(texts))
    memory = b.timed(lambda: capture(b.lm, texts, [sites[len(sites) // 2]]))
    size = 2 * tokens * len(sites) * b.config.hidden_size
    return {
        "tok_s": round(tokens / disk), "plain_tok_s": round(tokens / without), "of_plain": round(without / disk, 3),
        "memory_of_plain": round(without / memory, 3), "gb_s": round(size / disk / 1e9, 2),
    }  # fmt: skip


def parts(b: Bench, engine: str) -> dict[str, Any]:
    """What of a step is not the model: statistics of each row's token, and the sampler."""
    logits = torch.randn(b.sizes.rows, b.config.vocab_size, device=b.device, dtype=torch.bfloat16)
    tokens = torch.zeros(b.sizes.rows, dtype=torch.long, device=b.device)
    policy = Sampling(b.sizes.branches, 0.7, max_new_tokens=b.sizes.new).policy(
        [str(i) for i in range(b.sizes.questions)], b.config.vocab_size
    )
    questions, branches = b.sizes.questions, b.sizes.branches
    rows = Rows(np.repeat(np.arange(questions), branches), np.tile(np.arange(branches), questions))

    def ms(work: Callable[[], object]) -> float:
        work()
        return round(100 * b.timed(lambda: [work() for _ in range(10)]), 3)

    return {
        "ms": ms(lambda: token_statistics(logits, top2(logits), tokens)),
        "sampling_ms": ms(lambda: policy.next(logits, top2(logits), rows, 1)),
    }


def profiled(b: Bench, engine: str) -> dict[str, Any]:
    """A step: kernels that ran, calls that started them, synchronisations, copies to the host, and how busy it was.

    Prompts and what comes after the last step are taken off: it is the difference of two lengths.
    """
    found = []
    for steps in PROFILED:
        how = Branching(b.sizes.branches, steps)
        b.decode(engine, how)
        seconds = b.timed(lambda how=how: b.decode(engine, how), 3)  # type: ignore[misc]
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if b.device == "cuda" else [])]
        with profile(activities=kinds) as kept:
            b.decode(engine, how)
            b.sync()
        counted = dict.fromkeys(
            ("kernels", "launches", "graphs", "synchronisations", "copies_to_host", "operators"), 0.0
        )
        busy = 0.0
        for event in kept.key_averages():
            on_device = "CUDA" in str(event.device_type)
            if on_device:
                busy += event.self_device_time_total / 1e3
            counted["kernels"] += event.count * (on_device and not event.key.startswith(("Memcpy", "Memset")))
            counted["copies_to_host"] += event.count * (on_device and "DtoH" in event.key)
            counted["launches"] += event.count * ("LaunchKernel" in event.key)
            counted["graphs"] += event.count * ("GraphLaunch" in event.key)
            counted["synchronisations"] += event.count * ("Synchronize" in event.key)
            counted["operators"] += event.count * event.key.startswith("aten::")
        found.append({**counted, "busy_ms": busy, "ms": 1000 * seconds})
    short, long = found
    step = {key: (long[key] - short[key]) / (PROFILED[1] - PROFILED[0]) for key in long}
    busy_part = {"busy": round(step["busy_ms"] / step["ms"], 3)} if b.device == "cuda" and step["ms"] > 0 else {}
    return {**{key: round(value, 2) for key, value in step.items()}, **busy_part}


@torch.inference_mode()
def floor(b: Bench, engine: str) -> dict[str, Any]:
    """What no decoder of these steps avoids: the linear layers' products, and one reading of what is attended to.

    The products are timed as one CUDA graph where there is one; the reading is bytes over the measured bandwidth.
    """
    linears = [m for m in b.lm.modules() if isinstance(m, nn.Linear)]
    given = {
        size: torch.randn(b.sizes.rows, size, device=b.device, dtype=torch.bfloat16)
        for size in {m.in_features for m in linears}
    }

    def products() -> None:
        for module in linears:
            module(given[module.in_features])

    products()
    again = products
    if b.device == "cuda":
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            products()
        b.sync()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            products()
        again = graph.replay
    linear = b.timed(lambda: [again() for _ in range(20)], 3) / 20
    c = b.config
    held = 2 * 2 * c.num_hidden_layers * c.num_key_value_heads * (c.hidden_size // c.num_attention_heads)
    read = held * (b.sizes.questions * b.sizes.prompt + b.sizes.rows * b.sizes.new / 2)
    size = (1 << 30) if b.device == "cuda" else 1 << 24
    old, new = (torch.empty(size, dtype=torch.uint8, device=b.device) for _ in range(2))
    speed = 2 * 10 * size / b.timed(lambda: [new.copy_(old) for _ in range(10)], 3)
    whole = linear + read / speed
    return {
        "ms": round(1000 * whole, 3), "linear_ms": round(1000 * linear, 3), "cache_ms": round(1000 * read / speed, 3),
        "copy_tb_s": round(speed / 1e12, 3), "tok_s": round(b.sizes.rows / whole),
    }  # fmt: skip


MEASURES: dict[str, Callable[[Bench, str], dict[str, Any]]] = {
    "cot-decoding": cot, "generate": generate, "floor": floor, "parts": parts, "profile": profiled,
    "same-tokens": same_tokens, "sampling": sampling, "unequal": unequal, "greedy": greedy, "steered": steered,
    "capture": captured,
}  # fmt: skip


def main(device: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    bench: Bench | None = None
    shape = ""
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if bench is None or asked["shape"] != shape:
                bench, shape = None, asked["shape"]
                _free(device)
                bench = Bench(shape, device)
            found = MEASURES[asked["row"]](bench, asked["engine"])
        except Exception as error:  # noqa: BLE001  one measurement that fails is told as such, and the others follow
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        _free(device)
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(found), file=answers, flush=True)
        if "CUDA error" in found.get("error", ""):
            sys.exit(1)  # nothing works after it in this process; the next measurement gets another


def _free(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1])
