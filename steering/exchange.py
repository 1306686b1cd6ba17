"""What a model's modules hold, kept and put back; and modules that stand in the place of others.

A loader that changes a model in place, such as PEFT, is let loose on it. What it exchanged is then found by looking,
not by knowing the loader: the modules that it left are the model, those that it brought are put in their places later.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Swap = tuple[nn.Module, str, nn.Module, nn.Module]  # parent, name, base module, the one in its place
PROBE = 8  # tokens of the input on which two models are held to each other


class Kept:
    """A model as it is: its modules, and, with `weights`, its parameters' values, copied to the host.

    Buffers are not copied: PEFT writes to none.
    """

    def __init__(self, lm: PreTrainedModel, *, weights: bool) -> None:
        self._lm = lm
        self._held = [(one, _held(vars(one))) for one in [*lm.modules(), lm.config]]
        self._flags = [(p, p.requires_grad) for p in lm.parameters()]
        self._values = [(p, p.detach().to("cpu", copy=True)) for p in lm.parameters()] if weights else []

    def separate(self) -> None:
        """Give what was brought weights of its own where it shares with the model such as were written to.

        Each module that has them gets a twin, which shares all else with it.
        """
        made = {id(p): nn.Parameter(p.detach().clone(), requires_grad=False) for p, _ in self._changed()}
        twins: dict[int, nn.Module] = {}
        for module in list(self._lm.modules()):
            for name, child in module._modules.items():
                if child is not None and any(id(p) in made for p in child._parameters.values()):
                    module._modules[name] = twins.setdefault(id(child), twin(child, made))

    def brought(self) -> list[Swap]:
        """The modules that stand in others' places now."""
        swaps: list[Swap] = []
        for parent, attributes in self._held:
            if isinstance(parent, nn.Module):
                for name, base in attributes["_modules"][1].items():
                    now = parent._modules.get(name)
                    if now is not base and now is not None and base is not None:
                        swaps.append((parent, name, base, now))
        return swaps

    def put_back(self) -> None:
        """Make the model what it was: modules, attributes, hooks, flags, and the weights that were copied."""
        for one, attributes in self._held:
            for name in set(vars(one)) - set(attributes):
                del vars(one)[name]
            for name, (value, content) in attributes.items():
                vars(one)[name] = value
                if content is not None:
                    value.clear()
                    (value.extend if isinstance(value, list) else value.update)(content)
        for p, flag in self._flags:
            p.requires_grad_(flag)
        for p, value in self._changed():
            p.data = value.to(p.device)

    def _changed(self) -> list[tuple[nn.Parameter, Tensor]]:
        return [(p, value) for p, value in self._values if not torch.equal(p.detach().cpu(), value)]


def _held(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Each attribute, and the content of those that are changed in place."""
    return {
        name: (value, copy.copy(value) if isinstance(value, dict | list | set) else None)
        for name, value in attributes.items()
    }


def twin(module: nn.Module, parameters: dict[int, nn.Parameter]) -> nn.Module:
    """A module that shares all with another but those of its own parameters that `parameters` has, by `id`."""
    other = copy.copy(module)
    own = {name: None if p is None else parameters.get(id(p), p) for name, p in module._parameters.items()}
    other.__dict__["_parameters"] = own
    return other


@contextmanager
def exchanged(swaps: list[Swap]) -> Iterator[None]:
    """Modules stand in others' places inside the context."""
    try:
        for parent, name, _, other in swaps:
            setattr(parent, name, other)
        yield
    finally:
        for parent, name, base, _ in swaps:
            setattr(parent, name, base)


@contextmanager
def alone(lm: nn.Module) -> Iterator[None]:
    """Nobody who reads or steers sees the passes inside the context, and none drops out anything."""
    hooks = [(one, copy.copy(one)) for m in lm.modules() for one in (m._forward_hooks, m._forward_pre_hooks)]
    training = [(m, m.training) for m in lm.modules()]
    for one, _ in hooks:
        one.clear()
    lm.eval()
    try:
        yield
    finally:
        for one, content in hooks:
            one.update(content)
        for module, mode in training:
            module.training = mode


def answer_of(model: Any, lm: PreTrainedModel) -> Tensor:
    """Logits of a fixed input, in fp32 on the host: of `model`, which wraps `lm` or is it."""
    embeddings: Any = lm.get_input_embeddings()
    ids = torch.arange(1, PROBE + 1, device=lm.device)[None] % len(embeddings.weight)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids).logits
    return logits.float().cpu()


def same(a: Tensor, b: Tensor, share: float) -> bool:
    """Whether logits are equal up to this share of the largest."""
    return a.shape == b.shape and bool((a - b).abs().max() <= share * b.abs().max())
