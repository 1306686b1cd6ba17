"""Whether this processor can do no more than AVX2, so that tests that are held to AVX2 ran like that already.

python -m tests.support.avx2_alone   # exit code 0, and a line that says so, where it cannot
"""

from __future__ import annotations

import sys

import torch

from elicit.models.processor import has

MORE = ("bf16-packing", "bf16-products", "int8-sums")  # AVX512, AVX-NE-CONVERT, VNNI with either width, AMX


def avx2_alone() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and not any(map(has, MORE))


if __name__ == "__main__":
    if not avx2_alone():
        sys.exit(1)
    print("This processor can do no more than AVX2: the tests run as they would held to AVX2, once.")
