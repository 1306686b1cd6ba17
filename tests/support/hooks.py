"""Ways in which steering hooks are written, right and deliberately wrong: what `check_steering` is held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from steering_vectors import SteeringVector
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from probes.sites import blocks, width

LAYER = 1
Edit = Callable[[Tensor, Tensor], Tensor]


def vector(lm: PreTrainedModel, layer: int = LAYER) -> Tensor:
    return torch.randn(width(lm), generator=torch.Generator().manual_seed(layer)).to(lm.dtype)


def on_output(module: nn.Module, edit: Callable[[Tensor], Tensor]) -> RemovableHandle:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(hook)


def hooked(edit: Edit) -> Callable[..., RemovableHandle]:
    """Hooks on one block that do `edit(h, strength · v)`."""

    def apply(lm: PreTrainedModel, strength: float = 1.0) -> RemovableHandle:
        v = strength * vector(lm)
        return on_output(blocks(lm)[LAYER], lambda h: edit(h, v))

    return apply


def added(h: Tensor, v: Tensor, where: Tensor | None = None) -> Tensor:
    return h + v if where is None else h + where.to(h)[..., None] * v


def last(h: Tensor, v: Tensor) -> Tensor:
    where = torch.zeros(h.shape[:2])
    where[:, -1] = 1
    return added(h, v, where)


def first_row(h: Tensor, v: Tensor) -> Tensor:
    where = torch.zeros(h.shape[:2])
    where[0] = 1
    return added(h, v, where)


def twice_on_the_embedding(lm: PreTrainedModel, strength: float = 1.0) -> list[RemovableHandle]:
    v = strength * vector(lm)
    embedding: Any = lm.get_input_embeddings()
    return [on_output(embedding, lambda h: h + v) for _ in range(2)]


def left_behind(lm: PreTrainedModel, strength: float = 1.0) -> Callable[[], None]:
    v = strength * vector(lm)
    hooks = [on_output(blocks(lm)[layer], lambda h: h + v) for layer in (LAYER, LAYER + 1)]
    return hooks[0].remove


def strength_ignored(lm: PreTrainedModel, strength: float = 1.0) -> RemovableHandle:
    v = vector(lm)
    return on_output(blocks(lm)[LAYER], lambda h: h + v)


def shifted(lm: PreTrainedModel, strength: float = 1.0) -> list[RemovableHandle]:
    """Counts a row's tokens by its mask, and takes padding to stand at the right."""
    v = strength * vector(lm)
    held: dict[str, Tensor] = {}

    def before(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        held["mask"] = kwargs["attention_mask"]

    def edit(h: Tensor) -> Tensor:
        if h.shape[1] == 1:
            return h + v
        count = held["mask"].sum(-1, keepdim=True)
        return added(h, v, torch.arange(h.shape[1])[None] < count)

    return [lm.register_forward_pre_hook(before, with_kwargs=True), on_output(blocks(lm)[LAYER], edit)]


def one_row_alone(h: Tensor, v: Tensor) -> Tensor:
    if len(h) > 1:
        raise ValueError(f"one row expected,\n\x1b[31m{len(h)} given")
    return h + v


# Each with the fault that must be named, and the question whose answer must fail.
WRONG: dict[str, tuple[Callable[..., Any], str, str]] = {
    "only at prefill": (
        hooked(lambda h, v: h + v if h.shape[1] > 1 else h), "prefill only", "positions, cached decoding"
    ),
    "only the last token": (hooked(last), "last position only", "positions, whole forward"),
    "padding shifted": (shifted, "padding shifted", "left-padded batch"),
    "other amount when cached": (
        hooked(lambda h, v: h + v if h.shape[1] > 1 else h + 0.5 * v), "cached steps differ", "cached = without a cache"
    ),
    "twice on the embedding": (twice_on_the_embedding, "applied twice", "amount"),
    "leaves a hook behind": (left_behind, "left behind", "clean-up"),
    "strength ignored": (strength_ignored, "strength ignored", "scale"),
    "dtype cast": (hooked(lambda h, v: (h + v).bfloat16().to(h.dtype)), "dtype cast", "precision"),
    "first row only": (hooked(first_row), "first row only", "left-padded batch"),
    "fails on a batch": (hooked(one_row_alone), "fails on a batch", "left-padded batch"),
    "does nothing": (hooked(lambda h, v: h), "nothing moved", "anything moved"),
    "not proportional": (
        hooked(lambda h, v: (h + v) * h.norm(dim=-1, keepdim=True) / (h + v).norm(dim=-1, keepdim=True)),
        "not proportional", "scale",
    ),
}  # fmt: skip


class Wrapped(nn.Module):
    """A block that stands in another's place and adds a vector to its output, as repeng's do."""

    def __init__(self, block: nn.Module, v: Tensor) -> None:
        super().__init__()
        self.block, self.v = block, v

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.block(*args, **kwargs)
        return (output[0] + self.v, *output[1:]) if isinstance(output, tuple) else output + self.v

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("block", "v") else getattr(super().__getattr__("block"), name)


@contextmanager
def wrapped(lm: PreTrainedModel, strength: float = 1.0) -> Iterator[None]:
    layers = blocks(lm)
    plain = {layer: layers[layer] for layer in (LAYER, LAYER + 1)}
    for layer, block in plain.items():
        layers[layer] = Wrapped(block, strength * vector(lm, layer))
    try:
        yield
    finally:
        for layer, block in plain.items():
            layers[layer] = block


def steering_vectors(lm: PreTrainedModel, strength: float = 1.0) -> Any:
    return SteeringVector({n: vector(lm, n) for n in (LAYER, LAYER + 1)}).apply(lm, multiplier=strength)


def handle(lm: PreTrainedModel, strength: float = 1.0) -> Any:
    return SteeringVector({LAYER: vector(lm)}).patch_activations(lm, multiplier=strength)


RIGHT: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "wrapped blocks": (wrapped, (LAYER, LAYER + 1)),
    "steering_vectors": (steering_vectors, (LAYER, LAYER + 1)),
    "steering_vectors' handle": (handle, (LAYER,)),
    "a forward hook": (hooked(lambda h, v: h + v), (LAYER,)),
}
