"""Log-probabilities after a prompt that is computed once are the model's own, or the model is refused at the start."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from elicit.models import load_model
from elicit.training.recipe import Recipe
from elicit.training.rl import loop, trial
from elicit.training.rl.policy import prefix_of
from elicit.training.rl.settings import Settings
from elicit.training.rl.trial import check_after_prompts
from elicit.training.sft import prepare, quick
from experiments.compatibility.census import small
from probes.batching import left_pad
from probes.clock import cache_argument
from probes.errors import UserError
from probes.sites import is_paused
from tests.support import tiny as tinies
from tests.support.tiny import ARCHITECTURES, save_tiny, tiny_model
from tests.support.toys import toy_task

# Each keeps its state elsewhere, and went through the forward of the prompts all the same.
IGNORING = ("mamba2", "rwkv", "recurrent_gemma")
# These ask the cache of keys and values for what it has not.
FAILING = ("qwen3_next", "jamba", "bamba", "granitemoehybrid", "falcon_h1", "lfm2_moe", "minimax", "mamba", "xlstm")
PADDED = ("bart", "pegasus")  # positions counted by the decoder itself


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ordinary_models_are_trained(architecture: str, rank: int, dtype: torch.dtype) -> None:
    lm = copy.deepcopy(tiny_model(architecture)).to(dtype)
    prepare(lm, Recipe(rank=rank))
    with quick(lm, Recipe(rank=rank)):
        for segment in (0, 1):
            check_after_prompts(lm, ragged=True, segment=segment)
    assert not is_paused(lm)


@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize("kind", [*IGNORING, *FAILING])
def test_a_state_that_is_not_keys_and_values_is_refused_in_one_line(kind: str, ragged: bool) -> None:
    lm = small(kind).eval()
    with quick(lm, Recipe()), pytest.raises(UserError, match=r"keeps a state that is not keys and values") as told:
        check_after_prompts(lm, ragged=ragged)
    assert str(told.value).startswith(type(lm).__name__) and str(told.value).endswith("use another base")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", PADDED)
def test_where_padding_alone_matters_prompts_of_one_length_are_trained(kind: str) -> None:
    lm = small(kind).eval()
    check_after_prompts(lm, ragged=False, segment=1)
    with pytest.raises(UserError, match=r"sees the padding .* examples whose prompts have one length"):
        check_after_prompts(lm, ragged=True)


@pytest.mark.parametrize("kind", ["mamba2", "bamba", "falcon_h1", "qwen3_next", "recurrent_gemma", "rwkv"])
def test_a_state_that_is_not_keys_and_values_is_refused(kind: str) -> None:
    lm = small(kind).eval()
    with pytest.raises(UserError, match=rf"^{type(lm).__name__} keeps a state that is not keys and values"):
        prefix_of(lm, left_pad([[5, 6, 7], [8, 9]]))


def test_a_cache_that_a_layer_left_empty_is_refused() -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    lm.model.layers[-1].register_forward_pre_hook(
        lambda _, given, named: (given, {**named, cache_argument(lm): None}), with_kwargs=True
    )
    with pytest.raises(UserError, match=r"^LlamaForCausalLM keeps a state"):
        prefix_of(lm, left_pad([[5, 6, 7], [8, 9]]))


def test_layers_that_share_the_keys_and_values_of_others_are_not_missed() -> None:
    lm = small("gemma3n_text").eval()
    assert 0 < len(prefix_of(lm, left_pad([[5, 6, 7], [8, 9]])).tensors) < 2 * lm.config.num_hidden_layers
    check_after_prompts(lm, ragged=True)


def test_no_memory_is_not_told_as_another_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(trial, "prefix_of", full)
    with pytest.raises(torch.OutOfMemoryError):
        check_after_prompts(tiny_model("llama"), ragged=True)


def test_a_training_is_refused_before_anything_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        tinies.ARCHITECTURES,
        "mamba2",
        dict(hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=1, chunk_size=16),
    )

    def sampled(*_: Any, **__: Any) -> Any:
        raise AssertionError("sampled")

    monkeypatch.setattr(loop._Run, "preflight", sampled)
    model = load_model(str(save_tiny(tmp_path / "model", "mamba2")), dtype="float32", device="cpu")
    for rank in (0, 2):
        settings = Settings(updates=1, rollouts=4, group=2, part=2, reward="random:0.5", rank=rank, max_new_tokens=4)
        with pytest.raises(UserError, match=r"^Mamba2ForCausalLM keeps a state that is not keys and values"):
            loop.train(model, toy_task().fit[:1], settings, tmp_path / str(rank))
    assert not hasattr(model.lm, "peft_config")
