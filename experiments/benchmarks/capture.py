"""Tokens a second of capturing all layers at all positions to shards, beside a plain forward, in one run.

    python -m experiments.benchmarks.capture             # speed, about two minutes on two cores
    python -m experiments.benchmarks.capture --memory    # peak memory with the prompts, and with four times as many

Both contenders run the decoder without its output layer over the same batches; the plain one has no hooks. What is
captured is resid_post of every layer in the model's dtype, written as safetensors. The disk's own speed is measured
too, since no capture can stream faster than it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

import elicit
from experiments.benchmarks.decoding import questions
from probes.batching import BATCH_TOKENS, by_length, left_pad
from probes.capture import capture
from probes.sites import Site, decoder, depth


@torch.inference_mode()
def plain(lm: PreTrainedModel, texts: list[list[int]]) -> None:
    """The same batches through the same module, and nothing kept."""
    for batch in by_length(texts, BATCH_TOKENS):
        ids, mask, positions = left_pad([texts[i] for i in batch])
        decoder(lm)(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def disk(folder: Path, size: int = 256 << 20) -> float:
    """Bytes a second of writing one file."""
    data = os.urandom(1 << 20) * (size >> 20)
    seconds = timed(lambda: (folder / "probe").write_bytes(data))
    (folder / "probe").unlink()
    return size / seconds


def corpus(model: elicit.Model, count: int) -> list[list[int]]:
    texts = questions(min(count, 64))
    return [list(model.tokenizer(f"Q: {texts[i % len(texts)]}\nA:")["input_ids"]) for i in range(count)]


def speed(arguments: argparse.Namespace) -> dict[str, object]:
    model = elicit.load_model("smollm2-135m", dtype="bfloat16", device="cpu")
    texts = corpus(model, arguments.prompts)
    sites = [Site(layer) for layer in range(depth(model.lm))]
    tokens = sum(map(len, texts))
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        plain(model.lm, texts[:8])
        for number in range(arguments.rounds):
            before = timed(lambda: plain(model.lm, texts))
            folder = place / str(number)
            captured = timed(lambda: capture(model.lm, texts, sites, out=folder))  # noqa: B023  called at once
            after = timed(lambda: plain(model.lm, texts))
            held = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
            shutil.rmtree(folder)
            rounds.append({"plain": 2 * tokens / (before + after), "capture": tokens / captured})
        written = disk(place)
    return {
        "model": model.describe(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "prompts": len(texts),
        "tokens": tokens,
        "sites": len(sites),
        "MiB captured": round(held / 2**20, 1),
        "disk MiB/s": round(written / 2**20),
        "rounds": rounds,
        "tokens/s": {k: round(statistics.median(r[k] for r in rounds), 1) for k in rounds[0]},
        "capture / plain": round(statistics.median(r["capture"] / r["plain"] for r in rounds), 3),
    }


def peak(count: int) -> None:
    """In a process of its own: the peak resident memory of capturing so many prompts, model included."""
    model = elicit.load_model("smollm2-135m", dtype="bfloat16", device="cpu")
    texts = corpus(model, count)
    sites = [Site(layer) for layer in range(depth(model.lm))]
    with tempfile.TemporaryDirectory() as scratch:
        capture(model.lm, texts, sites, out=Path(scratch) / "acts")
        held = sum(f.stat().st_size for f in (Path(scratch) / "acts").glob("*.safetensors"))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"prompts": count, "peak GiB": round(used / 2**20, 2), "captured GiB": round(held / 2**30, 2)}))


def memory(arguments: argparse.Namespace) -> list[object]:
    out = []
    for count in (arguments.prompts, 4 * arguments.prompts):
        command = [sys.executable, "-m", "experiments.benchmarks.capture", "--peak", str(count)]
        out.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(arguments.peak)
        return
    print(json.dumps(memory(arguments) if arguments.memory else speed(arguments), indent=2))


if __name__ == "__main__":
    main()
