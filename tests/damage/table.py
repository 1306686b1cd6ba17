"""The table of docs/reference/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.damage.kind import OUTCOMES
from tests.damage.kinds import KINDS
from tests.support.reliability import put, row

BEGIN = "<!-- begin: python -m tests.damage --write -->\n"


def write(found: Mapping[str, Counter[str]], seed: int) -> None:
    """Put the counts into the page."""
    total = sum(found.values(), Counter())
    lines = [row("kind of file", "hash", "tried", *OUTCOMES), row("---", "---", *["---:"] * (1 + len(OUTCOMES)))]
    for name, counts in found.items():
        sealed = "yes" if KINDS[name].sealed else ""
        lines.append(row(name, sealed, counts.total(), *(counts[one] for one in OUTCOMES)))
    lines.append(row("all", "", total.total(), *(total[one] for one in OUTCOMES)))
    put(BEGIN, f"{total.total():,} damages, seed {seed}", lines)
