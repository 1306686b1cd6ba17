"""One saved bundle of sae-steer says the same 64 texts by `evaluate`, the endpoint, vLLM, Inspect and lm-eval.

`make test-everywhere` runs it, after the environments of the other programs were made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import elicit
from tests.everywhere.texts import COUNT, WAYS

ROOT = Path(__file__).parents[2]
PYTHONS = {way: f".venv-{way}/bin/python" for way in ("vllm", "inspect", "lm-eval")}


def test_a_bundle_says_the_same_everywhere(tmp_path: Path) -> None:
    model = elicit.load_model("smollm2-135m-latent", dtype="float32", device="cpu")
    task = elicit.load_task("organism", limit=8)
    handle = elicit.methods.fit(
        "sae-steer",
        model,
        task.solved,
        feature=1338,
        strengths="0.3",
        unit="resid",
        checked=False,
        dev=2,
        read=4,
        max_new_tokens=16,
    )
    assert handle.interventions
    handle.save(tmp_path / "bundle")
    texts = {}
    for way in WAYS:
        place = tmp_path / way
        place.mkdir()
        command = [str(ROOT / PYTHONS[way]) if way in PYTHONS else sys.executable, "-m", "tests.everywhere.texts"]
        done = subprocess.run(
            [*command, way, str(tmp_path / "bundle"), str(place / "texts.json")],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, way
        texts[way] = json.loads((place / "texts.json").read_text())
        assert len(texts[way]) == COUNT
        assert texts[way] == texts["evaluate"], way
    assert len(set(texts["evaluate"])) > COUNT // 4
