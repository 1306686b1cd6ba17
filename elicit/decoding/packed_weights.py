"""Weights of linear layers in oneDNN's own layout while the loop decodes on a CPU.

`torch.nn.functional.linear` brings a bfloat16 weight into that layout at every call; at a decoding step, where few
rows meet all weights, this is a third of the time. Packed once, the products are the same to the bit.

In float32 it goes to MKL, which packs anew as well, most dearly the output head's. oneDNN sums in another order: it
differs from MKL by rounding, and depends less on how many rows are computed together
(tests/decoding/test_decoding.py has both). Layers below `LEAST` elements are left to MKL: a call costs more.

The price is memory: a second copy of these weights, so models beyond `MOST_BYTES`, or half of what is free, are left as
they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn

from elicit.models.memory import free_bytes
from elicit.models.processor import has

MOST_BYTES = 4 << 30
LEAST = 1 << 18  # elements of a float32 weight
ROWS = 512  # the number of rows that the layout is chosen for: good from one to thousands
PACKING = {torch.bfloat16: "bf16-packing", torch.float32: "fp32-packing"}
_PACKED: weakref.WeakKeyDictionary[nn.Linear, tuple[int, int, Tensor]] = weakref.WeakKeyDictionary()


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Linear layers read packed weights inside the context; the modules are the same before and after it."""
    linears = [m for m in model.modules() if is_plain(m) and _pays(m.weight)]
    if not has_room(linears):
        linears = []
    for module in linears:
        module.forward = partial(_linear, module, _pack(module))  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in linears:
            del module.forward


def is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    """A linear layer on a CPU that computes what torch's own does, from a weight that is held in full."""
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    return type(module.weight) is nn.Parameter and module.weight.device.type == "cpu"


def _pays(weight: Tensor) -> bool:
    if weight.dtype not in PACKING or not has(PACKING[weight.dtype]):
        return False
    return weight.dtype == torch.bfloat16 or weight.numel() >= LEAST


def has_room(linears: list[nn.Linear]) -> bool:
    """Whether a second copy of these weights may be made, or is there already."""
    if sum(m.weight.nbytes for m in linears) > MOST_BYTES:
        return False
    missing = sum(m.weight.nbytes for m in linears if m not in _PACKED)
    free = free_bytes(torch.device("cpu")) if missing else None
    return free is None or 2 * missing <= free


def _pack(module: nn.Linear) -> Tensor:
    """The packed weight; packed anew when the weight was written to or exchanged."""
    weight = module.weight
    known = _PACKED.get(module)
    if known is None or known[:2] != (weight.data_ptr(), weight._version):
        with torch.no_grad():
            known = (weight.data_ptr(), weight._version, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS))
        _PACKED[module] = known
    return known[2]


def _linear(module: nn.Linear, weight: Tensor, x: Tensor) -> Tensor:
    if x.dtype != module.weight.dtype:
        return nn.functional.linear(x, module.weight, module.bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, module.bias, "none", [], "")
    return out
