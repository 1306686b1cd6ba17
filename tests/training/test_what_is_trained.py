"""What a text's loss does not reach stays as it is and out of states; a parameter that is reached late has a state of
its own; layers that PEFT refuses get no adapter."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from elicit.training import Example, Recipe
from elicit.training.checkpoint import load_state, read_state, write_state
from elicit.training.lora import REFUSED, REFUSING, load_adapter, lora_config, save_adapter
from elicit.training.sft import STATE, prepare, target_loss, train
from experiments.compatibility.census import small
from probes.sites import decoder
from steering.adapters import CONFIG, Adapter, applied, borrowed
from steering.storage import read_tensors
from tests.support.tiny import _COMMON, tiny_model

EXAMPLES = [Example([5, 6, 7], [4, 9, 3]), Example([8, 6, 7], [4, 9, 3])]


@cache
def seeing() -> PreTrainedModel:
    """A Gemma 3 with a tower of images, whose layers have names that the decoder's have too."""
    text = dict(_COMMON, sliding_window=6, query_pre_attn_scalar=8)
    vision = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=60, boi_token_index=61,
        eoi_token_index=62,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.Gemma3ForConditionalGeneration(config).float().eval()


def trained(lm: PreTrainedModel, recipe: Recipe, folder: Path, **more: Any) -> PreTrainedModel:
    train(lm, lambda step: EXAMPLES, recipe, folder, identity={}, save_every=1, **more)
    return lm


class Stop(Exception):
    pass


def stop_after(steps: int) -> Callable[..., None]:
    def on_step(step: int, loss: float, tokens_per_second: float) -> None:
        if step == steps:
            raise Stop

    return on_step


def weights(lm: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in lm.named_parameters()}


@pytest.mark.parametrize("rank", [0, 2])
def test_a_tower_of_images_is_not_trained_and_a_stopped_training_ends_at_the_same_bits(
    rank: int, tmp_path: Path
) -> None:
    recipe = Recipe(steps=3, rows=1, width=16, part=1, rank=rank, lr=1e-2)
    before = weights(seeing())
    whole = weights(trained(copy.deepcopy(seeing()), recipe, tmp_path / "whole"))
    changed = {name for name, p in whole.items() if name not in before or not torch.equal(p, before[name])}
    assert changed and all("language_model" in name or "lm_head" in name for name in changed)
    assert not any("lora_" in name and "language_model" not in name for name in whole)

    with pytest.raises(Stop):
        trained(copy.deepcopy(seeing()), recipe, tmp_path / "cut", on_step=stop_after(1))
    again = weights(trained(copy.deepcopy(seeing()), recipe, tmp_path / "cut"))
    assert again.keys() == whole.keys() and all(torch.equal(p, whole[name]) for name, p in again.items())


def test_an_adapter_of_the_decoder_alone_is_put_on_it_alone(tmp_path: Path) -> None:
    recipe = Recipe(steps=2, rows=1, width=16, part=1, rank=2, lr=1e-1, warmup=0)
    lm = copy.deepcopy(seeing())
    with borrowed(lm):
        trained(lm, recipe, tmp_path / "state")
        with torch.no_grad():
            expected = float(target_loss(lm, [EXAMPLES], 16))
        save_adapter(lm, recipe, tmp_path / "adapter", "base", torch.float32)
    adapter = Adapter(tmp_path / "adapter")
    with torch.no_grad():
        plain = float(target_loss(lm, [EXAMPLES], 16))
        with applied(lm, adapter):
            found = float(target_loss(lm, [EXAMPLES], 16))
    assert found == pytest.approx(expected, rel=1e-6) and abs(found - plain) > 0.1
    with borrowed(lm):
        load_adapter(prepare(lm, recipe), adapter)
    assert "vision" not in " ".join(adapter.tensors())


def test_an_ordinary_adapter_says_nothing_of_layers_that_are_left_out(tmp_path: Path) -> None:
    """Its configuration, and so its hash, is what it was."""
    lm = copy.deepcopy(tiny_model("llama"))
    recipe = Recipe(rank=2)
    prepare(lm, recipe)
    save_adapter(lm, recipe, tmp_path / "adapter", "base")
    assert json.loads((tmp_path / "adapter" / CONFIG).read_text())["exclude_modules"] is None


@pytest.mark.parametrize("kind", REFUSING)
def test_layers_that_peft_refuses_get_no_adapter(kind: str, tmp_path: Path) -> None:
    lm = small(kind).eval()
    recipe = Recipe(steps=1, rows=2, width=8, part=1, rank=2)
    refused = [name for name, _ in lm.named_modules() if name.endswith(f".{REFUSED}")]
    with borrowed(lm):
        trained(lm, recipe, tmp_path / "state")
        names = {name.split(".lora_")[0] for name, _ in lm.named_parameters() if "lora_" in name}
        assert refused and names and not names & set(refused)
        assert any(name.endswith(".in_proj") for name in names)
        save_adapter(lm, recipe, tmp_path / "adapter", "base")
    with applied(lm, Adapter(tmp_path / "adapter")):
        pass


def test_which_layers_are_refused_is_what_peft_says() -> None:
    """An entry that PEFT no longer refuses could be trained."""
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba as check

    for kind in REFUSING:
        lm: Any = torch.nn.Module()
        lm.config = type("Config", (), {"model_type": kind})
        with pytest.raises(ValueError, match="incompatible with Mamba"):
            check(lora_config(copy.deepcopy(tiny_model("llama")), Recipe()), lm, REFUSED)


class Late(torch.nn.Module):
    """`late` is reached from the third step on, `never` not at all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.often, self.late, self.never = (torch.nn.Parameter(torch.randn(3)) for _ in range(3))

    def loss(self, step: int) -> Tensor:
        return (self.often**2).sum() + ((self.late**4).sum() if step >= 2 else 0)


def late(state: Path, stops: Sequence[int]) -> Late:
    """Six steps, begun anew from a state before each of these."""
    made = Late()
    named = dict(made.named_parameters())
    optimiser = torch.optim.AdamW(named.values(), lr=0.1, foreach=True)
    for step in range(6):
        if step in stops:
            write_state(state, {"recipe": {}}, named, optimiser, step)
            kept = read_state(state, {"recipe": {}})
            assert kept is not None and kept[0] == step
            made = Late()
            named = dict(made.named_parameters())
            optimiser = torch.optim.AdamW(named.values(), lr=0.1, foreach=True)
            load_state(named, optimiser, kept[1], step)
        made.loss(step).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return made


def test_a_parameter_that_is_reached_late_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = weights(late(tmp_path / STATE, []))
    assert not torch.equal(whole["late"], Late().late) and torch.equal(whole["never"], Late().never)
    for stops in ([1], [3], [1, 2, 4]):
        again = weights(late(tmp_path / STATE, stops))
        assert all(torch.equal(p, whole[name]) for name, p in again.items())
    names = set(read_tensors(tmp_path / STATE))
    assert "exp_avg/late" in names and "weight/never" in names and "exp_avg/never" not in names


def test_a_state_without_the_steps_of_each_parameter_is_read() -> None:
    """Those that were written before parameters had their own."""
    p = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.AdamW([p])
    one = torch.ones(2)
    load_state({"a": p}, optimiser, {"weight/a": one, "exp_avg/a": one, "exp_avg_sq/a": one}, 7)
    assert float(optimiser.state[p]["step"]) == 7 and torch.equal(p.detach(), one)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "gpt_oss"])
def test_all_of_an_ordinary_model_is_trained(architecture: str) -> None:
    lm = copy.deepcopy(tiny_model(architecture))
    assert set(prepare(lm, Recipe(rank=0))) == {name for name, _ in lm.named_parameters()}
    assert decoder(lm) is not lm
