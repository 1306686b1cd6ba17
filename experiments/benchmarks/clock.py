"""Where the seconds of a step go: functions that are timed while they run inside a context."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def clocked(owner: Any, name: str) -> Iterator[list[float]]:
    """Seconds of each call of a function inside the context."""
    spent: list[float] = []
    function = getattr(owner, name)

    def timed(*args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        out = function(*args, **more)
        spent.append(time.perf_counter() - began)
        return out

    setattr(owner, name, timed)
    try:
        yield spent
    finally:
        setattr(owner, name, function)
