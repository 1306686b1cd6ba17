"""Seconds of an evaluation by Inspect, beside the suite's own `evaluate` and beside Inspect's `hf` provider.

    make test-inspect                                                  # makes the environment
    .venv-inspect/bin/python -m experiments.benchmarks.inspect_ai      # 64 questions × 128 tokens
    .venv-inspect/bin/python -m experiments.benchmarks.inspect_ai --tokens 16

`direct`, greedy, fp32, 64 connections. Weights are random in the shape of SmolLM2-135M, so that no answer ends before
its limit and all sides decode as many tokens, which is checked. A round takes each side once, each in a process of its
own, in a turning order; medians of the rounds. Before the clock starts the model is loaded and one question answered:
Inspect imports its providers, which takes some eight seconds, and what is kept of a model is kept (`once`).
`processor` is the process's own time, which others on the machine disturb less, and in which waiting costs nothing.

- `evaluate`: the suite's own, with its journal and metrics, no page.
- `elicit`: this provider, the same questions; its texts are those of `evaluate`, which is checked.
- `products`: what none of them avoids: the products of the linear layers alone, with packed weights, each prompt
  without padding, and the output head at chosen places alone.
- `hf`: Inspect's own provider, `do_sample=false`, the same prompts; it puts `user: ` before each, so that texts differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["INSPECT_DISPLAY"] = "none"
os.environ["HF_HUB_OFFLINE"] = "1"  # else `hf` asks the hub about its model at every evaluation

import torch
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from torch import nn
from transformers import AutoModelForCausalLM

import elicit
from elicit.decoding.packed_weights import packed
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.tasks.base import Items

CONNECTIONS = 64
SIDES = ("evaluate", "elicit", "hf", "products")


def saved(folder: Path) -> Path:
    """A folder with random weights in the shape of SmolLM2-135M, and its tokenizer."""
    model = elicit.load_model("smollm2-135m", dtype="float32", device="cpu")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(model.lm.config).float().save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def asked(items: Items, words: Callable[[str], str]) -> Task:
    samples = [Sample(id=item.id, input=words(item.question), target=item.answer or "") for item in items]
    return Task(dataset=MemoryDataset(samples), solver=generate(), scorer=includes())


@torch.inference_mode()
def products(lm: nn.Module, head: nn.Module, prompts: list[int], tokens: int) -> None:
    """The products of the linear layers alone.

    Args:
        lm, head: the model and its output head.
        prompts: tokens of each.
        tokens: of each answer.
    """
    linears = [module for module in lm.modules() if isinstance(module, nn.Linear) and module is not head]
    sizes = [sum(prompts), *[len(prompts)] * (tokens - 1)]
    inputs = {module.in_features: torch.randn(sizes[0], module.in_features) for module in linears}
    last = torch.randn(len(prompts), head.in_features)  # type: ignore[arg-type]
    with packed(lm):
        for rows in sizes:
            for module in linears:
                module(inputs[module.in_features][:rows])
            head(last)


def timed(side: str, folder: Path, questions: int, tokens: int) -> dict[str, Any]:
    """One side, once, in this process, which does nothing else: seconds, processor seconds, texts by id."""
    items = elicit.load_task("organism", limit=questions).test
    with tempfile.TemporaryDirectory() as place:

        def by_inspect(model: Any, words: Callable[[str], str], items: Items) -> dict[str, str]:
            (log,) = inspect_eval(
                asked(items, words), model, log_dir=f"{place}/logs", max_connections=CONNECTIONS,
                max_samples=CONNECTIONS, max_tokens=tokens,
            )  # fmt: skip
            assert log.status == "success" and log.samples is not None, log.error
            assert all(sample.output.usage.output_tokens == tokens for sample in log.samples)  # type: ignore[union-attr]
            return {str(sample.id): sample.output.completion for sample in log.samples}

        def own(handle: Elicited, items: Items) -> dict[str, str]:
            traces = evaluate(handle, items, out=f"{place}/run", fresh=True).traces[handle.method]
            assert all(trace.spent == tokens for (trace,) in traces.values())
            return {name: trace.text for name, (trace,) in traces.items()}

        def alone(handle: Elicited, items: Items) -> dict[str, str]:
            lm = handle.model.lm
            products(lm, lm.get_output_embeddings(), [len(handle.prompt_ids(item)) for item in items], tokens)
            return {}

        work: Callable[[Items], dict[str, str]]
        if side == "elicit":
            ours = get_model(f"elicit/direct:{folder}", dtype="float32", device="cpu", max_new_tokens=tokens)
            work = partial(by_inspect, ours, str)
        else:
            model = elicit.load_model(str(folder), dtype="float32", device="cpu")
            handle = elicit.methods.fit("direct", model, max_new_tokens=tokens)
            work = partial(own if side == "evaluate" else alone, handle)
        if side == "hf":
            theirs = get_model(
                "hf/local", model_path=str(folder), device="cpu", do_sample=False, use_chat_template=False,
                dtype="float32",
            )  # fmt: skip
            work = partial(by_inspect, theirs, handle.prompt.text)
        began = time.perf_counter()
        work(items[:1])
        once = time.perf_counter() - began
        began, busy = time.perf_counter(), time.process_time()
        texts = work(items)
        seconds, processor = time.perf_counter() - began, time.process_time() - busy
    threads = torch.get_num_threads()
    return {"once": once, "seconds": seconds, "processor": processor, "texts": texts, "threads": threads}


def measure(questions: int, tokens: int, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as place:
        folder = saved(Path(place) / "model")
        for number in range(rounds):
            for name in SIDES[number % len(SIDES) :] + SIDES[: number % len(SIDES)]:
                given = [name, str(folder), str(questions), str(tokens)]
                done = subprocess.run(
                    [sys.executable, "-m", "experiments.benchmarks.inspect_ai", "--side", *given],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                one = json.loads(done.stdout.splitlines()[-1])
                found[name].append(one)
                print(number, name, f"{one['seconds']:.2f} s, processor {one['processor']:.2f} s", flush=True)
    assert all(a["texts"] == b["texts"] for a, b in zip(found["elicit"], found["evaluate"], strict=True))

    def ratio(one: str, other: str, of: str = "seconds") -> list[float]:
        """Of the median, least and most of the rounds."""
        some = [a[of] / b[of] for a, b in zip(found[one], found[other], strict=True)]
        return [round(value, 2) for value in (statistics.median(some), min(some), max(some))]

    def median(of: str) -> dict[str, float]:
        return {name: round(statistics.median(one[of] for one in some), 2) for name, some in found.items()}

    return {
        "questions": questions,
        "tokens": tokens,
        "threads": found["elicit"][0]["threads"],
        "once": median("once"),
        "seconds": median("seconds"),
        "processor": median("processor"),
        "elicit's rate / evaluate's": ratio("evaluate", "elicit"),
        "elicit's rate / hf's": ratio("hf", "elicit"),
        "elicit's rate / hf's, processor": ratio("hf", "elicit", "processor"),
        "the most that rate could be": ratio("hf", "products"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=4, metavar=("SIDE", "FOLDER", "QUESTIONS", "TOKENS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side, folder, questions, tokens = given.side
        print(json.dumps(timed(side, Path(folder), int(questions), int(tokens))))
        return
    print(json.dumps(measure(given.questions, given.tokens, given.rounds), indent=2))


if __name__ == "__main__":
    main()
