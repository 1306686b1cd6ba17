"""What statistics and the report of a run cost: time and peak memory at 10⁴, 10⁵ and 10⁶ samples.

    python -m experiments.benchmarks.report                      # all three
    python -m experiments.benchmarks.report --samples 10000

A run of realistic shape is written first: of each question ten branches and two baselines of one answer, 40 to 160
tokens each with all of their statistics. Then, in a process of its own, it is read from Parquet, all metrics are
computed, and the page is made: what `evaluate` does when the last token is decoded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from elicit.decoding import Branching, Decoder, Greedy
from elicit.evaluation import Run
from elicit.evaluation.metrics.run_metrics import compute
from elicit.evaluation.run import Store
from elicit.evaluation.run.store import PARQUET, table_schema
from elicit.evaluation.run.table import outcomes
from elicit.report import render
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.grading import NumberGrader

BRANCHES, SHORTEST, LONGEST = 10, 40, 160
WORD = "word "
ARMS: dict[str, Decoder] = {"cot-decoding": Branching(BRANCHES), "direct": Greedy(), "cot-prompt": Greedy()}
QUESTIONS_AT_ONCE = 2_000


@dataclass(frozen=True)
class Chosen:
    """What metrics ask of a handle: how it decodes and how it selects."""

    decoder: Decoder
    select: str


def write(folder: Path, samples: int) -> None:
    """A run of so many samples, without its journal."""
    questions = samples // (BRANCHES + len(ARMS) - 1)
    task = Task("sums", _items(questions), NumberGrader(), "number", {"family": "benchmark"})
    model = {"name": "none", "sha256": "0" * 64, "dtype": "bfloat16"}
    identity = {"method": "cot-decoding", "model": model["sha256"], "dtype": "bfloat16", "task": "sums", "items": "0",
                "arms": list(ARMS), "seed": 0}  # fmt: skip
    arms = {name: {"source": name, "method": name} for name in ARMS}
    store = Store.open(folder, {"identity": identity, "arms": arms, "task": task.source})
    store.write_items(Items(task, task.items))
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(folder / PARQUET, table_schema()) as writer:
        for name, decoder in ARMS.items():
            for start in range(0, questions, QUESTIONS_AT_ONCE):
                some = task.items[start : start + QUESTIONS_AT_ONCE]
                writer.write_table(_table(name, some, decoder.branches, rng))


def _items(count: int) -> tuple[Item, ...]:
    return tuple(Item(f"sums-{n:07d}", f"What is {n} + {n % 97}?", str(n + n % 97), "test") for n in range(count))


def _table(source: str, items: tuple[Item, ...], branches: int, rng: np.random.Generator) -> pa.Table:
    """Some questions' answers: a third of the branches are right, the surer the likelier."""
    rows = len(items) * branches
    lengths = rng.integers(SHORTEST, LONGEST, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = int(offsets[-1])
    place = np.arange(tokens) - np.repeat(offsets[:-1], lengths)
    top1 = np.round(rng.beta(5, 1, tokens), 6)
    delta = np.round(rng.beta(2, 1, rows), 6)
    right = rng.random(rows) < 0.6 * delta
    gold = np.repeat([item.answer for item in items], branches)
    answers = np.where(right, gold, rng.integers(0, 40, rows).astype(str))

    def column(values: np.ndarray) -> pa.ListArray:
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))

    whole = {
        "source": [source] * rows,
        "item": np.repeat([item.id for item in items], branches),
        "index": np.tile(np.arange(branches), len(items)),
        "prompt_tokens": np.full(rows, 20),
        "tokens": column(rng.integers(0, 49_152, tokens)),
        "ends": column((place + 1) * len(WORD)),
        "text": [WORD * int(length) for length in lengths],
        "top1": column(top1),
        "top2": column(np.round((1 - top1) * rng.random(tokens), 6)),
        "entropy": column(np.round(rng.gamma(1.0, 0.5, tokens), 6)),
        "logprob": column(np.round(np.log(np.maximum(top1, 1e-4)), 6)),
        "finish": ["eos"] * rows,
        "spent": lengths + 1,
        "answer": answers,
        "span": pa.ListArray.from_arrays(
            pa.array(np.arange(rows + 1, dtype=np.int32) * 2),
            pa.array(np.stack([lengths - 1, lengths], axis=1).ravel()),
        ),
        "delta": delta,
        "dropped": [""] * rows,
        "unjudged": [""] * rows,
        "found_by": ["last value"] * rows,
        "score": (answers == gold).astype(float),
        "prompt_moved": np.zeros(rows, dtype=int),
    }
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, dtype=np.int32)), pa.array([], pa.int64()))
    schema = table_schema()
    return pa.table([pa.array(whole[f.name]).cast(f.type) if f.name in whole else empty.cast(f.type) for f in schema],
                    schema=schema)  # fmt: skip


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of each part, and the peak of this process."""
    store = Store.read(folder)
    items = store.items()
    began, used = time.perf_counter(), time.process_time()
    found = outcomes(folder / PARQUET)
    read = time.perf_counter()
    arms = {name: (name, Chosen(one, "max" if one.branches > 1 else "greedy")) for name, one in ARMS.items()}
    model = {"name": "none", "sha256": "0" * 64, "dtype": "bfloat16"}
    extra = {"model": model, "seed": 0, "seconds": dict.fromkeys(ARMS, 0.0), "options": {}}
    metrics = compute(arms, found, items, extra=extra)
    counted = time.perf_counter()
    page = render(Run(store, metrics, found))
    done = time.perf_counter()
    return {
        "samples": sum(len(some) for by_item in found.values() for some in by_item.values()),
        "read_s": round(read - began, 2),
        "statistics_s": round(counted - read, 2),
        "page_s": round(done - counted, 2),
        "all_s": round(done - began, 2),
        "processor_s": round(time.process_time() - used, 2),  # less or more than all: other processes, or threads
        "page_mib": round(len(page) / 2**20, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help="a run that is written already")
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(given.measure)))
        return
    for samples in given.samples:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "run", samples)
            again = [sys.executable, "-m", "experiments.benchmarks.report", "--measure", str(Path(folder) / "run")]
            print(subprocess.run(again, check=True, capture_output=True, text=True).stdout, end="", flush=True)


if __name__ == "__main__":
    main()
