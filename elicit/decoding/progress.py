"""What is reported while arms are trained and evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What a caller sees while a run works."""

    def arm(self, name: str, questions: int, done: int) -> None: ...

    def step(self, step: int, open_rows: int) -> None: ...

    def advance(self, questions: int, tokens: int) -> None: ...

    def training(self, name: str, done: int, updates: int, note: str) -> None: ...


@runtime_checkable
class Measured(Progress, Protocol):
    """Progress that also takes numbers, of a step of a training or of an arm that is done."""

    def measure(self, name: str, step: int, values: Mapping[str, float]) -> None: ...


def measure(progress: Progress | None, name: str, step: int, values: Mapping[str, float | None]) -> None:
    """Tell numbers to whom takes them; those that are None are not there."""
    if isinstance(progress, Measured):
        progress.measure(name, step, {key: value for key, value in values.items() if value is not None})


class Silent:
    """No progress."""

    def arm(self, name: str, questions: int, done: int) -> None:
        pass

    def step(self, step: int, open_rows: int) -> None:
        pass

    def advance(self, questions: int, tokens: int) -> None:
        pass

    def training(self, name: str, done: int, updates: int, note: str) -> None:
        pass
