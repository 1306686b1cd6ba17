"""What the arguments of a function are, as its docstring says."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from docstring_parser import DocstringStyle, parse

_ELSEWHERE = re.compile(r"as for `([\w.]+)`\.")
_CONSTANT = re.compile(r"`((?:\w+\.)*[A-Z_]{2,})`")


class Told(NamedTuple):
    """Arguments that are told of together, and what is said of them."""

    names: list[str]
    text: str


def told_of(function: Callable[..., Any], names: Collection[str]) -> list[Told]:
    """What the `Args:` of a docstring say of these arguments, in their order there.

    Where they say "as for `module.function`." it is what is said there. A constant that holds names (`KINDS`, or
    `module.KINDS`) stands for them.

    Raises:
        ValueError: nothing is said of one of them.
    """
    out = list(_told_of(function, names))
    if left := set(names).difference(*(one.names for one in out)):
        raise ValueError(f"the docstring of {function.__module__}.{function.__name__} says nothing of {sorted(left)}")
    return out


def _told_of(function: Callable[..., Any], names: Collection[str]) -> Iterator[Told]:
    for entry in parse(inspect.getdoc(function) or "", style=DocstringStyle.GOOGLE).params:
        told = [name for name in map(str.strip, entry.arg_name.split(",")) if name in names]
        text = " ".join((entry.description or "").split())
        if told and (elsewhere := _ELSEWHERE.fullmatch(text)):
            yield from told_of(pkgutil.resolve_name(elsewhere[1]), told)
        elif told:
            yield Told(told, _CONSTANT.sub(lambda found: _listed(function, found[1]), text))


def _listed(function: Callable[..., Any], constant: str) -> str:
    """The names that a constant holds; by itself it is one of the function's module."""
    place = constant if "." in constant else f"{function.__module__}.{constant}"
    held = pkgutil.resolve_name(place)
    return ", ".join(f"`{name}`" for name in held) if isinstance(held, Collection) else f"`{constant}`"
