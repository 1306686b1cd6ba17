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
    `module.KINDS`) stands for them. Last come those of which nothing is said.
    """
    out = list(_told_of(function, names))
    return out + [Told([name], "") for name in names if not any(name in one.names for one in out)]


def _told_of(function: Callable[..., Any], names: Collection[str]) -> Iterator[Told]:
    for entry in parse(inspect.getdoc(function) or "", style=DocstringStyle.GOOGLE).params:
        told = [name for name in map(str.strip, entry.arg_name.split(",")) if name in names]
        text = " ".join((entry.description or "").split())
        elsewhere = _ELSEWHERE.fullmatch(text)
        if told and elsewhere and (other := _held(elsewhere[1])):
            yield from told_of(other, told)
        elif told:
            yield Told(told, _CONSTANT.sub(lambda found: _listed(function, found[1]), text))


def _listed(function: Callable[..., Any], constant: str) -> str:
    """The names that a constant holds; by itself it is one of the function's module."""
    place = constant if "." in constant else f"{function.__module__}.{constant}"
    held = _held(place)
    return ", ".join(f"`{name}`" for name in held) if isinstance(held, Collection) else f"`{constant}`"


def _held(place: str) -> Any:
    """What a docstring's author names, where there is such a thing."""
    try:
        return pkgutil.resolve_name(place)
    except (ImportError, AttributeError):
        return None
