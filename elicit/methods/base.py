"""What the methods share."""

from __future__ import annotations

from elicit.elicited import Elicited
from probes.errors import UserError


def check_own(handle: Elicited, name: str) -> None:
    """Refuse controls of a handle that another method made.

    Raises:
        UserError: it is another's.
    """
    if handle.method != name:
        raise UserError(
            f"controls of {name} were asked for a handle of {handle.method!r}; give one that {name}.fit made"
        )
