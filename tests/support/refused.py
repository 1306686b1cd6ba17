"""What is refused, is in one line."""

from __future__ import annotations

from typing import Any

import pytest

from probes.errors import UserError


def refuse(match: str, work: Any) -> None:
    with pytest.raises(UserError, match=match) as caught:
        work()
    assert "\n" not in str(caught.value)
