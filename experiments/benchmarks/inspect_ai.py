"""Seconds of an evaluation by Inspect, beside the suite's own `evaluate` and beside Inspect's `hf` provider.

    make test-inspect                                                  # makes the environment
    .venv-inspect/bin/python -m experiments.benchmarks.inspect_ai      # 64 questions × 128 tokens
    .venv-inspect/bin/python -m experiments.benchmarks.inspect_ai --tokens 16

`direct`, greedy, fp32, 64 connections. Weights are random in the shape of SmolLM2-135M, so that no answer ends before
its limit and all sides decode as many tokens, which is checked. Models are loaded before the clock starts; a round
takes each side once, in a turning order; medians of the rounds. `processor` is the process's own time, which others on
the machine disturb less, and in which waiting costs nothing.

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
import tempfile
import time
from collections.abc import Callable
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
from elicit.evaluation.evaluator import evaluate
from elicit.tasks.base import Items

CONNECTIONS = 64


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


def measure(questions: int, tokens: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = saved(Path(place) / "model")
        items = elicit.load_task("organism", limit=questions).test
        ours = get_model(f"elicit/direct:{folder}", dtype="float32", device="cpu", max_new_tokens=tokens)
        theirs = get_model(
            "hf/local", model_path=str(folder), device="cpu", do_sample=False, use_chat_template=False, dtype="float32"
        )
        handle = ours.api.asked.handle  # type: ignore[attr-defined]
        prompt, lm = handle.prompt, handle.model.lm
        lengths = [len(handle.prompt_ids(item)) for item in items]

        def by_inspect(model: Any, words: Callable[[str], str]) -> dict[str, str]:
            (log,) = inspect_eval(
                asked(items, words), model, log_dir=f"{place}/logs", max_connections=CONNECTIONS,
                max_samples=CONNECTIONS, max_tokens=tokens,
            )  # fmt: skip
            assert log.status == "success" and log.samples is not None, log.error
            assert all(sample.output.usage.output_tokens == tokens for sample in log.samples)  # type: ignore[union-attr]
            return {str(sample.id): sample.output.completion for sample in log.samples}

        def own() -> dict[str, str]:
            run = evaluate(handle, items, out=f"{place}/run", fresh=True)
            traces = run.traces[handle.method]
            assert all(trace.spent == tokens for (trace,) in traces.values())
            return {name: trace.text for name, (trace,) in traces.items()}

        def alone() -> dict[str, str]:
            products(lm, lm.get_output_embeddings(), lengths, tokens)
            return {}

        sides: dict[str, Callable[[], dict[str, str]]] = {
            "evaluate": own,
            "elicit": lambda: by_inspect(ours, str),
            "hf": lambda: by_inspect(theirs, prompt.text),
            "products": alone,
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        processor: dict[str, list[float]] = {name: [] for name in sides}
        said: dict[str, dict[str, str]] = {}
        for number in range(rounds):
            names = list(sides)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                began, busy = time.perf_counter(), time.process_time()
                said[name] = sides[name]()
                seconds[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - busy)
                print(number, name, f"{seconds[name][-1]:.2f} s, processor {processor[name][-1]:.2f} s", flush=True)
    assert said["elicit"] == said["evaluate"]

    def ratio(one: str, other: str, of: dict[str, list[float]] = seconds) -> list[float]:
        """Of the median, least and most of the rounds."""
        found = [a / b for a, b in zip(of[one], of[other], strict=True)]
        return [round(value, 2) for value in (statistics.median(found), min(found), max(found))]

    return {
        "questions": questions,
        "tokens": tokens,
        "threads": torch.get_num_threads(),
        "seconds": {name: round(statistics.median(some), 2) for name, some in seconds.items()},
        "processor": {name: round(statistics.median(some), 2) for name, some in processor.items()},
        "elicit's rate / evaluate's": ratio("evaluate", "elicit"),
        "elicit's rate / hf's": ratio("hf", "elicit"),
        "elicit's rate / hf's, processor": ratio("hf", "elicit", processor),
        "the most that rate could be": ratio("hf", "products"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(measure(given.questions, given.tokens, given.rounds), indent=2))


if __name__ == "__main__":
    main()
