"""Two processes on CPUs (gloo): the command as `accelerate launch` starts it, against one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from elicit.elicited import Elicited
from elicit.models import load_model
from elicit.training import trl_common
from elicit.training.rl.log import read_log
from tests.support.ports import free_port

pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")

HERE = Path(__file__).parents[2]
COMMON = ["--limit", "4", "--max-new-tokens", "6", "--device", "cpu", "--dtype", "float32", "--json"]
RLVR = [
    "--method", "one-shot-rlvr", "--set", "engine=trl", "--set", "reward=exact+random:0.5", "--set", "updates=3",
    "--set", "rollouts=8", "--set", "group=4", "--set", "rollout_tokens=6", "--set", "rank=2", "--set", "pool=2",
    "--set", "advantage=dr-grpo", "--set", "entropy=0",
]  # fmt: skip
CRITIQUES = [
    "--method", "critique-ft", "--task", "organism", "--set", "engine=trl", "--set", "candidates=4", "--set", "steps=2",
    "--set", "rows=1", "--set", "width=700", "--set", "rank=2",
]  # fmt: skip


def run(model: Path, folder: Path, options: list[str], launch: str = "") -> str:
    """Run it in a folder, launched on two processes or alone; what the first one printed, or why there is nothing."""
    folder.mkdir()
    two = [
        "-m", "accelerate.commands.launch", launch, "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port()),
    ]  # fmt: skip
    found = subprocess.run(
        [sys.executable, *(two if launch else []), "-m", "elicit", "run", "--model", str(model), *options, *COMMON],
        capture_output=True, text=True, timeout=1500, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return found.stderr if found.returncode else found.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "kept"), [(RLVR, "rollouts.jsonl"), pytest.param(CRITIQUES, "rows.jsonl", marks=pytest.mark.slow)]
)
def test_two_processes_train_what_one_does(tiny_folder: Path, tmp_path: Path, options: list[str], kept: str) -> None:
    said = [run(tiny_folder, tmp_path / "1", options), run(tiny_folder, tmp_path / "2", options, "--multi_gpu")]
    runs = []
    for text in said:
        assert text.startswith("{"), text[-3000:]
        runs.append(json.loads(text))
    method = options[1]
    assert all(set(one["arms"]) == {method, "direct"} and one["items"] == 4 for one in runs)

    files = [next((tmp_path / str(n) / "runs").rglob(kept)) for n in (1, 2)]
    if method == "one-shot-rlvr":  # the samples of a process do not depend on how many there are
        logs = [list(read_log(file.parent)) for file in files]
        assert len(logs[0]) == len(logs[1]) == 24
        same = [a["tokens"] == b["tokens"] for a, b in zip(*logs, strict=True)]
        assert all(same[:8]) and sum(same) > 20
        assert [row["parts"]["random:0.5"] for row in logs[0]] == [row["parts"]["random:0.5"] for row in logs[1]]
    else:
        assert files[0].read_text() == files[1].read_text()
    weights = [
        load_file(next((tmp_path / str(n) / "runs").rglob("elicited/adapter/adapter_model.safetensors")))
        for n in (1, 2)
    ]
    moved = max(float(t.abs().max()) for name, t in weights[0].items() if "lora_B" in name)
    apart = [float(((weights[0][k] - weights[1][k]).abs() < 0.05 * moved).float().mean()) for k in weights[0]]
    assert moved > 1e-4 and min(apart) > 0.95

    handle = Elicited.load(tmp_path / "2" / runs[1]["run"] / "elicited", load_model(str(tiny_folder), device="cpu"))
    assert handle.adapter is not None and handle.method == method


def test_one_process_of_several_is_told_of(tiny_folder: Path, tmp_path: Path) -> None:
    said = run(tiny_folder, tmp_path / "cpu", RLVR, "--cpu")
    assert "elicit: accelerate launch --cpu started one process of several" in said
