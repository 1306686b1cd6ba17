"""Tokens a second of CoT-decoding: our loop, a peer, and the limit of the machine, in one run.

    python -m experiments.benchmarks.decoding            # about six minutes on two cores
    python -m experiments.benchmarks.decoding --dtype float32 --engine int8   # and this engine's row
    python -m experiments.benchmarks.decoding --dtype float32 --profile   # where a step goes, one thread
    python -m experiments.benchmarks.decoding --memory   # peak memory of 16 questions x 10 branches x 256 tokens

All contenders decode the same questions into ten branches of 48 tokens with the same model.

- peer: `cot_decode` of optillm, called as its users call it, one question after the other. It is optional:
  `pip install --no-deps optillm==0.4.0`; only its one file is loaded, since the package imports a server.
- one question: our loop, one question at a time.
- batched: our loop, all questions together; once more with weights that are not packed, and by another engine.
- limit: what no decoder of these steps can avoid, on the model's own weights (packed, as our loop packs them): the
  product of every linear layer at every step with that step's rows, and attention's two products over every cached
  key and value that the step attends to, read once (the prompt's once a question), by PyTorch's fused kernel. No
  norms, no rotations, no activations, no cache writes, no sampling, no statistics, nothing between layers.

The limit is timed before and after the batched run and the faster one counts.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import elicit
from elicit.decoding import Branching, StopRule, decode
from elicit.decoding.engine import Batch, decode_batch, engine_of
from elicit.decoding.packed_weights import PACKING, packed
from elicit.models import Model

K, NEW_TOKENS, PROFILED = 10, 48, 16
PEER = "optillm"


def questions(count: int) -> list[str]:
    """Word problems that reasoning-gym writes, the same for everyone."""
    task = elicit.load_task("gsm-symbolic", limit=count)
    return [item.question for item in task.test]


def ours(model: Model, prompts: list[list[int]], together: int) -> int:
    """Decode all prompts, `together` at a time; no end token, so that every branch has its 48 tokens."""
    tokens = 0
    for start in range(0, len(prompts), together):
        part = prompts[start : start + together]
        policy = Branching(K, NEW_TOKENS).policy([str(i) for i in range(len(part))], model.vocab_size)
        out = decode(model.lm, part, policy, max_new_tokens=NEW_TOKENS, stop=StopRule(frozenset()))
        tokens += sum(len(branch.tokens) for branches in out for branch in branches)
    return tokens


def through(model: Model, prompts: list[list[int]]) -> int:
    """The same, all together, by the model's engine."""
    batch = Batch(prompts, [str(i) for i in range(len(prompts))], Branching(K, NEW_TOKENS), StopRule(frozenset()))
    return sum(len(branch.tokens) for branches in decode_batch(model, batch) for branch in branches)


def load_peer() -> ModuleType | None:
    """The file `cot_decoding.py` of the installed peer, without importing the package around it."""
    try:
        files = importlib.metadata.files(PEER) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    path = next(Path(str(f.locate())) for f in files if f.name == "cot_decoding.py")
    spec = importlib.util.spec_from_file_location("peer_cot_decoding", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer(module: ModuleType, model: Model, texts: list[str]) -> int:
    """The peer's own function; new tokens are counted where `generate` returns them."""
    tokens = 0
    generate = model.lm.generate

    def counting(ids: torch.Tensor, **arguments: object) -> object:
        nonlocal tokens
        out = generate(ids, **arguments)  # type: ignore[operator]
        tokens += out.sequences.shape[1] - ids.shape[1] + 1  # and the branching token, which it feeds in
        return out

    model.lm.generate = counting  # type: ignore[method-assign,assignment]
    try:
        for text in texts:
            module.cot_decode(
                model.lm, model.tokenizer, [{"role": "user", "content": text}], k=K, max_new_tokens=NEW_TOKENS - 1
            )
    finally:
        model.lm.generate = generate  # type: ignore[method-assign]
    return tokens


@torch.inference_mode()
def limit(model: Model, prompts: list[list[int]]) -> dict[str, float]:
    """Seconds for the linear products and for attention's products of the batched run's steps."""
    config = model.lm.config
    heads, width, layers = config.num_key_value_heads, config.head_dim, config.num_hidden_layers
    group = config.num_attention_heads // heads
    head = model.lm.get_output_embeddings().weight  # type: ignore[union-attr]
    linears = [m for m in model.lm.modules() if isinstance(m, nn.Linear) and m.weight is not head]
    last_linear = next(m for m in model.lm.modules() if isinstance(m, nn.Linear) and m.weight is head)
    longest, rows = max(map(len, prompts)), len(prompts) * K

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=model.lm.dtype)

    inputs = {size: random(len(prompts) * longest, size) for size in {m.in_features for m in [*linears, last_linear]}}
    prefix = [
        (random(len(prompts), heads, longest, width), random(len(prompts), heads, longest, width))
        for _ in range(layers)
    ]
    suffix = [(random(rows, heads, 64, width), random(rows, heads, 64, width)) for _ in range(layers)]
    whole = random(len(prompts), heads * group, longest, width)
    of_question, of_row = random(len(prompts), heads, K * group, width), random(rows, heads, group, width)

    def products(count: int, last: int) -> None:
        for module in linears:
            module(inputs[module.in_features][:count])
        last_linear(inputs[last_linear.in_features][:last])

    began = time.perf_counter()
    with packed(model.lm):
        products(len(prompts) * longest, len(prompts))
        for _ in range(1, NEW_TOKENS):
            products(rows, rows)
    linear = time.perf_counter() - began
    for prompt_keys, prompt_values in prefix:
        nn.functional.scaled_dot_product_attention(whole, prompt_keys, prompt_values, is_causal=True, enable_gqa=True)
    for step in range(1, NEW_TOKENS):
        for (prompt_keys, prompt_values), (keys, values) in zip(prefix, suffix, strict=True):
            nn.functional.scaled_dot_product_attention(of_question, prompt_keys, prompt_values)
            nn.functional.scaled_dot_product_attention(of_row, keys[:, :, :step], values[:, :, :step])
    return {"linear": linear, "attention": time.perf_counter() - began - linear}


def timed(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    tokens = work()
    return tokens / (time.perf_counter() - began)


def speed(arguments: argparse.Namespace) -> dict[str, object]:
    model = elicit.load_model("smollm2-135m", dtype=arguments.dtype, device="cpu")
    texts = questions(arguments.questions)
    prompts = [list(model.tokenizer(f"Q: {t}\nA:")["input_ids"]) for t in texts]
    other = replace(model, engine=arguments.engine)
    ours(model, prompts[:2], 2)
    through(other, prompts[:2])
    rounds = []
    total = len(prompts) * K * NEW_TOKENS
    for _ in range(arguments.rounds):
        before = limit(model, prompts)
        batched = timed(lambda: ours(model, prompts, len(prompts)))
        engine = timed(lambda: through(other, prompts))
        after = limit(model, prompts)
        with patch.dict(PACKING, clear=True):
            unpacked = timed(lambda: ours(model, prompts, len(prompts)))
        single = timed(lambda: ours(model, prompts, 1))
        floor = {part: min(before[part], after[part]) for part in before}
        rounds.append(
            {
                "batched": batched,
                "one question": single,
                "batched, weights not packed": unpacked,
                f"batched, engine {other.engine}": engine,
                "limit": total / sum(floor.values()),
                "limit, linear layers alone": total / floor["linear"],
            }
        )
    result: dict[str, object] = {
        "model": model.describe(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "questions": len(prompts),
        "prompt tokens": [min(map(len, prompts)), max(map(len, prompts))],
        "rounds": rounds,
    }
    middle = {k: statistics.median(r[k] for r in rounds) for k in rounds[0]}
    result["tokens/s"] = {k: round(v, 1) for k, v in middle.items()}
    result["batched / one question"] = round(statistics.median(r["batched"] / r["one question"] for r in rounds), 2)
    packing = statistics.median(r["batched"] / r["batched, weights not packed"] for r in rounds)
    result["batched / weights not packed"] = round(packing, 2)
    by_engine = statistics.median(r[f"batched, engine {other.engine}"] / r["batched"] for r in rounds)
    result[f"engine {other.engine} / batched"] = round(by_engine, 2)
    result["notes"] = engine_of(other).notes
    result["batched / limit"] = round(statistics.median(r["batched"] / r["limit"] for r in rounds), 3)
    module = None if arguments.no_peer else load_peer()
    if module is not None:
        model.lm.generation_config.pad_token_id = model.tokenizer.pad_token_id
        rate = timed(lambda: peer(module, model, texts[: arguments.peer_questions or None]))
        result["tokens/s"][f"{PEER} {importlib.metadata.version(PEER)}"] = round(rate, 1)  # type: ignore[index]
        result["batched / peer"] = round(middle["batched"] / rate, 1)
    return result


def profiled(dtype: str, count: int) -> dict[str, object]:
    """Each operation's share of the processor's time of all steps, with one thread."""
    torch.set_num_threads(1)
    model = elicit.load_model("smollm2-135m", dtype=dtype, device="cpu")
    prompts = [list(model.tokenizer(f"Q: {t}\nA:")["input_ids"]) for t in questions(count)]

    def work() -> None:
        policy = Branching(K, PROFILED).policy([str(i) for i in range(count)], model.vocab_size)
        decode(model.lm, prompts, policy, max_new_tokens=PROFILED, stop=StopRule(frozenset()))

    work()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: round(event.self_cpu_time_total / whole, 4) for event in events[:24]}
    return {"model": model.describe(), "questions": count, "seconds": round(whole / 1e6, 2), "shares": shares}


def memory() -> dict[str, object]:
    """Peak resident memory of this whole process, model and libraries included."""
    import resource

    model = elicit.load_model("smollm2-135m", dtype="bfloat16", device="cpu")
    prompts = [list(model.tokenizer(f"Q: {t}\nA:")["input_ids"]) for t in questions(16)]
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy = Branching(K, 256).policy([""] * 16, model.vocab_size)
    out = decode(model.lm, prompts, policy, max_new_tokens=256, stop=StopRule(frozenset()))
    assert all(len(branch.tokens) == 256 for branches in out for branch in branches)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    everything = 16 * K * 256 * model.vocab_size * 4
    return {
        "peak GiB": round(peak / 2**20, 2),
        "of it before decoding GiB": round(loaded / 2**20, 2),
        "logits would take GiB": round(everything / 2**30, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-questions", type=int, default=0, help="let the peer answer only so many (0: all)")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--engine", default="hf", help="decodes all questions together as well")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if arguments.profile:
        result = profiled(arguments.dtype, arguments.questions)
    else:
        result = memory() if arguments.memory else speed(arguments)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
