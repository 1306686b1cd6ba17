"""transformer-lens 3.9.0 installs torchvision, and another torch with it, where a model may be given images."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from transformers import AutoProcessor, Gemma3ForConditionalGeneration

from experiments.compatibility.census import small
from steering.backends.lens import TransformerLens
from tests.steering.test_backends import tokenizer


def test_nothing_is_installed_or_fetched_for_a_model_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "check_call", lambda command, *_, **__: started.append(command))
    own = AutoProcessor.from_pretrained
    lm = small("gemma3").eval()
    assert isinstance(lm, Gemma3ForConditionalGeneration)
    bridge = TransformerLens(lm, tokenizer()).bridge
    assert bridge.adapter.cfg.is_multimodal and bridge.processor is None
    assert not started and own == AutoProcessor.from_pretrained
