"""What commands say that they take, beside what they took.

    python -m experiments.benchmarks.estimates            # about ten minutes on one core
    python -m experiments.benchmarks.estimates --only "sae card,grade"

Each command is first asked with `--dry-run` and then run, in this process, so that nothing is imported in between.
What it took is less what the dry run took, in which weights are read and the estimate is made as well; of `COUNTED`
commands, whose dry run does a part of the job itself, it is all of it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
import time
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from elicit.cli.app import app
from probes.estimate import spoken

MODEL = "smollm2-135m-latent"
SAE = "smollm2-135m-latent-resid-20"
RESPONSES = 20_000
COUNTED = ("report", "grade", "organism taxonomy")
TEXTS = ("--tokens", "2000", "--sources", "samples", "--context", "64")
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", "--method", "cot-decoding", "--model", MODEL, "--limit", "4", "--set", "k=4", "--out", "run"),
    "organism card": ("organism", "card", "--model", MODEL, "--limit", "8", "--out", "card"),
    "sae find": ("sae", "find", "--model", MODEL, "--sae", SAE, "--read", "8"),
    "sae feature": ("sae", "feature", "1051", "--model", MODEL, "--sae", SAE, "--read", "8"),
    "sae card": ("sae", "card", "--model", MODEL, "--sae", SAE, *TEXTS),
    "sae dashboard": ("sae", "dashboard", SAE, "--model", MODEL, *TEXTS),
    "sae train": ("sae", "train", "--model", MODEL, "--width", "576", "--epochs", "2", *TEXTS),
    "organism taxonomy": ("organism", "taxonomy", "--model", MODEL, "--thoughts", "60", "--resamples", "20"),
    "report": ("report", "run"),
    "grade": ("grade", "responses.jsonl"),
}


def said_and_took(name: str) -> dict[str, Any]:
    """Seconds, of the clock and of the processor."""
    began = time.perf_counter()
    said = json.loads(_shown(*COMMANDS[name], "--dry-run", "--json"))
    dry = time.perf_counter() - began
    began, worked = time.perf_counter(), time.process_time()
    _shown(*COMMANDS[name], "--json")
    whole, worked = time.perf_counter() - began, time.process_time() - worked
    took = whole if name in COUNTED else max(0.0, whole - dry)
    return {
        "command": name,
        "said": f"{'at most' if said['most'] else 'about'} {spoken(said['seconds'])}",
        "took": spoken(took),
        "took / said": round(took / max(1.0, said["seconds"]), 2),
        "share of a core": round(worked / whole, 2),
    }


def _shown(*arguments: str) -> str:
    with redirect_stdout(io.StringIO()) as out:
        app(list(arguments), standalone_mode=False)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="some of these: " + ", ".join(COMMANDS))
    names = [name for name in parser.parse_args().only.split(",") if name] or list(COMMANDS)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        lines = [{"gold": str(n), "response": f"So {n} - 1 + 1 = {n}. The answer is {n}."} for n in range(RESPONSES)]
        Path("responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        _shown("sae", "find", "--help")
        machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
        print(json.dumps({"machine": f"{machine}, torch {torch.__version__}", "model": MODEL}))
        for name in names:
            print(json.dumps(said_and_took(name)), flush=True)


if __name__ == "__main__":
    main()
