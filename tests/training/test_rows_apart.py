"""Examples of one row are computed apart, or get rows of their own: whatever the precision and what is trained."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from elicit.training import Example, Recipe
from elicit.training.sft import code_length, keeps_apart, prepare, quick, target_loss, train
from experiments.compatibility.census import small
from probes.sites import decoder
from tests.support.tiny import ARCHITECTURES, SEEING_PADDING, tiny_model

LEAKING = ("bloom", "gpt_oss", *SEEING_PADDING)  # their masks are not made from positions, or their states run on
EXAMPLES = [
    Example([5, 6, 7], [4, 9, 3, 8, 6, 5, 11]),
    Example([9, 8, 7, 6, 5, 4, 3, 7, 8], [7, 3]),
    Example([11, 3, 4, 5, 12], [6, 6, 9, 10, 3]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *SEEING_PADDING])
def test_it_is_found_in_the_way_that_trains(architecture: str, dtype: torch.dtype) -> None:
    for rank in (0, 2):
        lm = copy.deepcopy(tiny_model(architecture)).to(dtype)
        prepare(lm, Recipe(rank=rank))
        with quick(lm, Recipe(rank=rank)):
            assert keeps_apart(lm) == (architecture not in LEAKING)
        assert keeps_apart(lm) == (architecture not in LEAKING)


@torch.no_grad()
def heard(lm: PreTrainedModel) -> float:
    """What a neighbour changes of an example's states, over all its positions together."""
    first, second = torch.arange(8)[None] % 5 + 5, torch.arange(8)[None] % 3 + 5
    alone = decoder(lm)(input_ids=second, use_cache=False)[0].float()
    both = decoder(lm)(
        input_ids=torch.cat([first, second], 1), position_ids=torch.arange(8).repeat(2)[None], use_cache=False
    )[0]
    return float((both[:, 8:].float() - alone).norm() / alone.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_little_that_is_heard_is_too_much(dtype: torch.dtype) -> None:
    """A RecurrentGemma whose examples heard a twentieth of each other was packed."""
    lm = small("recurrent_gemma").eval().to(dtype)
    assert 0.02 < heard(lm) < 0.05
    assert not keeps_apart(lm)
    with quick(lm, Recipe(rank=2)):
        assert not keeps_apart(lm)


def test_a_recurrent_model_is_trained_on_the_losses_of_each_example_alone(tmp_path: Path) -> None:
    lm = small("recurrent_gemma").eval()
    recipe = Recipe(steps=1, rows=1, width=40, part=1, rank=2)
    with torch.no_grad():
        expected = sum(target_loss(lm, [[e]], e.tokens).item() for e in EXAMPLES) / sum(len(e.target) for e in EXAMPLES)
        packed = code_length(lm, EXAMPLES, recipe, True)
    assert packed != pytest.approx(code_length(lm, EXAMPLES, recipe, False), rel=1e-3)
    (point,) = train(lm, lambda step: EXAMPLES, recipe, tmp_path, identity={})
    assert point.loss == pytest.approx(expected, rel=1e-4)
