"""Putting somebody's hooks on a model and taking them off again, and what they leave behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from probes.errors import UserError

Apply = Callable[..., Any]
"""Takes the model, and perhaps `strength`; gives what removes its hooks: a context manager, a function, an object with
`remove`, or several of these."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


def takes_strength(apply: Apply) -> bool:
    """Whether a function names a parameter `strength`."""
    return "strength" in inspect.signature(apply).parameters


def own_strength(apply: Apply) -> float:
    """The default of its parameter `strength`, where that is a number other than 0; else 1."""
    default = inspect.signature(apply).parameters["strength"].default if takes_strength(apply) else 1.0
    return float(default) if isinstance(default, int | float) and default else 1.0


@contextmanager
def installed(apply: Apply, lm: nn.Module, strength: float) -> Iterator[None]:
    """The hooks in place inside the context.

    Raises:
        UserError: what the function gave cannot take them off.
    """
    given = apply(lm, strength=strength) if takes_strength(apply) else apply(lm)
    with ExitStack() as stack:
        for one in given if isinstance(given, Sequence) else (given,):
            if isinstance(one, AbstractContextManager):
                stack.enter_context(one)
            elif callable(remove := getattr(one, "remove", None)):
                stack.callback(remove)
            elif callable(one) and not isinstance(one, nn.Module):
                stack.callback(one)
            else:
                raise UserError(
                    f"the function that installs hooks gave {type(one).__name__}; return what removes them: a context "
                    "manager, a function without arguments, or an object with remove()"
                )
        yield


def fingerprint(lm: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What hooks can change in a model, by the place where it is: hooks, modules, forwards, versions of weights."""
    out: dict[str, tuple[Any, ...]] = {}
    for name, module in lm.named_modules():
        hooks = tuple(len(getattr(module, kind)) for kind in HOOKS)
        out[name or type(lm).__name__] = (sum(hooks), hooks, id(module), "forward" in vars(module))
    for name, tensor in lm.named_parameters():
        out[f"the weight {name}"] = (0, id(tensor), tensor._version)
    out["all modules"] = (sum(len(getattr(torch_module, kind)) for kind in GLOBAL_HOOKS),)
    return out


def left_behind(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> list[str]:
    """What is different, in words."""
    out = []
    for place in sorted(before.keys() | after.keys()):
        was, now = before.get(place, (0,)), after.get(place, (0,))
        if now[0] > was[0]:
            out.append(f"{now[0] - was[0]} more hooks on {place}")
        elif was != now:
            out.append(f"another {place}" if place in before and place in after else f"{place} came or went")
    return out
