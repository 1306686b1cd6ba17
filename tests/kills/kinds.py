"""What is killed: commands of every kind, on tiny random models, and what each leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.same_samples import CRITIQUES, RLVR, SEARCH, SHARED, TRANSFER, contents

SWEEP = """
[axes]
method = ["direct", "self-consistency"]
model = ["{model}"]
task = ["{task}"]
seed = [0, 1]
[run]
limit = 4
max_new_tokens = 24
against = "none"
dtype = "float32"
"""


@dataclass(frozen=True)
class Kind:
    """Commands of one kind.

    Args:
        name: in the table.
        command: that is killed and run again.
        first: a command that comes before it and is let through.
    """

    name: str
    command: Sequence[str]
    first: Sequence[str] = ()


def kinds(paths: Mapping[str, Path]) -> list[Kind]:
    """All of them, with these models, this SAE and this task."""

    def run(method: str, settings: str, against: str = "direct") -> list[str]:
        words = f"run --method {method} {SHARED} --against {against} --out run".split()
        return [word.format(**paths) for word in [*words, *(p for one in settings.split() for p in ("--set", one))]]

    plan = paths["model"].parent / "plan.toml"
    plan.write_text(SWEEP.format(**paths))
    shared = [word.format(**paths) for word in SHARED.split()]
    return [
        Kind("evaluation", run("cot-decoding", "k=4", "cot-prompt,direct@budget")),
        Kind("fit of a feature", run("sae-steer", SEARCH)),
        Kind("fit of vectors and gate", run("vector-transfer", f"{TRANSFER} coefficients=1,4")),
        Kind("SFT, own trainer", run("critique-ft", f"{CRITIQUES} source=symbolic")),
        Kind("RL, own trainer", run("one-shot-rlvr", RLVR)),
        Kind("SFT, TRL", run("critique-ft", f"{CRITIQUES} source=symbolic engine=trl")),
        Kind("RL, TRL", run("one-shot-rlvr", f"{RLVR} engine=trl advantage=dr-grpo entropy=0")),
        Kind(
            "sweep",
            ["sweep", "work", "sweep", "--launcher", "local", "--workers", "1", "--stale", "1"],
            ["sweep", "plan", str(plan), "--out", "sweep"],
        ),
        Kind("compare", ["compare", "--methods", "direct,cot-prompt,cot-decoding", *shared, "--out", "compared"]),
    ]


def left(folder: Path) -> dict[str, Any]:
    """Samples, metrics and tensors of all finished runs in a folder, and the tables over them."""
    runs = {str(file.parent.relative_to(folder)): contents(file.parent, []) for file in folder.rglob("metrics.json")}
    tables = {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob("comparison.json")}
    return runs | tables
