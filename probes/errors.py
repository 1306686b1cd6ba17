"""A user's mistake, told in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input: the message says what was given, what was expected and what to do. Exit code 2."""


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


def at_least(settings: object, least: int, *names: str) -> None:
    """Refuse settings below a bound.

    Raises:
        UserError: the first of the named fields that is.
    """
    for name in names:
        if getattr(settings, name) < least:
            raise UserError(f"{name} = {getattr(settings, name)} was given; give at least {least}")
