"""Runs where all of `make test-vllm test-inspect test-lm-eval` made their environments."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
OTHERS = (".venv-vllm", ".venv-inspect", ".venv-lm-eval")
collect_ignore = [] if all((ROOT / name).is_dir() for name in OTHERS) else ["test_everywhere.py"]
