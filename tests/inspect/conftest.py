"""Inspect lives in an environment of its own, laid over the project's; `make test-inspect` runs these tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("inspect_ai") is None:
    collect_ignore_glob.append("t*.py")
else:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["INSPECT_DISPLAY"] = "none"


def pytest_configure(config: pytest.Config) -> None:
    # Inspect leaves streams open at its end; they are told of when they are collected.
    config.addinivalue_line("filterwarnings", "ignore:Unclosed <MemoryObject:ResourceWarning")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny products gain nothing from a second thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny model whose tokens are characters."""
    from tests.support.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Any]:
    """Evaluate a task by Inspect, and read the log back from its file."""
    from inspect_ai import eval as inspect_eval
    from inspect_ai.log import read_eval_log

    def run(task: Any, model: Any, **options: Any) -> Any:
        (log,) = inspect_eval(task, model=model, log_dir=str(tmp_path / "logs"), log_format="json", **options)
        return read_eval_log(log.location)

    return run
