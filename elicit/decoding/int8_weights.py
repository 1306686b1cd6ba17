"""Linear layers in eight bits while the loop decodes on a CPU: oneDNN's products of integers.

A weight has one scale for each output, activations one for each position, so that a row's product is the same to the
bit whatever rows are computed with it. Activations have channels that are far larger than the rest; a part of each
channel's size is moved into the weight before both are rounded (SmoothQuant, arXiv 2211.10438, equation 4, α = 0.5), by
the largest activations that one short text makes. Departures from it: every layer has a smoothing of its own, which is
multiplied when the layer runs, so that norms and hooks see what they always saw; sums are of 8-bit products in 32 bits.

Processors without such products (no VNNI) add two of them in 16 bits and saturate; activations have seven bits there,
with which no sum is too large.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from elicit.decoding.packed_weights import is_plain
from elicit.models.memory import free_bytes
from elicit.models.processor import has
from probes.errors import UserError

ALPHA = 0.5  # the share of an activation's size that goes into the weight
LEAST = 1 << 16  # elements of a weight: the products of smaller ones take less time than rounding
LARGEST = 127  # of a weight
OUTPUTS_AT_ONCE = 4096  # of a weight that is rounded: its copy in float32 stays small
SMALLEST = 1e-30  # no row and no channel has a scale of 0

Channels = Mapping[str, Float[Tensor, " d_in"]]
"""The largest |activation| of each input channel of a layer, by its path in the model."""


class Rounded(NamedTuple):
    """A layer's weight in oneDNN's layout, and what turns its integer products into numbers."""

    weight: Tensor
    scale: Float[Tensor, " d_out"]
    zero: Int[Tensor, " d_out"]
    smoothing: Float[Tensor, " d_in"]
    levels: int  # of an activation, to either side of zero


_ROUNDED: weakref.WeakKeyDictionary[nn.Linear, tuple[int, int, Rounded]] = weakref.WeakKeyDictionary()


def layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that are computed in eight bits, by their path, without what an adapter adds."""
    found = {path: m for path, m in _own(model, "") if is_plain(m) and m.weight.numel() >= LEAST}
    return {path: m for path, m in found.items() if m.weight.dtype in (torch.float32, torch.bfloat16)}


def _own(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """A model's modules; PEFT's stand for the layer that they wrap."""
    base = getattr(module, "base_layer", None)
    if isinstance(base, nn.Module):
        yield from _own(base, path)
        return
    yield path, module
    for name, child in module.named_children():
        yield from _own(child, f"{path}.{name}".lstrip("."))


@torch.inference_mode()
def channels_of(model: nn.Module, ids: Int[Tensor, "one pos"]) -> Channels:
    """What the smoothing of `int8` goes by, from one forward."""
    found: dict[str, Tensor] = {}

    def seen(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found[path] = given[0].reshape(-1, given[0].shape[-1]).abs().amax(0).float()

        return hook

    hooks = [module.register_forward_pre_hook(seen(path)) for path, module in layers(model).items()]
    try:
        model(input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def int8(model: nn.Module, channels: Channels) -> Iterator[None]:
    """Linear layers are computed in eight bits inside the context; the modules are the same before and after it.

    Raises:
        UserError: no memory for a copy in eight bits beside the weights.
    """
    chosen = layers(model)
    check_room(chosen.values())
    for path, module in chosen.items():
        module.forward = partial(_linear, module, _rounded(module, channels.get(path)))  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in chosen.values():
            del module.forward


def check_room(chosen: Iterable[nn.Linear]) -> None:
    """Refuse a copy that has no room.

    Raises:
        UserError: that.
    """
    missing = sum(m.weight.numel() for m in chosen if m not in _ROUNDED)
    free = free_bytes(torch.device("cpu")) if missing else None
    if free is not None and missing > free:
        raise UserError(
            f"a copy of the weights in eight bits needs {missing / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free "
            "some, load the model in bfloat16, or use the hf engine"
        )


def _rounded(module: nn.Linear, largest: Tensor | None) -> Rounded:
    """The rounded weight; rounded anew when the weight was written to or exchanged."""
    weight = module.weight
    known = _ROUNDED.get(module)
    if known is None or known[:2] != (weight.data_ptr(), weight._version):
        with torch.no_grad():
            known = (weight.data_ptr(), weight._version, _round(weight.detach(), largest))
        _ROUNDED[module] = known
    return known[2]


def _round(weight: Float[Tensor, "d_out d_in"], largest: Float[Tensor, " d_in"] | None) -> Rounded:
    levels = 127 if has("int8-sums") else 63
    smoothing = torch.ones(weight.shape[1])
    if largest is not None:
        of_weight = weight.abs().amax(0).float().clamp_min(SMALLEST) ** (1 - ALPHA)
        smoothing = (largest.clamp_min(SMALLEST) ** ALPHA / of_weight).clamp(1e-4, 1e4)  # a channel that was silent
    whole = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(len(weight))
    for start in range(0, len(weight), OUTPUTS_AT_ONCE):
        part = weight[start : start + OUTPUTS_AT_ONCE].float() * smoothing
        sizes = part.abs().amax(1).clamp_min(SMALLEST) / LARGEST
        whole[start : start + OUTPUTS_AT_ONCE] = part.div_(sizes[:, None]).round_()
        scale[start : start + OUTPUTS_AT_ONCE] = sizes / levels
    packed = torch.ops.onednn.qlinear_prepack(whole, None)
    return Rounded(packed, scale, torch.zeros(len(weight), dtype=torch.int32), 1 / smoothing, levels)


def _linear(module: nn.Linear, made: Rounded, x: Tensor) -> Tensor:
    smooth = x.reshape(-1, x.shape[-1]) * made.smoothing
    size = smooth.abs().amax(-1, keepdim=True).clamp_min_(SMALLEST)
    # Above zero, where conversion cuts off the fraction: a half more rounds. Signed activations have no fast product.
    levels = smooth.mul_(made.levels / size).add_(made.levels + 1.5).to(torch.uint8)
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        levels, 1.0, made.levels + 1, made.weight, made.scale, made.zero, None, 1.0, 0, torch.float32, "none", [], ""
    )
    out = out.mul_(size) if module.bias is None else torch.addcmul(module.bias, out, size)
    return out.to(x.dtype).reshape(*x.shape[:-1], -1)
