"""What the processor can do, asked by name.

torch tells what is built into the processor, oneDNN what it may use of it: `ONEDNN_MAX_CPU_ISA=AVX2` and
`ATEN_CPU_CAPABILITY=avx2` make any x86 machine one that has AVX2 alone, and what follows from that is decided here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def has(capability: str) -> bool:
    """Whether the processor has a capability that this process may use.

    Args:
        capability: `avx2`; `bf16-packing` (oneDNN keeps bfloat16 weights in its own layout: AVX512, AVX-NE-CONVERT);
            `fp32-packing` (oneDNN keeps float32 weights likewise: AVX2);
            `bf16-products` (bfloat16 is multiplied natively, faster than float32: AVX512-BF16, AMX).

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


CAPABILITIES: dict[str, Callable[[], bool]] = {
    "avx2": torch.cpu._is_avx2_supported,
    "bf16-packing": _bf16_packing,
    "bf16-products": _bf16_products,
    "fp32-packing": _fp32_packing,
}
