"""The table of docs/reference/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from tests.damage.kind import OUTCOMES
from tests.damage.kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reliability.md"
BEGIN, END = "<!-- begin: python -m tests.damage --write -->\n", "<!-- end -->"


def row(*cells: object) -> str:
    return "| " + " | ".join(f"{one:,}" if isinstance(one, int) else str(one) for one in cells) + " |"


def write(found: Mapping[str, Counter[str]], seed: int) -> None:
    """Put the counts into the page."""
    total = sum(found.values(), Counter())
    lines = [row("kind of file", "hash", "tried", *OUTCOMES), row("---", "---", *["---:"] * (1 + len(OUTCOMES)))]
    for name, counts in found.items():
        sealed = "yes" if KINDS[name].sealed else ""
        lines.append(row(name, sealed, counts.total(), *(counts[one] for one in OUTCOMES)))
    lines.append(row("all", "", total.total(), *(total[one] for one in OUTCOMES)))
    said = f"{total.total():,} damages, seed {seed}, {date.today().isoformat()}.\n\n"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + said + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
