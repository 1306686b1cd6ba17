"""Values that a person writes as text: `key=value` on the command line and in the name of a task."""

from __future__ import annotations

import json
from typing import Any

from probes.errors import UserError


def value_of(text: str) -> Any:
    """The value that a text is in JSON, else the text itself.

    Raises:
        UserError: JSON that cannot be held: a number of thousands of digits, brackets nested too deep.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        fault = "brackets nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"
        raise UserError(f"the value {text[:20]}… was given, {fault}; give a shorter one") from error
