"""Weights of linear layers in oneDNN's own layout while the loop decodes on a CPU in bfloat16.

`torch.nn.functional.linear` brings a weight into that layout at every call; at a decoding step, where few rows meet
all weights, this is a third of the time. Packed once, the products are the same to the bit
(tests/decoding/test_decoding.py).
The price is memory: a second copy of these weights, so models beyond `MOST_BYTES` are left as they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from elicit.models.processor import has

MOST_BYTES = 4 << 30
ROWS = 512  # the number of rows that the layout is chosen for: good from one to thousands
_PACKED: weakref.WeakKeyDictionary[nn.Linear, tuple[int, int, Tensor]] = weakref.WeakKeyDictionary()


@contextmanager
def packed(model: nn.Module) -> Iterator[None]:
    """Linear layers read packed weights inside the context; the modules are the same before and after it."""
    linears = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
    linears = [m for m in linears if type(m.weight) is nn.Parameter]  # not one that a quantised weight stands behind
    linears = [m for m in linears if m.weight.device.type == "cpu" and m.weight.dtype == torch.bfloat16]
    if not has("bf16-packing") or sum(m.weight.nbytes for m in linears) > MOST_BYTES:
        linears = []
    for module in linears:
        module.forward = partial(_linear, module, _pack(module))  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in linears:
            del module.forward


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
    if x.dtype != torch.bfloat16:
        return nn.functional.linear(x, module.weight, module.bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, module.bias, "none", [], "")
    return out
