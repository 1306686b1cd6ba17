"""What a decoding step costs by the number of its rows: the bound on what refilling rows can win on a processor.

    python -m experiments.benchmarks.steps                      # SmolLM2-135M, one thread
    python -m experiments.benchmarks.steps --dtype bfloat16 --rows 1,4,16,64

A batch of answers of unequal length loses what its last, few rows cost more a row than many. Each row's steps cost
`seconds of a step / its rows`; were these equal for all numbers of rows, nothing could be won by refilling. Seconds are
the processor's, the median of some rounds in which the numbers of rows take turns.

From the steps follows what `experiments.benchmarks.refill` can win with its limits: in batches, whose dead rows are
dropped when they are an eighth, and with rows that are refilled while questions wait. Batches of more rows lose less,
so that what counts at the end is either way at its best number of rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

import elicit
from elicit.decoding import Greedy, StopRule, decode
from elicit.decoding.loop import DEAD_SHARE
from elicit.models import Model
from experiments.benchmarks.refill import drawn

PROMPT, STEPS = 8, 5


def step_of(model: Model, rows: int) -> float:
    """The median processor seconds of a step of so many rows."""
    marks: list[float] = []
    decode(
        model.lm, [[100 + row] * PROMPT for row in range(rows)], Greedy(STEPS).policy([""] * rows, model.choices),
        max_new_tokens=STEPS, stop=StopRule(frozenset()), on_step=lambda step, left: marks.append(time.process_time()),
    )  # fmt: skip
    return statistics.median(after - before for before, after in pairwise(marks))


def bound(cost: dict[int, float], questions: int, rows: int, most: int) -> dict[str, float]:
    """Seconds of all steps, each interpolated between those that were measured; the attention's growth is left out."""

    def seconds(count: int) -> float:
        return float(np.interp(count, list(cost), list(cost.values())))

    limits, batches, refilled = drawn(questions, most), 0.0, 0.0
    for start in range(0, questions, rows):
        some = np.array(limits[start : start + rows])
        computed = len(some)
        for step in range(1, int(some.max())):
            left = int((some > step).sum())
            computed = left if left <= (1 - DEAD_SHARE) * computed else computed
            batches += seconds(computed)
    waiting, open_rows = list(limits), []
    while waiting or open_rows:
        while waiting and len(open_rows) < rows:
            open_rows.append(waiting.pop(0))
        refilled += seconds(len(open_rows))
        open_rows = [left - 1 for left in open_rows if left > 1]
    return {"batches": round(batches, 1), "refilled": round(refilled, 1), "ratio": round(batches / refilled, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="float32")
    parser.add_argument("--rows", default="1,2,4,8,16,32,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = elicit.load_model(given.model, dtype=given.dtype, device="cpu")
    rows = sorted({int(count) for count in given.rows.split(",")})  # between them costs are interpolated
    step_of(model, rows[0])
    found: dict[int, list[float]] = {count: [] for count in rows}
    for _ in range(given.rounds):
        for count in rows:
            found[count].append(step_of(model, count))
    middle = {count: statistics.median(seconds) for count, seconds in found.items()}
    least = min(seconds / count for count, seconds in middle.items())
    table = {
        f"{count} rows": {
            "ms a step": round(1e3 * seconds, 2),
            "ms a row": round(1e3 * seconds / count, 2),
            "tokens/s": round(count / seconds, 1),
            "times the least": round(seconds / count / least, 2),
        }
        for count, seconds in middle.items()
    }
    machine = f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}"
    bounds: dict[str, Any] = {f"{count} rows": bound(middle, 128, count, 1500) for count in rows}
    ways = {way: min(some[way] for some in bounds.values()) for way in ("batches", "refilled")}
    bounds["each at its best"] = ways | {"ratio": round(ways["batches"] / ways["refilled"], 2)}
    result = {"machine": machine, "model": model.describe(), "steps": table, "128 questions to 1,500 tokens": bounds}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
