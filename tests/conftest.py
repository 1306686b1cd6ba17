"""Shared fixtures. Real weights are fetched once, by the same code and into the same cache as a user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from elicit.models import Model, load_model
from tests.tiny import save_tiny

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


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
