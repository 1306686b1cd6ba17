"""Runs where the wheel was built and installed; `make test-wheel` does both."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
collect_ignore = ["test_package.py"] if not (ROOT / ".venv-wheel").is_dir() else []
