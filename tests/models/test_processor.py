"""What the processor can do, and what follows from it: as it is, and held to AVX2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from elicit.models import load_model
from elicit.models.processor import has

HELD = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
ASKED = """
import json, torch
from elicit.decoding.packed_weights import packed
from elicit.models.processor import CAPABILITIES, has
from tests.support.avx2_alone import avx2_alone

def left(model):
    with packed(model):
        return "forward" not in vars(model[0])


as_it_is = [left(torch.nn.Sequential(torch.nn.Linear(512, 512)).to(kind)) for kind in (torch.bfloat16, torch.float32)]
can = {name: has(name) for name in CAPABILITIES}
found = {"torch": torch.backends.cpu.get_cpu_capability(), "alone": avx2_alone()}
print(json.dumps({**found, "has": can, "left as it is": as_it_is}))
"""


@pytest.mark.needs("avx2")
def test_held_to_avx2_it_is_a_processor_with_avx2_alone() -> None:
    """In a process of its own: torch and oneDNN read what they are held to once."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=True, env={**os.environ, **HELD},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert json.loads(done.stdout) == {
        "torch": "AVX2", "alone": True, "left as it is": [True, False],
        "has": {
            "avx2": True, "bf16-packing": False, "bf16-products": False, "fp32-packing": True, "int8-products": True,
            "int8-sums": False,
        },
    }  # fmt: skip


@pytest.mark.processor
def test_auto_is_the_float_that_is_multiplied_natively(tiny_folder: Path) -> None:
    native = has("bf16-products")
    assert load_model(str(tiny_folder), device="cpu").lm.dtype == (torch.bfloat16 if native else torch.float32)
    assert not native or has("bf16-packing")


def test_a_capability_that_has_no_name_is_refused() -> None:
    with pytest.raises(KeyError):
        has("bf17")
