"""What a forward computes is told alike whatever the cache keeps: all keys, those of a window, or room for more."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from probes.batching import left_pad
from probes.capture import capture, recording
from probes.sites import Site
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, When
from tests.support.tiny import tiny_model

PROMPTS = [[5, 6, 7], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]]
STEPS = 6
GENERATE: dict[str, Any] = dict(max_new_tokens=STEPS, do_sample=False, eos_token_id=None, pad_token_id=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3", "gpt2"])
def test_a_static_cache_is_steered_as_a_growing_one(architecture: str, attention: str) -> None:
    """`generate` hands the decoder masks of its own there, with keys that are to come, and of a window where all layers
    have one."""
    lm = copy.deepcopy(tiny_model(architecture))
    lm.set_attn_implementation(attention)
    direction = Direction(3 * torch.randn(32, generator=torch.Generator().manual_seed(3)), Site(1))
    for prompts in (PROMPTS, PROMPTS[1:]):
        ids, mask, _ = left_pad(prompts)
        for when in (When.everywhere(), When.prompt(0), When.last_prompt_token(), When.steps(3)):
            found = []
            for kept in ({}, {"cache_implementation": "static"}):
                with attached(lm, [(Intervention(Add(direction), when=when),)]) as session:
                    out = lm.generate(ids, attention_mask=mask.long(), **GENERATE, **kept)
                found.append((out.tolist(), session.editor.delivery().positions))
            assert found[0] == found[1], (prompts, when)


@pytest.mark.parametrize("kept", [{}, {"cache_implementation": "static"}], ids=["growing", "static"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "gemma3"])
def test_patterns_of_cached_steps_are_those_of_whole_texts(architecture: str, kept: dict[str, Any]) -> None:
    """Of a padded row in a window too, which is shorter than the text, and than the padding."""
    lm = tiny_model(architecture)
    sites = [Site(0, "pattern"), Site(3, "pattern")]
    ids, mask, _ = left_pad([*PROMPTS, [9, 8, 7, 6, 5, 4, 3, 2]])
    with recording(lm, sites) as recorder:
        out = lm.generate(ids, attention_mask=mask.long(), **GENERATE, **kept)  # type: ignore[operator]
    found = recorder.activations().patterns
    lengths = mask.sum(1).tolist()
    texts = [row[-n - STEPS :] for row, n in zip(out.tolist(), lengths, strict=True)]
    whole = capture(lm, texts, sites, lengths=lengths)
    assert whole is not None
    for site in sites:
        assert len(found[site]) == sum(lengths) + 3 * (STEPS - 1)
        for key, weights in found[site].items():
            torch.testing.assert_close(weights, whole.patterns[site][key], rtol=1e-4, atol=1e-5)
