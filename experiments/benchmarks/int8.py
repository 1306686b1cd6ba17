"""The int8 engine beside the reference loop on a CPU: tokens a second, departure, memory.

    python -m experiments.benchmarks.int8                                    # SmolLM2-135M, a few minutes
    python -m experiments.benchmarks.int8 --shape 1.5b --rows 1,8,32 --new 5  # random weights of Qwen2.5-1.5B's shape
    python -m experiments.benchmarks.int8 --products --threads 1             # single layers
    python -m experiments.benchmarks.int8 --shape 1.5b --memory int8         # peak of a process that decodes; also hf

Greedy decoding of so many rows at once, 64 prompt tokens each. Both sides take turns, and a figure is the median of all
steps of all turns. Random weights are stored in bfloat16, as published ones are, and read in `--dtype`. What memory a
process needs is what is its own (RssAnon): pages of a file that is mapped can be dropped, and are read again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import elicit
from elicit.decoding import Greedy, StopRule
from elicit.decoding.engine import Batch, decode_batch, engine_of
from elicit.decoding.engines.int8 import Int8Engine
from elicit.decoding.int8_weights import int8
from elicit.decoding.packed_weights import packed
from elicit.models import Model
from experiments.benchmarks.device_rows import SHAPES

PROMPT = 64
LAYERS = {
    "135M, 576 to 1536": (576, 1536),
    "135M, head, 576 to 49152": (576, 49152),
    "1.5B, 1536 to 8960": (1536, 8960),
}
SIDES = ("hf", "int8")


@contextmanager
def written(shape: str) -> Iterator[Path]:
    """A folder with random weights of a shape, in bfloat16, and SmolLM2's tokenizer."""
    arguments = dict(SHAPES[shape])
    config = CONFIG_MAPPING[arguments.pop("model_type")](**arguments, dtype="bfloat16")
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    tensors = {}
    for name, p in lm.named_parameters():
        flat = torch.ones(1, dtype=torch.bfloat16) if "norm" in name else block
        tensors[name] = flat.repeat(-(-p.numel() // len(flat)))[: p.numel()].reshape(p.shape)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / shape
        elicit.load_model("smollm2-135m", device="cpu").tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        del tensors
        yield folder


def decoded(model: Model, rows: int, new: int) -> list[float]:
    """Seconds of each step but the first, which comes with the prompts."""
    prompts = [[(31 * row + 7 * i) % 4000 + 10 for i in range(PROMPT)] for row in range(rows)]
    times: list[float] = []
    batch = Batch(prompts, [""] * rows, Greedy(new), StopRule(frozenset()))
    decode_batch(model, batch, lambda step, left: times.append(time.perf_counter()))
    times.append(time.perf_counter())
    return [later - earlier for earlier, later in pairwise(times)]


def speed(model: Model, rows: list[int], new: int, rounds: int) -> dict[str, Any]:
    models = {side: replace(model, engine=side) for side in SIDES}
    found: dict[str, Any] = {}
    for count in rows:
        steps: dict[str, list[float]] = {side: [] for side in SIDES}
        for number in range(rounds + 1):  # the first warms up
            for side, one in models.items():
                made = decoded(one, count, new)
                steps[side] += made if number else []
        middle = {side: statistics.median(some) for side, some in steps.items()}
        found[f"{count} rows"] = {
            **{f"{side}, tokens/s": round(count / middle[side], 1) for side in SIDES},
            "int8 / hf": round(middle["hf"] / middle["int8"], 2),
        }
    engine = engine_of(models["int8"])
    assert isinstance(engine, Int8Engine)
    return {"model": model.describe(), "tokens/s": found, "departure": vars(engine.departure)}


@torch.no_grad()
def products(rows: list[int], rounds: int) -> dict[str, Any]:
    """Milliseconds of a layer: in float32 and bfloat16 as the reference packs it, in eight bits with the rounding."""
    found: dict[str, Any] = {}
    for name, (d_in, d_out) in LAYERS.items():
        torch.manual_seed(0)
        layers = {kind: nn.Sequential(nn.Linear(d_in, d_out, bias=False)) for kind in ("float32", "bfloat16", "int8")}
        for layer in layers.values():
            layer.load_state_dict(layers["float32"].state_dict())
        layers["bfloat16"].bfloat16()
        with packed(layers["float32"]), packed(layers["bfloat16"]), int8(layers["int8"], {}):
            for count in rows:
                x = torch.randn(count, d_in)
                given = {kind: x.to(layer[0].weight.dtype) for kind, layer in layers.items()}
                times: dict[str, list[float]] = {kind: [] for kind in layers}
                for number in range(rounds + 2):
                    for kind, layer in layers.items():
                        began = time.perf_counter()
                        layer(given[kind])
                        times[kind] += [time.perf_counter() - began] if number > 1 else []
                middle = {kind: statistics.median(some) for kind, some in times.items()}
                found[f"{name}, {count} rows"] = {
                    **{f"{kind}, ms": round(1e3 * seconds, 3) for kind, seconds in middle.items()},
                    "int8 / float32": round(middle["float32"] / middle["int8"], 2),
                }
    return found


def memory(model: Model, side: str, rows: int, new: int) -> dict[str, Any]:
    """What the process has of its own after loading, and at most while it decodes."""
    loaded, most, done = own(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], own())

    watcher = threading.Thread(target=watch)
    watcher.start()
    decoded(replace(model, engine=side), rows, new)
    done.set()
    watcher.join()
    return {
        "model": model.describe(),
        "engine": side,
        "GiB after loading": loaded,
        "GiB at most": most[0],
        "after": own(),
    }


def own() -> float:
    """GiB of memory that is no file's."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return round(int(found[1]) / 2**20, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--shape", choices=["135m", "1.5b"], help="random weights of this shape instead")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="float32")
    parser.add_argument("--rows", default="1,8,32,80")
    parser.add_argument("--new", type=int, default=8, help="tokens of each row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--memory", choices=SIDES)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [int(count) for count in given.rows.split(",")]
    with written(given.shape) if given.shape and not given.products else tempfile.TemporaryDirectory() as place:
        if given.products:
            result: dict[str, Any] = {"products": products(rows, given.rounds)}
        else:
            name = str(place) if given.shape else given.model
            model = elicit.load_model(name, dtype=given.dtype, device="cpu")
            result = (
                memory(model, given.memory, rows[0], given.new)
                if given.memory
                else speed(model, rows, given.new, given.rounds)
            )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(json.dumps({"machine": machine, **result}, indent=1))


if __name__ == "__main__":
    main()
