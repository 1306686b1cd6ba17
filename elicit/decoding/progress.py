"""What is reported while arms are trained and evaluated."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """What a caller sees while a run works."""

    def arm(self, name: str, questions: int, done: int) -> None: ...

    def step(self, step: int, open_rows: int) -> None: ...

    def advance(self, questions: int, tokens: int) -> None: ...

    def training(self, name: str, done: int, updates: int, note: str) -> None: ...


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
