"""At the doors that people call from a notebook: what is of another type than is meant is refused in one line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

from probes.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Meant:
    """What an argument has to be.

    Args:
        types: any of them. A bool is no int, and a whole number of numpy is one.
        said: what to give, as it ends a sentence: `what elicit.load_model returns`.
    """

    types: tuple[type, ...]
    said: str

    def taken(self, name: str, value: Any) -> Any:
        """The value; a whole number of numpy as Python's.

        Args:
            name: of the argument.
            value: it.

        Raises:
            UserError: it is of another type.
        """
        if isinstance(value, bool):
            fits = bool in self.types
        elif int in self.types and isinstance(value, Integral):
            return int(value)
        else:
            fits = isinstance(value, self.types)
        if not fits:
            raise UserError(f"{described(value)} was given as {name}; give {self.said}")
        return value


TEXT = Meant((str,), "a text")
PATH = Meant((str, Path), "a text or a Path")
WHOLE = Meant((int,), "a whole number")


def described(value: Any) -> str:
    """A value of few words as it is, another by its type."""
    kind = type(value).__name__
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | bytes | int | float | Path):
        shown = " ".join(repr(value).split())
        return f"{shown if len(shown) <= SHOWN else f'{shown[:SHOWN]}…'} ({kind})"
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def takes(**meant: Meant) -> Callable[[F], F]:
    """Let a function refuse arguments of another type before anything is done.

    Args:
        meant: by the parameter's name; one that has a default may also be given that.
    """

    def door(function: F) -> F:
        signature = inspect.signature(function)
        usual = {name: signature.parameters[name].default for name in meant}

        @functools.wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            try:
                bound = signature.bind(*args, **given)
            except TypeError:
                return function(*args, **given)  # Python's own words name the argument
            for name, one in meant.items():
                if name in bound.arguments and bound.arguments[name] is not usual[name]:
                    bound.arguments[name] = one.taken(name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return checked  # type: ignore[return-value]

    return door
