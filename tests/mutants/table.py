"""The table of tests/mutants/README.md: which test sees which fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.mutants.fault import ROOT
from tests.mutants.faults import FAULTS

README = Path(__file__).parent / "README.md"
NONE = "none"
HEAD = "| fault | where | the property | seen by |"


def known() -> dict[str, str]:
    """For each fault of the table the test that saw it."""
    if not README.is_file():
        return {}
    rows = [line.split(" | ") for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    seen = {row[0].removeprefix("| "): row[3].removesuffix(" |").strip("`") for row in rows[2:] if len(row) == 4}
    return {fault: test for fault, test in seen.items() if test != NONE}


def write(seen: Mapping[str, str]) -> None:
    """The table anew."""
    lines = [
        "# Silent faults and the tests that see them", "",
        f"{sum(fault.name in seen for fault in FAULTS)} of {len(FAULTS)} are seen, each by the first test that fails "
        "with it in place (`python -m tests.mutants --write`).", "",
        HEAD, "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for fault in FAULTS:
        where = fault.path.relative_to(ROOT)
        lines.append(f"| {fault.name} | `{where}` | {fault.breaks} | `{seen.get(fault.name, NONE)}` |")
    README.write_text("\n".join(lines) + "\n", encoding="utf-8")
