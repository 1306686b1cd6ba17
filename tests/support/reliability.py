"""The tables of docs/reference/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reliability.md"
END = "<!-- end -->"


def row(*cells: object) -> str:
    """A line of a table."""
    return "| " + " | ".join(f"{one:,}" if isinstance(one, int) else str(one) for one in cells) + " |"


def held(begin: str) -> list[str]:
    """The lines of a table that is there."""
    return PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(END)[0].splitlines()


def put(begin: str, made: str, lines: Sequence[str]) -> None:
    """Put a table between its marks, with what made it and the day."""
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    assert found, f"{PAGE.name} holds no {begin!r}"
    after = rest.partition(END)[2]
    said = f"{made}, {date.today().isoformat()}.\n\n"
    PAGE.write_text(before + begin + said + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
