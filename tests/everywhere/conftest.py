"""Runs where the environments of the other programs are; `make test-everywhere` makes them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
collect_ignore = ["test_everywhere.py"] if not (ROOT / ".venv-vllm").is_dir() else []
