"""What the processor can do, asked by name.

torch tells what is built into the processor, oneDNN what it may use of it: `ONEDNN_MAX_CPU_ISA=AVX2` and
`ATEN_CPU_CAPABILITY=avx2` make any x86 machine one that has AVX2 alone, and what follows from that is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch


def has(capability: str) -> bool:
    """Whether the processor has a capability that this process may use.

    Args:
        capability: `avx2`; `bf16-packing` (oneDNN keeps bfloat16 weights in its own layout: AVX512, AVX-NE-CONVERT);
            `fp32-packing` (oneDNN keeps float32 weights likewise: AVX2);
            `bf16-products` (bfloat16 is multiplied natively, faster than float32: AVX512-BF16, AMX);
            `int8-products` (oneDNN multiplies 8-bit weights in its own layout); `int8-sums` (it adds them in 32 bits,
            where none is too large: VNNI, AMX).

    Raises:
        KeyError: an unknown capability.
    """
    return CAPABILITIES[capability]()


def _bf16_packing() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _fp32_packing() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.cpu._is_avx2_supported()
    )


def _bf16_products() -> bool:
    # torch's answer alone is that of the processor itself, whatever oneDNN is held to.
    return torch.cpu._is_avx512_bf16_supported() and _bf16_packing()


def _int8_products() -> bool:
    # Without AVX2 oneDNN has these as well, slower than float32.
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.onednn, "qlinear_prepack")
        and torch.cpu._is_avx2_supported()
    )


@cache
def _int8_sums() -> bool:
    """Tried, since no name says what oneDNN may use: the largest sums, which 16 bits do not hold."""
    if not _int8_products():
        return False
    weight = torch.full((64, 64), 127, dtype=torch.int8)
    given = torch.full((32, 64), 255, dtype=torch.uint8)
    scale, zero = torch.ones(64), torch.zeros(64, dtype=torch.int32)
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    out = torch.ops.onednn.qlinear_pointwise(
        given, 1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return bool((out == 64 * 127 * 255).all())


CAPABILITIES: dict[str, Callable[[], bool]] = {
    "avx2": torch.cpu._is_avx2_supported,
    "bf16-packing": _bf16_packing,
    "bf16-products": _bf16_products,
    "fp32-packing": _fp32_packing,
    "int8-products": _int8_products,
    "int8-sums": _int8_sums,
}
