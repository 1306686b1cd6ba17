"""The standing set of silent faults: each can still be put in, and a test is known that sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.fault import ROOT, Fault
from tests.mutants.faults import FAULTS
from tests.mutants.table import README, known


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_can_be_put_in(fault: Fault) -> None:
    compile(fault.changed, fault.file, "exec")  # its lines stand there once
    assert fault.changed != fault.path.read_text(encoding="utf-8") and all(
        (ROOT / test).is_file() for test in fault.tests
    )


def test_every_fault_is_seen_by_a_test_that_is_there() -> None:
    seen = known()
    assert set(seen) == {fault.name for fault in FAULTS}, "run python -m tests.mutants --write"
    assert len(FAULTS) >= 60 and len({fault.name for fault in FAULTS}) == len(FAULTS)
    for test in seen.values():
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0].rpartition('::')[2]}(" in Path(ROOT / file).read_text(encoding="utf-8")
    assert f"{len(FAULTS)} of {len(FAULTS)} are seen" in README.read_text(encoding="utf-8")
