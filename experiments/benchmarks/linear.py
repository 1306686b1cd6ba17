"""What an evaluation costs as its questions and its branches double: seconds of each answer, and the process's peak.

    python -m experiments.benchmarks.linear      # about a minute on one core

A Llama of random weights (two layers of width 64, SmolLM2's tokenizer) answers word problems by branching, in batches
of 32 rows, and the run is written, judged and summed up as any other. Seconds are the processor's. The peak is
that of the process up to there, so that a step upward is what this doubling needed beyond all before it; the weights
are made in a process of their own, since reading a tokenizer's model would be the peak of all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import elicit
from elicit.models import Model

DOUBLINGS = 4
FEWEST, BRANCHES, ROWS, NEW_TOKENS = 8, 4, 32, 16


def write_model(folder: Path, positions: int) -> None:
    """Random weights and a tokenizer."""
    tokenizer = elicit.load_model("smollm2-135m", device="cpu").tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=positions, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def random_model(folder: Path, positions: int = 2048) -> Model:
    """Written by another process, and read as a user's would be."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(write_model, (folder, positions))
    return elicit.load_model(str(folder), dtype="float32", device="cpu")


def evaluated(model: Model, questions: int, branches: int, out: Path) -> dict[str, Any]:
    """Seconds of all of it, and of an answer."""
    items = elicit.load_task("gsm-symbolic", limit=questions).test
    assert len(items) == questions
    handle = elicit.methods.cot_decoding.fit(model, k=branches, max_new_tokens=NEW_TOKENS)
    began = time.process_time()
    elicit.evaluate(handle, items, out=out, batch_rows=ROWS)
    seconds = time.process_time() - began
    return {
        "questions": questions,
        "branches": branches,
        "seconds": round(seconds, 2),
        "ms an answer": round(1e3 * seconds / (questions * branches), 1),
        "peak GiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print(
        json.dumps({"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"})
    )
    with tempfile.TemporaryDirectory() as place:
        model = random_model(Path(place) / "model")
        evaluated(model, FEWEST, BRANCHES, Path(place) / "first")  # what is done once
        sizes = [(FEWEST << n, BRANCHES) for n in range(DOUBLINGS + 1)]
        sizes += [(FEWEST, 1 << n) for n in range(DOUBLINGS + 1)]
        for questions, branches in dict.fromkeys(sizes):  # one that was measured would be read from its folder
            found = evaluated(model, questions, branches, Path(place) / f"{questions}-{branches}")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
