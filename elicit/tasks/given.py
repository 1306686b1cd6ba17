"""Values that a person writes as text: `key=value` on the command line and in the name of a task."""

from __future__ import annotations

import json
from typing import Any

from probes.errors import UserError

DEEPEST = 100


def value_of(text: str) -> Any:
    """The value that a text is in JSON, else the text itself.

    Raises:
        UserError: JSON that cannot be held: a number of thousands of digits, brackets nested too deep.
    """
    try:
        value = json.loads(text)
        if _levels(value) > DEEPEST:  # how deep Python reads by itself differs between its versions
            raise RecursionError
        return value
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        fault = "brackets nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
        raise UserError(f"the value {text[:20]}… was given, {fault}; give a shorter one") from error


def _levels(value: Any) -> int:
    """How deep lists and tables are nested; 0 of anything else."""
    levels, inside = 0, [value]
    while nested := [one for one in inside if isinstance(one, list | dict)]:
        inside = [part for one in nested for part in (one.values() if isinstance(one, dict) else one)]
        levels += 1
    return levels
