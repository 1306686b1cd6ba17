"""Training: loss and fused layers are held against plain ones, and what was interrupted ends at the same bits."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from elicit.decoding import packed_weights
from elicit.training import Example, Recipe, output_head, packed, sft, train
from elicit.training.lora import fused, merged
from elicit.training.recipe import Point
from elicit.training.sft import checkpointed, code_length, excess_bits, prepare, target_loss
from probes.errors import UserError
from steering.adapters import borrowed
from tests.support.tiny import ARCHITECTURES, VOCAB, tiny_model

EXAMPLES = [
    Example([5, 9, 3], [7, 7, 8]),
    Example([11], [12]),
    Example([7, 1, 2, 8, 40, 41, 42, 43], [44, 45, 46, 47, 48]),
    Example([3, 4], [20, 63, 21, 1, 0, 2]),
]
TARGETS = sum(len(e.target) for e in EXAMPLES)
ROWS = [[EXAMPLES[0], EXAMPLES[1], EXAMPLES[3]], [EXAMPLES[2], EXAMPLES[1]], []]
WIDTH = 20


def fresh(kind: str) -> PreTrainedModel:
    """A tiny model to be changed; "tied" has one matrix for embedding and output head."""
    lm = copy.deepcopy(tiny_model("llama" if kind == "tied" else kind))
    if kind == "tied":
        lm.lm_head.weight = lm.model.embed_tokens.weight
    return lm


def plain_loss(lm: PreTrainedModel, rows: list[list[Example]]) -> Tensor:
    """Each example alone, on the model's own logits."""
    losses = []
    for e in (e for row in rows for e in row):
        logits = lm(input_ids=torch.tensor([[*e.prompt, *e.target]]), use_cache=False).logits[0]
        chosen = logits[len(e.prompt) - 1 : -1]
        losses.append(nn.functional.cross_entropy(chosen, torch.tensor(e.target), reduction="sum"))
    return torch.stack(losses).sum()


def gradients(lm: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    lm.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}


def assert_near(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert expected.norm() > 0
    assert (found - expected).norm() <= relative * expected.norm()


@pytest.mark.parametrize("kind", ["llama", "tied", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("chunk", [4, 256])
def test_loss_and_gradients_are_those_of_the_models_own_logits(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_head, "CHUNK", chunk)
    lm = fresh(kind)
    expected_loss = plain_loss(lm, ROWS)
    expected = gradients(lm, expected_loss)
    loss = target_loss(lm, ROWS, WIDTH)
    assert_near(loss.detach(), expected_loss.detach())
    found = gradients(lm, loss)
    assert set(found) == set(expected) == {name for name, _ in lm.named_parameters()}
    for name, gradient in expected.items():
        if kind == "gpt_neox" and name.endswith("query_key_value.bias"):
            continue  # a key's bias moves every score alike: its gradient is rounding alone
        assert_near(found[name], gradient)


def test_a_scaled_loss_has_scaled_gradients() -> None:
    lm = fresh("gemma2")
    once = gradients(lm, target_loss(lm, ROWS, WIDTH))
    third = gradients(lm, target_loss(lm, ROWS, WIDTH) / 3)
    for name, gradient in once.items():
        assert_near(third[name] * 3, gradient)


LEAKING = ("bloom", "gpt_oss")  # their masks are not made from positions


@pytest.mark.parametrize("architecture", LEAKING)
def test_examples_that_would_see_their_neighbours_get_rows_of_their_own(architecture: str, tmp_path: Path) -> None:
    lm = fresh(architecture)
    with torch.no_grad():
        expected = sum(target_loss(lm, [[e]], e.tokens).item() for e in EXAMPLES) / TARGETS
    recipe = Recipe(steps=1, width=WIDTH, rank=2)
    (point,) = train(lm, lambda step: EXAMPLES, recipe, tmp_path, identity={})
    assert point.loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if a not in LEAKING])
def test_neither_padding_nor_neighbours_in_a_row_change_a_loss(architecture: str) -> None:
    lm = tiny_model(architecture)
    with torch.no_grad():
        alone = torch.stack([target_loss(lm, [[e]], e.tokens) for e in EXAMPLES])
        padded = torch.stack([target_loss(lm, [[e]], 2 * WIDTH) for e in EXAMPLES])
        in_rows = target_loss(lm, [[e] for e in EXAMPLES], WIDTH)
        in_one_row = target_loss(lm, [[], EXAMPLES], 2 * WIDTH)
        turned = target_loss(lm, [EXAMPLES[::-1]], 2 * WIDTH)
    assert alone.std() > 0.1
    assert padded.tolist() == pytest.approx(alone.tolist(), rel=1e-4)
    for together in (in_rows, in_one_row, turned):
        assert together.item() == pytest.approx(alone.sum().item(), rel=1e-4)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=40), st.integers(80, 300))
@settings(max_examples=100, deadline=None)
def test_rows_hold_every_example_once_and_no_more_than_their_width(sizes: list[tuple[int, int]], width: int) -> None:
    examples = [Example([n] * prompt, [n] * target) for n, (prompt, target) in enumerate(sizes)]
    made = packed(examples, width)
    assert sorted(e for row in made for e in row) == sorted(examples)
    filled = [sum(len(e.prompt) + len(e.target) for e in row) for row in made]
    assert all(0 < tokens <= width for tokens in filled)
    assert sum(2 * tokens <= width for tokens in filled) <= 1  # else two of them had been one


@pytest.mark.parametrize(("kind", "scale"), [("granite", {"logits_scaling": 8.0}), ("cohere", {"logit_scale": 0.25})])
def test_a_scaled_output_head_is_scaled_in_the_loss(kind: str, scale: dict[str, float]) -> None:
    arguments = {k: v for k, v in ARCHITECTURES["llama"].items() if k != "head_dim"}
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**arguments, **scale)).float().eval()
    with torch.no_grad():
        assert_near(target_loss(lm, ROWS, WIDTH), plain_loss(lm, ROWS))


def test_an_example_without_a_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="without a prompt"):
        packed([Example([], [1])], 8)


def test_an_example_longer_than_a_row_is_refused() -> None:
    assert packed([Example([1] * 5, [2] * 5)], 10) == [[Example([1] * 5, [2] * 5)]]
    with pytest.raises(UserError, match=r"^an example of 11 tokens was given and a row holds 10"):
        packed([Example([1], [2]), Example([1] * 6, [2] * 5)], 10)


class Sizes(TorchDispatchMode):
    """The shapes of all tensors that are made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[torch.Size] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(out):
            if isinstance(t, Tensor):
                self.shapes.add(t.shape)
        return out


def test_no_more_logits_exist_at_one_time_than_a_chunk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, vocabulary = 4, 4096
    monkeypatch.setattr(output_head, "CHUNK", chunk)
    config = CONFIG_MAPPING["llama"](**dict(ARCHITECTURES["llama"], vocab_size=vocabulary))
    lm = AutoModelForCausalLM.from_config(config).float()
    rows = [[Example([3] * 20, [4] * 9)], [Example([5] * 8, [6] * 7), Example([7] * 6, [8] * 6)]]
    weights = {p.shape for p in lm.parameters()} | {p.T.shape for p in lm.parameters() if p.ndim == 2}

    def largest(sizes: Sizes) -> int:
        return max(shape.numel() for shape in sizes.shapes - weights)

    with Sizes() as seen:
        target_loss(lm, rows, 32).backward()
    assert torch.Size([chunk, vocabulary]) in seen.shapes
    assert largest(seen) == chunk * vocabulary
    with Sizes() as plain:
        plain_loss(lm, rows)
    assert largest(plain) > chunk * vocabulary


def injected(lm: PreTrainedModel, dropout: float = 0.0) -> list[Any]:
    """PEFT's layers with an adapter that does something."""
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=3, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=dropout)
    inject_adapter_in_model(config, lm)
    for name, parameter in lm.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B" in name:
            nn.init.normal_(parameter, 0, 0.2)
    layers = lora_layers(lm)
    assert len(layers) == 4 * 7
    return layers


def lora_layers(lm: PreTrainedModel) -> list[Any]:
    from peft.tuners.lora import Linear

    return [m for m in lm.modules() if isinstance(m, Linear)]


def passed(layer: Any, x: Tensor, pull: Tensor) -> list[Tensor]:
    """Output, and the gradients of A, B and input."""
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = x.clone().requires_grad_()
    a.grad = b.grad = None
    out = layer(x)
    out.backward(pull)
    assert layer.base_layer.weight.grad is None
    return [t.detach().clone() for t in (out, a.grad, b.grad, x.grad)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # the second has biases
def test_fused_layers_are_pefts_own_inside_and_are_gone_outside(architecture: str) -> None:
    lm = fresh(architecture)
    torch.manual_seed(2)
    for layer in injected(lm):
        x, pull = torch.randn(2, 5, layer.in_features), torch.randn(2, 5, layer.out_features)
        own = passed(layer, x, pull)
        without = layer.base_layer(x)
        assert (own[0] - without).norm() > 0.01 * without.norm()
        with fused(lm):
            assert "forward" in vars(layer)
            quick = passed(layer, x, pull)
        for found, expected in zip(quick, own, strict=True):
            assert_near(found, expected, 1e-5)
        assert "forward" not in vars(layer)
        assert all(torch.equal(a, b) for a, b in zip(passed(layer, x, pull), own, strict=True))


def test_a_fused_model_has_the_loss_and_the_gradients_of_the_plain_one() -> None:
    lm = fresh("qwen2")
    injected(lm)
    expected_loss = target_loss(lm, ROWS, WIDTH)
    expected = gradients(lm, expected_loss)
    with fused(lm):
        loss = target_loss(lm, ROWS, WIDTH)
        found = gradients(lm, loss)
    assert_near(loss.detach(), expected_loss.detach())
    assert set(found) == set(expected) == {name for name, _ in lm.named_parameters() if "lora_" in name}
    for name, gradient in expected.items():
        assert_near(found[name], gradient)


def test_layers_with_dropout_or_switched_off_are_left_as_they_are() -> None:
    lm = fresh("llama")
    layers = injected(lm, dropout=0.5)
    with fused(lm):
        assert not any("forward" in vars(layer) for layer in layers)
    lm = fresh("llama")
    layers = injected(lm)
    layers[0].enable_adapters(False)
    layers[1].merge()
    with fused(lm):
        assert ["forward" in vars(layer) for layer in layers] == [False, False, *[True] * (len(layers) - 2)]


def test_fused_layers_are_gone_after_an_error() -> None:
    lm = fresh("llama")
    layers = injected(lm)
    with pytest.raises(KeyboardInterrupt), fused(lm):
        raise KeyboardInterrupt
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_merged_model_decodes_what_the_adapted_one_does_and_is_gone_afterwards(architecture: str) -> None:
    lm, ids = fresh(architecture), torch.arange(5, 13)[None]
    with torch.no_grad(), borrowed(lm) as kept:
        base = lm(input_ids=ids).logits
        layers = injected(lm)
        swaps = kept.brought()
        frozen = [layer.base_layer.weight.clone() for layer in layers]
        expected = lm(input_ids=ids).logits
        assert (expected - base).norm() > 0.01 * base.norm()
        with merged(swaps):
            assert not lora_layers(lm)
            assert_near(lm(input_ids=ids).logits, expected, 1e-5)
        assert lora_layers(lm) == layers
        assert torch.equal(lm(input_ids=ids).logits, expected)
        assert all(torch.equal(layer.base_layer.weight, w) for layer, w in zip(layers, frozen, strict=True))
        lora_b = layers[0].lora_B["default"].weight
        lora_b.mul_(3)  # an update: it is merged anew
        expected = lm(input_ids=ids).logits
        with merged(swaps):
            assert_near(lm(input_ids=ids).logits, expected, 1e-5)


def test_layers_are_not_merged_in_sixteen_bits_switched_off_or_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for low, off, room in ((True, False, True), (False, True, True), (False, False, False)):
        lm = fresh("llama").to(torch.bfloat16 if low else torch.float32)
        with borrowed(lm) as kept:
            layers = injected(lm)
            for layer in layers if off else ():
                layer.enable_adapters(False)
            monkeypatch.setattr(packed_weights, "MOST_BYTES", packed_weights.MOST_BYTES if room else 1)
            with merged(kept.brought()):
                assert lora_layers(lm) == layers


def drawn(step: int) -> list[Example]:
    rng = np.random.default_rng([3, step])
    return [
        Example(
            rng.integers(3, VOCAB, rng.integers(1, 9)).tolist(), rng.integers(3, VOCAB, rng.integers(1, 6)).tolist()
        )
        for _ in range(4)
    ]


def weights(lm: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in lm.named_parameters()}


def without_seconds(curve: list[Point]) -> list[tuple[int, float, float, int]]:
    return [(p.step, p.loss, p.norm, p.tokens) for p in curve]


def test_code_lengths_are_those_of_each_example_alone() -> None:
    lm = fresh("llama")
    recipe = Recipe(width=WIDTH, part=2)
    with torch.no_grad():
        slow = float(plain_loss(lm, [EXAMPLES])) / math.log(2)
    for together in (True, False):
        assert code_length(lm, EXAMPLES, recipe, together) == pytest.approx(slow, rel=1e-5)
    assert code_length(lm, [], recipe, True) == 0


def test_each_example_is_paid_for_before_it_is_first_trained_on_and_never_again(tmp_path: Path) -> None:
    """The prequential code beside its slow version: one training after another, each stopped before the step."""
    repeated = [[EXAMPLES[0], EXAMPLES[1]], [EXAMPLES[1], EXAMPLES[2]], [EXAMPLES[0]], [EXAMPLES[3], EXAMPLES[3]]]
    new = [[EXAMPLES[0], EXAMPLES[1]], [EXAMPLES[2]], [], [EXAMPLES[3]]]
    recipe = Recipe(steps=4, width=WIDTH, part=2, lr=1e-2, warmup=1, rank=2, seed=4)
    lm = fresh("llama")
    slow: list[float] = []

    def before(step: int) -> list[Example]:
        if step == len(slow) < len(new):
            with torch.no_grad():
                paid = plain_loss(lm, [new[step]]) if new[step] else torch.zeros(())
            slow.append(float(paid) / math.log(2))
        return repeated[step]

    curve = train(lm, before, recipe, tmp_path / "coded", identity={}, coded=True)
    assert [p.code for p in curve] == pytest.approx(slow, rel=1e-4) and curve[2].code == 0

    with torch.no_grad():
        final = float(plain_loss(lm, [EXAMPLES])) / math.log(2)
    found = excess_bits(lm, lambda step: repeated[step], recipe, curve)
    assert found == pytest.approx(sum(slow) - final, rel=1e-4) and found > 0

    plain = train(fresh("llama"), lambda step: repeated[step], recipe, tmp_path / "plain", identity={})
    assert without_seconds(plain) == without_seconds(curve)  # counting changes nothing
    assert excess_bits(lm, lambda step: repeated[step], recipe, plain) is None


def test_a_code_is_the_same_where_its_training_was_interrupted(tmp_path: Path) -> None:
    recipe = Recipe(steps=6, width=16, part=2, lr=1e-2, warmup=3, rank=2, seed=4)
    again = [drawn(n % 4) for n in range(6)]
    whole = train(fresh("llama"), lambda n: again[n], recipe, tmp_path / "whole", identity={}, coded=True)

    def stop(step: int, loss: float, rate: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(fresh("llama"), lambda n: again[n], recipe, folder, identity={}, coded=True, save_every=2, on_step=stop)
    resumed = train(fresh("llama"), lambda n: again[n], recipe, folder, identity={}, coded=True, save_every=2)
    assert [p.code for p in resumed] == [p.code for p in whole]
    assert whole[4].code == whole[5].code == 0 and all(p.code for p in whole[:4])


@pytest.mark.parametrize("rank", [2, 0])
def test_an_interrupted_training_ends_at_the_bits_of_one_that_was_not(rank: int, tmp_path: Path) -> None:
    recipe = Recipe(steps=12, width=16, part=2, lr=1e-2, warmup=3, rank=rank, weight_decay=0.1, seed=4)
    whole = fresh("llama")
    curve = train(whole, drawn, recipe, tmp_path / "whole", identity={"data": "drawn"}, save_every=4)
    assert [p.step for p in curve] == list(range(12)) and [p.tokens for p in curve] == [
        sum(len(e.prompt) + len(e.target) for e in drawn(n)) for n in range(12)
    ]

    def stop(step: int, loss: float, tokens_per_second: float) -> None:
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh("llama"), drawn, recipe, tmp_path / "cut", identity={"data": "drawn"}, save_every=4, on_step=stop)
    steps: list[int] = []

    def told(step: int, loss: float, tokens_per_second: float) -> None:
        steps.append(step)
        assert loss == curve[step].loss and tokens_per_second > 0

    again = fresh("llama")
    taken = train(again, drawn, recipe, tmp_path / "cut", identity={"data": "drawn"}, save_every=4, on_step=told)
    assert steps == list(range(4, 12))
    assert without_seconds(taken) == without_seconds(curve)
    start, one, other = weights(fresh("llama")), weights(whole), weights(again)
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(name in start and torch.equal(one[name], start[name]) for name in one)
    assert not again.training


@pytest.mark.parametrize("rank", [2, 0])
def test_dropout_in_a_configuration_has_no_part_in_a_training(rank: int, tmp_path: Path) -> None:
    """Whatever generators stand at: the same curve and weights, resumed and with layers computed again too."""
    recipe = Recipe(steps=4, width=16, part=2, lr=1e-2, rank=rank)
    assert fresh("gpt2").config.attn_pdrop == fresh("gpt2").config.resid_pdrop == 0.1
    curves, ends = [], []

    def stop(step: int, loss: float, rate: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    for n, name in enumerate(("one", "other", "cut", "again")):
        torch.manual_seed(n)
        how = replace(recipe, checkpointing=name == "again")
        if name == "cut":
            stopped = fresh("gpt2")
            with pytest.raises(KeyboardInterrupt):
                train(stopped, drawn, how, tmp_path / name, identity={}, save_every=2, on_step=stop)
            assert not any(module.training for module in stopped.modules())
        lm = fresh("gpt2")
        curves.append(train(lm, drawn, how, tmp_path / name, identity={}, save_every=2))
        ends.append(weights(lm))
        assert not any(module.training for module in lm.modules()) and lm.config.attn_pdrop == 0.1
    assert all(without_seconds(curve) == without_seconds(curves[0]) for curve in curves)
    assert all(torch.equal(end[name], ends[0][name]) for end in ends for name in end)
    with torch.no_grad():  # as the model that answers has it
        slow = float(plain_loss(fresh("gpt2"), [drawn(0)])) / sum(len(e.target) for e in drawn(0))
    assert curves[0][0].loss == pytest.approx(slow, rel=1e-4 if rank else 2e-2)


@pytest.mark.parametrize("rank", [2, 0])
def test_a_finished_training_is_resumed_without_a_step(rank: int, tmp_path: Path) -> None:
    recipe = Recipe(steps=3, width=16, part=3, lr=1e-2, rank=rank)
    first = fresh("llama")
    curve = train(first, drawn, recipe, tmp_path, identity={})
    again = fresh("llama")
    assert train(again, lambda step: [], recipe, tmp_path, identity={}) == curve
    one, other = weights(first), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("recipe", "identity", "named", "silent"),
    [
        (
            Recipe(steps=2, width=16, rank=2, lr=1e-3),
            {"data": "a", "base": "b"},
            ["another lr;"],
            ["data", "base", "recipe"],
        ),
        (Recipe(steps=2, width=16, rank=2), {"data": "c", "base": "b"}, ["data"], ["recipe", "base"]),
        (Recipe(steps=3, width=16, rank=2), {"data": "c", "base": "b"}, ["steps", "data"], ["base", "recipe"]),
        (Recipe(steps=2, width=16, rank=2), {"base": "b"}, ["data"], ["recipe", "base"]),
    ],
    ids=["recipe", "data", "both", "told less"],
)
def test_a_folder_with_another_training_is_refused_and_the_difference_named(
    recipe: Recipe, identity: dict[str, Any], named: list[str], silent: list[str], tmp_path: Path
) -> None:
    train(fresh("llama"), drawn, Recipe(steps=2, width=16, rank=2), tmp_path, identity={"data": "a", "base": "b"})
    kept = (tmp_path / sft.STATE).read_bytes()
    with pytest.raises(UserError) as told:
        train(fresh("llama"), drawn, recipe, tmp_path, identity=identity)
    message = str(told.value).replace(str(tmp_path), "FOLDER")
    assert all(word in message for word in ("FOLDER", *named)), message
    assert not any(word in message for word in silent) and "\n" not in message
    assert (tmp_path / sft.STATE).read_bytes() == kept


@pytest.mark.parametrize("rank", [2, 0])
def test_a_loss_that_is_not_finite_is_told_and_not_saved(rank: int, tmp_path: Path) -> None:
    recipe = Recipe(steps=8, width=16, lr=1e30, rank=rank, warmup=1)
    with pytest.raises(UserError, match=r"^step \d+: loss .*(nan|inf).* smaller learning rate than 1e\+30$"):
        train(fresh("llama"), drawn, recipe, tmp_path, identity={}, save_every=4)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["steps", "rows", "width", "part", "alpha", "lr", "clip", "rank", "warmup", "weight_decay"]
)
def test_a_recipe_with_a_value_out_of_range_is_refused(name: str) -> None:
    value: Any = type(getattr(Recipe(), name))(-1)
    with pytest.raises(UserError, match=f"^{name} = {value} was given"):
        Recipe(**{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["lr", "clip", "weight_decay"])
def test_a_recipe_with_a_value_that_is_not_finite_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"^{name} = {value} was given; give a finite number"):
        Recipe(**{name: value})


def test_the_rate_rises_then_falls_to_a_tenth() -> None:
    recipe = Recipe(steps=100, warmup=10, lr=2.0)
    rates = [recipe.rate(n) for n in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[9] == pytest.approx(2.0, rel=0.03)
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.2, rel=0.01)


def test_parts_of_a_step_are_one_step(tmp_path: Path) -> None:
    curves = {}
    for part in (1, 3, 10):
        recipe = Recipe(steps=6, width=16, part=part, lr=1e-2, rank=2)
        curves[part] = [
            (p.loss, p.norm) for p in train(fresh("llama"), drawn, recipe, tmp_path / str(part), identity={})
        ]
    assert len(packed(drawn(0), 16)) > 1
    assert np.array(curves[1]) == pytest.approx(np.array(curves[10]), rel=1e-3)
    assert np.array(curves[3]) == pytest.approx(np.array(curves[10]), rel=1e-3)


@pytest.mark.parametrize("rank", [0, 2])
def test_layers_that_are_computed_again_have_the_same_gradients(rank: int) -> None:
    found = []
    for again in (False, True):
        lm = fresh("llama")
        torch.manual_seed(0)
        trained = prepare(lm, Recipe(rank=rank))
        for parameter in trained.values():
            parameter.data.normal_(0, 0.1)
        lm.train()
        with checkpointed(lm) if again else nullcontext():
            found.append(gradients(lm, target_loss(lm, ROWS, WIDTH)))
    assert set(found[0]) == set(found[1]) == set(trained)
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())
    assert "checkpointing" not in Recipe().kept() and Recipe(checkpointing=True).kept()["checkpointing"]


def always_seven(step: int) -> list[Example]:
    rng = np.random.default_rng(step)
    return [Example(rng.integers(8, VOCAB, 4).tolist(), [7]) for _ in range(8)]


@pytest.mark.parametrize("rank", [2, 0])
def test_training_lowers_the_loss_and_the_model_itself_has_it(rank: int, tmp_path: Path) -> None:
    lm = fresh("llama")
    held_out = always_seven(1000)
    with torch.no_grad():
        before = plain_loss(lm, [held_out]).item() / len(held_out)
    curve = train(
        lm, always_seven, Recipe(steps=40, width=16, part=3, lr=1e-2, rank=rank, warmup=2), tmp_path, identity={}
    )
    with torch.no_grad():
        after = plain_loss(lm, [held_out]).item() / len(held_out)
    assert before > 2 and curve[0].loss > 2
    assert np.mean([p.loss for p in curve[-5:]]) < 0.2
    assert after < 0.2


@pytest.mark.processor
@pytest.mark.parametrize("rank", [2, 0])
def test_the_loss_of_a_step_is_that_of_the_weights_at_that_step(rank: int, tmp_path: Path) -> None:
    """Products are in bf16 where all weights are trained, so that the two agree to some percent."""
    seen: list[float] = []
    lm = fresh("llama")

    def batch(step: int) -> list[Example]:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            seen.append(plain_loss(lm, [EXAMPLES]).item() / TARGETS)
        return EXAMPLES

    curve = train(lm, batch, Recipe(steps=12, width=WIDTH, part=2, lr=1e-2, rank=rank, warmup=2), tmp_path, identity={})
    assert seen[-1] < 0.7 * seen[0]
    assert [p.loss for p in curve] == pytest.approx(seen, rel=0.05)


def test_frozen_weights_are_the_same_bits_after_lora(tmp_path: Path) -> None:
    start = weights(fresh("qwen2"))
    lm = fresh("qwen2")
    train(lm, drawn, Recipe(steps=4, width=16, part=3, lr=1e-2, rank=2), tmp_path, identity={})
    after = {name.replace(".base_layer", ""): p for name, p in weights(lm).items()}
    adapters = {name for name in after if "lora_" in name}
    assert set(after) - adapters == set(start)
    assert all(torch.equal(after[name], kept) for name, kept in start.items())
    assert all(after[name].abs().max() > 0 for name in adapters)  # B begins at nought
    assert not any("forward" in vars(m) for m in lm.modules())
