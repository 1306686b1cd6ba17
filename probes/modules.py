"""What a registry asks of a module: attributes of their types, and functions that can be called as they will be."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

Call = tuple[tuple[str, ...], tuple[str, ...]]
"""How a function is called: names of what it is given by place, and by name."""


def checked(
    module: ModuleType, what: str, required: Sequence[str], types: Mapping[str, type], calls: Mapping[str, Call]
) -> dict[str, Any]:
    """The attributes of a module that a registry knows, each checked.

    Args:
        module: the author's.
        what: a registry calls its modules, e.g. "method".
        required: attributes that must be there.
        types: of attributes that are no functions.
        calls: of attributes that are functions, how they will be called.

    Returns:
        Those that the module has, by name.

    Raises:
        ValueError: one lacks, is of another type, or cannot be called so (one line, with the module's name).
    """
    where = f"the {what} module {module.__name__!r}"
    found = {key: value for key, value in vars(module).items() if key in types or key in calls}
    lacking = [key for key in required if key not in found]
    if lacking:
        raise ValueError(f"{where} lacks {', '.join(lacking)}; it must have {', '.join(required)}")
    for key, kind in types.items():
        if key in found and not isinstance(found[key], kind):
            raise ValueError(f"{where} has {key} = {found[key]!r}; expected {kind.__name__}")
    for key, (places, names) in calls.items():
        if key not in found:
            continue
        said = f"{key}({', '.join([*places, *(f'{name}=…' for name in names)])})"
        if not callable(found[key]):
            raise ValueError(f"{where} has {key} = {found[key]!r}; expected a function {said}")
        try:
            inspect.signature(found[key]).bind(*places, **dict.fromkeys(names))
        except TypeError as error:
            raise ValueError(f"{where} has a {key} that cannot be called as {said}: {error}") from error
    return found


def keywords(function: Any, where: str, places: int) -> dict[str, inspect.Parameter]:
    """The options of a function by name: its keyword-only parameters, each with a default.

    Args:
        function: that has them.
        where: what it is called in an error.
        places: how many parameters it is given by place, first; the others must be options.

    Raises:
        ValueError: an option without a default, or by place; `*args` and `**options`, whose names nobody could check.
    """
    options = {}
    for place, one in enumerate(inspect.signature(function).parameters.values()):
        if place >= places and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
            raise ValueError(f"{where} takes {one.name} by place; write * before its options")
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise ValueError(f"{where} takes {one}; name each option, so that a mistyped one is refused")
        if one.kind is one.KEYWORD_ONLY:
            if one.default is one.empty:
                raise ValueError(f"{where} has an option {one.name} without a default; give one")
            options[one.name] = one
    return options
