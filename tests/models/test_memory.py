"""What is free: the machine's memory, and what a limit from outside leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elicit.models import memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("limit", "used", "stat", "free"),
    [
        ("max", "900", "inactive_file 0", 5000 * 1024),  # no limit
        ("2000000", "1500000", "anon 1000000\ninactive_file 400000", 900000),
        ("2000000", "2100000", "inactive_file 0", 0),  # more than its limit, for a moment
        ("9223372036854771712", "900", "inactive_file 0", 5000 * 1024),  # as the first version says "no limit"
    ],
)
def test_a_limit_from_outside_counts(
    limit: str, used: str, stat: str, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("limit", "used", "stat", "meminfo")]
    for file, text in zip(files, (limit, used, stat, "MemTotal: 9000 kB\nMemAvailable: 5000 kB"), strict=True):
        file.write_text(text + "\n")
    monkeypatch.setattr(memory, "MEMINFO", files[3])
    monkeypatch.setattr(memory, "LIMITS", (tuple(files[:3]), (tmp_path / "none", *files[1:3])))
    assert memory.free_bytes(CPU) == free
