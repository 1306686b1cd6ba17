"""What a check of steering found: an answer to each question, with a figure and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOLDS, FAILS, UNTOLD = "holds", "fails", "cannot be told"


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Args:
        name: of the question.
        verdict: `holds`, `fails` or `cannot be told`.
        figure: what was measured, in words.
        fault: the name of what is wrong, where it is a known kind.
        numbers: what was measured, for programs.
    """

    name: str
    verdict: str
    figure: str
    fault: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        out = {"question": self.name, "verdict": self.verdict, "figure": self.figure, "fault": self.fault}
        return {**out, "numbers": dict(self.numbers)}


@dataclass(frozen=True)
class SteeringReport:
    """All answers; `about` says what was checked, and on what."""

    about: str
    answers: tuple[Answer, ...]

    def __getitem__(self, name: str) -> Answer:
        return next(one for one in self.answers if one.name == name)

    @property
    def failed(self) -> tuple[str, ...]:
        """The questions whose answer is `fails`."""
        return tuple(one.name for one in self.answers if one.verdict == FAILS)

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of what is wrong, each once."""
        return tuple(dict.fromkeys(one.fault for one in self.answers if one.fault))

    @property
    def ok(self) -> bool:
        """Whether something holds and nothing fails."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """1 where something fails, 2 where nothing could be told, else 0."""
        if self.failed:
            return 1
        return 0 if any(one.verdict == HOLDS for one in self.answers) else 2

    def __str__(self) -> str:
        name, verdict = (max(len(getattr(one, part)) for one in self.answers) for part in ("name", "verdict"))
        lines = [f"{one.name:<{name}}  {one.verdict:<{verdict}}  {one.figure}" for one in self.answers]
        return "\n".join([self.about, *lines, f"faults: {', '.join(self.faults) or 'none that is known by name'}"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "ok": self.ok,
            "faults": list(self.faults),
            "answers": [one.to_dict() for one in self.answers],
        }
