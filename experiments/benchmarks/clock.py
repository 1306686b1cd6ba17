"""Where the seconds of a step go: functions that are timed while they run inside a context."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Clock = Callable[[], float]


@contextmanager
def clocked(owner: Any, name: str, clock: Clock = time.perf_counter) -> Iterator[list[float]]:
    """Seconds of each call of a function inside the context, or what else the clock counts."""
    spent: list[float] = []
    function = getattr(owner, name)

    def timed(*args: Any, **more: Any) -> Any:
        began = clock()
        out = function(*args, **more)
        spent.append(clock() - began)
        return out

    setattr(owner, name, timed)
    try:
        yield spent
    finally:
        setattr(owner, name, function)
