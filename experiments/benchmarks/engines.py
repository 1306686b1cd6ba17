"""Engines beside each other: tokens/s, accuracy and texts on the same questions, in one run.

    python -m experiments.benchmarks.engines --engines hf,graph --dtype float32 --questions 32
    PYTHONPATH=. .venv-vllm/bin/python -m experiments.benchmarks.engines --dtype bfloat16     # hf, graph and vllm

Each engine answers the same questions in the same rounds, which take turns, after two that warm it up. In fp32 texts
are equal. In 16 bits rounding differs from engine to engine, so that some texts part: what counts there is the accuracy
beside the reference's, paired by question, with a 95% interval by bootstrap. `agrees` says whether that holds 0.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float

import elicit
from elicit.decoding.engine import engine_of
from elicit.decoding.selection import select
from elicit.decoding.trace import Trace
from probes.statistics import bootstrap_mean, paired


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default="hf,graph,vllm")
    parser.add_argument("--model", default="smollm2-135m-latent")
    parser.add_argument("--task", default="")
    parser.add_argument("--method", default="cot-decoding")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    given = parser.parse_args()
    names = given.engines.split(",")
    model = elicit.load_model(given.model, dtype=given.dtype, device=given.device)
    items = elicit.load_task(given.task or "organism", limit=given.questions).test
    print(json.dumps({
        "model": given.model, "sha256": model.provenance.sha256, "method": given.method, "dtype": model.dtype,
        "questions": len(items), "device": str(model.lm.device), "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
    }))  # fmt: skip
    handles = {
        name: elicit.methods.fit(given.method, replace(model, engine=name), max_new_tokens=given.max_new_tokens)
        for name in names
    }
    for handle in handles.values():
        handle.answers(items[:2])
    said: dict[str, list[list[Trace]]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for places in np.array_split(np.arange(len(items)), given.rounds):
        for name, handle in handles.items():
            begun = time.perf_counter()
            found = handle.answers(items[int(places[0]) : int(places[-1]) + 1])
            took = time.perf_counter() - begun
            said[name] += found
            rates[name].append(sum(t.spent for some in found for t in some) / took)
    first = names[0]

    def scores(name: str) -> Float[np.ndarray, " questions"]:
        rule = handles[name].select
        return np.array([select(rule, traces, items.task.grader).score for traces in said[name]])

    for name, handle in handles.items():
        right, engine = scores(name), engine_of(handle.model)
        lead = paired(right, scores(first))
        pairs = zip(chain(*said[name]), chain(*said[first]), strict=True)
        texts = [mine.text == other.text for mine, other in pairs]
        beside = [mine / other for mine, other in zip(rates[name], rates[first], strict=True)]
        print(json.dumps({
            "engine": engine.name, "how": engine.how, "tokens_per_second": round(statistics.median(rates[name]), 1),
            f"beside_{first}": round(statistics.median(beside), 2), "accuracy": float(right.mean()),
            "interval": bootstrap_mean(right, bounds=(0.0, 1.0)).pair, "lead": lead.difference,
            "lead_interval": lead.interval.pair, "agrees": lead.interval.low <= 0 <= lead.interval.high,
            "texts_equal": round(sum(texts) / len(texts), 4),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
