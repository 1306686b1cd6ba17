"""Fewer passes over memory: gradients are held against those of the plain operations, and what is odd is left alone."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from elicit.training import Recipe, few_passes
from elicit.training.few_passes import ATTENTION, ROTATION, _seen
from elicit.training.output_head import summed_cross_entropy
from elicit.training.rl.policy import Batch, hidden_states, pieces, prefix_of
from elicit.training.sft import before_targets, checkpointed, prepare, target_loss
from experiments.compatibility import census
from probes.batching import left_pad
from tests.support.tiny import ARCHITECTURES, tiny_model
from tests.training.test_training import ROWS, WIDTH, assert_near, gradients

PLAIN = ("llama", "qwen2", "qwen3", "mistral")
LEAKING = ("bloom", "gpt_oss")


def adapted(architecture: str) -> PreTrainedModel:
    """With an adapter that says something."""
    lm = copy.deepcopy(tiny_model(architecture))
    prepare(lm, Recipe(rank=2))
    torch.manual_seed(1)
    for name, p in lm.named_parameters():
        if "lora_" in name:
            nn.init.normal_(p, std=0.05)
    lm.set_attn_implementation("eager")
    return lm


def home(lm: PreTrainedModel) -> ModuleType:
    return sys.modules[type(lm).__module__]


@contextmanager
def small(monkeypatch: pytest.MonkeyPatch, tile: int, block: int) -> Iterator[None]:
    monkeypatch.setattr(few_passes, "TILE", tile)
    monkeypatch.setattr(few_passes, "BLOCK", block)
    yield


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a not in LEAKING])
def test_losses_and_gradients_are_those_of_plain_operations(
    architecture: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = adapted(architecture)
    expected_loss = target_loss(lm, ROWS, WIDTH)
    expected = gradients(lm, expected_loss)
    with small(monkeypatch, 100, 3), few_passes.few_passes(lm), checkpointed(lm) if checkpointing else nullcontext():
        loss = target_loss(lm, ROWS, WIDTH)
        found = gradients(lm, loss)
    assert_near(loss.detach(), expected_loss.detach(), 1e-5)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert_near(found[name], gradient, 1e-5)


@pytest.mark.parametrize("architecture", PLAIN)
def test_rollouts_have_the_gradients_of_plain_operations(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of two lengths, so that some positions see nothing, in one piece and in segments."""
    lm = adapted(architecture)
    prompts = left_pad([[5, 6, 7, 8, 9], [11, 12]], lm.device)
    said = [[20, 21, 22, 23, 24, 25, 26], [30, 31], [40, 41, 42, 43, 44]]
    batch = Batch.of(prompts, [0, 1, 1], said, 7)
    target = batch.tokens[batch.mask]

    def whole() -> dict[str, Tensor]:
        return gradients(lm, summed_cross_entropy(lm, hidden_states(lm, prefix_of(lm, prompts), batch), target))

    def segments() -> dict[str, Tensor]:
        lm.zero_grad()
        prefix = prefix_of(lm, prompts)
        leaves = prefix.leaves()
        for piece in pieces(lm, leaves, batch, 3):
            some = batch.tokens[:, piece.columns][batch.mask[:, piece.columns]]
            piece.backward(summed_cross_entropy(lm, piece.hidden, some))
        prefix.backward(leaves)
        return {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}

    expected = whole()
    with small(monkeypatch, 100, 2), few_passes.few_passes(lm):
        for made in (whole(), segments()):
            assert set(made) == set(expected)
            for name, gradient in expected.items():
                assert_near(made[name], gradient, 1e-5)


def test_bfloat16_is_as_near_to_float32_as_plain_operations_are() -> None:
    lm = adapted("llama")
    exact = gradients(lm, target_loss(lm, ROWS, WIDTH))
    low = copy.deepcopy(lm).to(torch.bfloat16)
    for name, p in low.named_parameters():
        if "lora_" in name:
            p.data = p.data.float()

    def off(found: dict[str, Tensor]) -> float:
        return float(sum((found[n] - g).norm() ** 2 for n, g in exact.items()) ** 0.5)

    plain = off(gradients(low, target_loss(low, ROWS, WIDTH)))
    with few_passes.few_passes(low):
        assert off(gradients(low, target_loss(low, ROWS, WIDTH))) < 1.2 * plain


@pytest.mark.parametrize("architecture", PLAIN)
def test_all_four_pieces_are_there_inside_and_gone_outside(architecture: str) -> None:
    lm = adapted(architecture)
    before = {name: vars(home(lm))[name] for name in (ATTENTION, ROTATION)}
    changed = [m for m in lm.modules() if type(m).__name__.endswith(("RMSNorm", "MLP"))]
    with few_passes.few_passes(lm):
        assert len(changed) > 8 and all("forward" in vars(m) for m in changed)
        assert all(vars(home(lm))[name] is not own for name, own in before.items())
    assert not any("forward" in vars(m) for m in lm.modules())
    with pytest.raises(KeyboardInterrupt), few_passes.few_passes(lm):
        raise KeyboardInterrupt
    assert not any("forward" in vars(m) for m in lm.modules())
    assert all(vars(home(lm))[name] is own for name, own in before.items())


@pytest.mark.parametrize("architecture", ["gemma2", "gpt_oss"])  # a soft cap, and sinks
def test_attention_that_does_more_is_left_as_it_is(architecture: str) -> None:
    lm = tiny_model(architecture)
    own = vars(home(lm))[ATTENTION]
    with few_passes.few_passes(lm):
        assert vars(home(lm))[ATTENTION] is own


def test_a_norm_whose_gradient_is_another_is_left_as_it_is() -> None:
    lm = adapted("llama")
    norm = lm.model.norm

    class OddRMSNorm(type(norm)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x) + 0.1 * x
            return out

    odd = OddRMSNorm(len(norm.weight))
    lm.model.norm = odd
    with few_passes.few_passes(lm):
        assert "forward" not in vars(odd)
        assert "forward" in vars(lm.model.layers[0].input_layernorm)


def test_frozen_norms_alone_are_changed() -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    lm.set_attn_implementation("eager")
    expected = gradients(lm, target_loss(lm, ROWS, WIDTH))
    assert "model.norm.weight" in expected
    with few_passes.few_passes(lm):
        found = gradients(lm, target_loss(lm, ROWS, WIDTH))
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        assert_near(found[name], gradient, 1e-5)


def test_examples_of_a_row_are_attended_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks see the keys of their own examples, in whole blocks of keys."""
    monkeypatch.setattr(few_passes, "BLOCK", 4)
    place = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]])
    example = (place == 0).cumsum(1)
    sees = (example[:, :, None] == example[:, None]) & (place[:, :, None] >= place[:, None])
    mask = torch.zeros(1, 1, 12, 12).masked_fill(~sees[:, None], torch.finfo(torch.float32).min)
    assert [(one.queries, one.keys) for one in _seen(mask, 1)] == [
        (slice(0, 4), slice(0, 4)),
        (slice(4, 8), slice(0, 8)),
        (slice(8, 12), slice(8, 12)),
    ]
    assert [one.row for one in _seen(mask, 2)] == [0, 0, 0, 1, 1, 1]
    mask[:, :, 9] = torch.finfo(torch.float32).min  # sees nothing
    assert _seen(mask, 1)[2].keys == slice(0, 12)


def test_no_more_is_kept_for_the_gradient_than_by_plain_operations() -> None:
    lm = adapted("llama")

    def kept() -> int:
        seen: dict[int, int] = {}

        def pack(t: Tensor) -> Tensor:
            seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            before_targets(lm, ROWS, WIDTH)[0].sum().backward()
        return sum(seen.values())

    plain = kept()
    with few_passes.few_passes(lm):
        assert kept() < 0.9 * plain


def test_a_rotation_that_is_called_in_another_form_is_left_to_the_model() -> None:
    """Of queries alone, by name, as Qwen 4's index does."""
    asked: list[Any] = []

    def own(q: Tensor, k: Tensor | None = None, cos: Any = None, sin: Any = None, unsqueeze_dim: int = 1) -> Any:
        asked.append((k is None, unsqueeze_dim))
        return q if k is None else (q, k)

    q, angle = torch.randn(1, 2, 3, 8, requires_grad=True), torch.randn(1, 3, 8)
    assert few_passes._rotation(own, q, cos=angle, sin=angle, unsqueeze_dim=2) is q
    assert few_passes._rotation(own, q, q, cos=angle, sin=angle) == (q, q)
    assert few_passes._rotation(own, q, q, angle, angle, 2) == (q, q)
    assert asked == [(True, 2), (False, 1), (False, 2)]


def test_a_model_that_rotates_queries_alone_is_computed() -> None:
    lm = census.small("qwen4_exp_text").eval()
    lm.set_attn_implementation("eager")
    with torch.no_grad():
        expected = before_targets(lm, ROWS, WIDTH)[0]
        with few_passes.few_passes(lm):
            assert_near(before_targets(lm, ROWS, WIDTH)[0], expected, 1e-5)
