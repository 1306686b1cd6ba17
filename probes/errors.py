"""A user's mistake, in one line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Wrong input: the message says what was given, what was expected and what to do. Exit code 2."""


class ToldElsewhere(UserError):
    """The same, where another process of several says so."""


def unknown(kind: str, given: str, known: Iterable[str], hint: str = "") -> UserError:
    """A `UserError` for a name that is not registered, with the nearest names that are."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    near = near or [name for name in names if given and given.lower() in name.lower()][:3]
    offer = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"known: {', '.join(names[:12])}" + (", …" if len(names) > 12 else "")
    )
    return UserError(f"unknown {kind} {given!r}; {offer}{' ' + hint if hint else ''}")


GARBLED = (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError)
"""What reading plain data raises where a value is missing, of another type or beyond its range."""


@contextmanager
def as_expected(what: str, todo: str) -> Iterator[None]:
    """Around what takes apart the data of a file, and nothing else: what is not as expected there is one line.

    Args:
        what: names the file.
        todo: what a person can do.

    Raises:
        UserError: something is missing, of another type or beyond its range.
    """
    try:
        yield
    except GARBLED as error:
        said = " ".join(str(error).split())
        why = f"no {said}" if isinstance(error, KeyError) else said or type(error).__name__
        raise UserError(f"{what} is not as expected ({why[:200]}); {todo}") from error


def at_least(settings: object, least: float | int, *names: str) -> None:
    """Refuse settings below a bound, NaN and infinity.

    Raises:
        UserError: the first of the named fields that is.
    """
    for name, value in _finite(settings, names):
        if value < least:
            raise UserError(f"{name} = {value} was given; give at least {least}")


def above(settings: object, bound: float | int, *names: str) -> None:
    """Refuse settings at a bound or below it, NaN and infinity.

    Raises:
        UserError: the first of the named fields that is.
    """
    for name, value in _finite(settings, names):
        if value <= bound:
            raise UserError(f"{name} = {value} was given; give a value above {bound}")


def _finite(settings: object, names: Iterable[str]) -> Iterator[tuple[str, float | int]]:
    for name in names:
        value = getattr(settings, name)
        if not -math.inf < value < math.inf:
            raise UserError(f"{name} = {value} was given; give a finite number")
        yield name, value
