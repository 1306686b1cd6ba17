"""Shared fixtures. Real weights are fetched once, by the same code and into the same cache as a user's."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from elicit.cli.app import COLLECTED
from elicit.models import Model, load_model
from elicit.models.processor import has
from tests.support.tiny import save_tiny

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # a torch for CUDA brings Triton, which needs a GPU
# How long an example takes says how busy the machine is.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that `needs` what this processor does not have is skipped, by that name."""
    for item in items:
        for capability in {name for mark in item.iter_markers("needs") for name in mark.args}:
            if not has(capability):
                item.add_marker(pytest.mark.skip(reason=f"needs {capability}, which this processor does not have"))
    # Long tests first, half of them where the second worker begins: else one waits for the other at the end.
    long, short = ([item for item in items if bool(item.get_closest_marker("long")) is one] for one in (True, False))
    middle = len(items) // 2 - len(long[::2])
    items[:] = long[::2] + short[:middle] + long[1::2] + short[middle:]


def pytest_collection_finish() -> None:
    """What is loaded by now stays: it is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products gain nothing from a second thread, and wait for it where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Llama with a byte-level tokenizer: a model folder like a user's."""
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Model:

    return load_model(str(tiny_folder), dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def smollm() -> Model:

    return load_model("smollm2-135m", device="cpu")
