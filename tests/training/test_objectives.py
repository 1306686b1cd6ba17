"""Several objectives together, and preference: losses and gradients against ten slow lines in float64; resumed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elicit.training import Example, Recipe
from elicit.training.objectives import Preference, as_many_tokens, in_turn, joint, log_probabilities
from elicit.training.sft import Backward, batches, key, train
from probes.errors import UserError
from steering.adapters import borrowed
from tests.support.tiny import tiny_model

ROWS = [
    [Example([5, 9, 3], [7, 7, 8]), Example([5, 9, 4], [12]), Example([11], [13, 14, 15, 16])],
    [Example([7, 1], [44, 45]), Example([7, 2], [46, 47, 48]), Example([40, 41, 42], [20, 63])],
]
PAIRS = [row[:2] for row in ROWS] + [[ROWS[0][2], ROWS[1][2]]]
RECIPE = Recipe(steps=1, rows=6, width=12, part=2)


def moved(architecture: str) -> Any:
    """A model beside the tiny one, whose log-probabilities are others."""
    lm = copy.deepcopy(tiny_model(architecture))
    torch.manual_seed(3)
    with torch.no_grad():
        for p in lm.parameters():
            p += 0.05 * torch.randn_like(p)
    return lm


def nats(lm: Any, e: Example) -> Tensor:
    """log π(target | prompt) of each token, in the model's precision."""
    scores = lm(input_ids=torch.tensor([[*e.prompt, *e.target]]), use_cache=False).logits[0].log_softmax(-1)
    return scores[len(e.prompt) - 1 : -1].gather(1, torch.tensor(e.target)[:, None])[:, 0]


def gradients(lm: Any, made: Callable[[], None]) -> dict[str, Tensor]:
    lm.zero_grad()
    made()
    return {name: p.grad.double() for name, p in lm.named_parameters() if p.grad is not None}


def assert_same(lm: Any, backward: Backward, examples: Sequence[Example], slow: Callable[[Any], Tensor]) -> None:
    losses: list[float] = []
    exact = copy.deepcopy(lm).double()

    def quickly() -> None:
        losses.append(backward(lm, examples, RECIPE, True))

    def slowly() -> None:
        loss = slow(exact)
        loss.backward()
        losses.append(loss.item())

    found, expected = gradients(lm, quickly), gradients(exact, slowly)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 2e-4 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen3"])
def test_joint_is_the_mean_of_the_cross_entropies_of_each_objective(architecture: str) -> None:
    def slow(lm: Any) -> Tensor:
        each = [torch.cat([-nats(lm, row[n]) for row in ROWS]).mean() for n in range(3)]
        return torch.stack(each).sum() / 3

    assert_same(copy.deepcopy(tiny_model(architecture)), joint(3), [e for row in ROWS for e in row], slow)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_preference_is_equation_7(architecture: str, beta: float) -> None:
    base, lm = copy.deepcopy(tiny_model(architecture)), moved(architecture)
    examples = [e for pair in PAIRS for e in pair]
    exact_base = copy.deepcopy(base).double()

    def slow(exact: Any) -> Tensor:
        losses = []
        for chosen, rejected in PAIRS:
            gain = nats(exact, chosen).sum() - nats(exact_base, chosen).sum().detach()
            lost = nats(exact, rejected).sum() - nats(exact_base, rejected).sum().detach()
            losses.append(-torch.log(torch.sigmoid(beta * (gain - lost))))
        return torch.stack(losses).mean()

    assert_same(lm, Preference.on(beta, examples, RECIPE)(base), examples, slow)


def test_exchanged_labels_alone_change_the_sign() -> None:
    """The margin of exchanged pairs is the same, with the other sign."""
    base, lm = copy.deepcopy(tiny_model("llama")), moved("llama")
    examples = [e for pair in PAIRS for e in pair]
    loss = Preference.on(1.0, examples, RECIPE)(base)
    for chosen, rejected in PAIRS:
        straight = loss(lm, [chosen, rejected], RECIPE, True)
        turned = loss(lm, [rejected, chosen], RECIPE, True)
        assert math.exp(-straight) + math.exp(-turned) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])  # the second has dropout in its configuration
def test_the_reference_is_the_base_and_a_training_begins_at_log_2(architecture: str, tmp_path: Path) -> None:
    lm = copy.deepcopy(tiny_model(architecture))
    examples = [e for pair in PAIRS for e in pair]
    recipe = Recipe(steps=14, rows=4, width=12, part=2, rank=2, lr=1e-2, warmup=1)
    batch = in_turn(PAIRS, 2, 0)
    curves: list[list[float]] = []
    weights: list[dict[str, Tensor]] = []
    runs: list[tuple[str, int | None]] = [("whole", None), ("halved", 12), ("halved", None)]
    for folder, stop in runs:
        with borrowed(lm):
            loss = Preference.on(0.5, examples, recipe)(lm)

            def on_step(step: int, value: float, speed: float, stop: int | None = stop) -> None:
                if step == stop:
                    raise KeyboardInterrupt

            try:
                curve = train(lm, batch, recipe, tmp_path / folder, identity={}, backward=loss, on_step=on_step)
            except KeyboardInterrupt:
                continue
            curves.append([point.loss for point in curve])
            weights.append({n: p.detach().clone() for n, p in lm.named_parameters() if "lora_" in n})
    assert curves[0][0] == pytest.approx(math.log(2), abs=1e-5) and curves[0][-1] < 0.6
    assert curves[0] == curves[1] and all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_log_probabilities_are_of_each_target() -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    found = log_probabilities(lm, [e for row in ROWS for e in row], RECIPE)
    assert len(found) == 6
    for row in ROWS:
        for e in row:
            assert found[key(e)] == pytest.approx(nats(lm, e).sum().item(), rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_a_beta_that_is_none_is_refused(beta: float) -> None:
    with pytest.raises(UserError, match="beta = "):
        Preference(beta, {})


def test_groups_are_drawn_without_repetition_and_tokens_are_matched() -> None:
    batch = in_turn(ROWS, 1, 5)
    for epoch in range(3):
        assert sorted(batch(2 * epoch) + batch(2 * epoch + 1)) == sorted(ROWS[0] + ROWS[1])
    some = [row[0] for row in ROWS]
    other = as_many_tokens(some, batch, 5)
    longest = max(e.tokens for e in some)
    for step in range(6):
        assert other(step) == other(step) and set(map(key, other(step))) <= set(map(key, some))
        assert abs(sum(e.tokens for e in other(step)) - sum(e.tokens for e in batch(step))) <= longest / 2


def test_an_answer_that_no_row_can_hold_is_refused_in_one_line(tmp_path: Path) -> None:
    lm = copy.deepcopy(tiny_model("llama"))
    pair = [Example([5, 6, 7], [4, 9, 3] * 4), Example([8, 6, 7], [4, 9, 3])]
    words = r"^an example of 15 tokens was given and a row holds 12; give a larger width$"
    with pytest.raises(UserError, match=words):
        log_probabilities(lm, pair, RECIPE)
    with pytest.raises(UserError, match=words):
        Preference(0.1, {key(e): 0.0 for e in pair})(lm, pair, RECIPE, True)
    with pytest.raises(UserError, match="without a prompt"):
        log_probabilities(lm, [Example([], [4])], RECIPE)


def test_to_draw_from_nothing_is_refused() -> None:
    """It would never come to an end."""
    for draw in (
        lambda: batches([], 2, 16, 0),
        lambda: in_turn([], 2, 0),
        lambda: as_many_tokens([], in_turn(PAIRS, 2, 0), 0),
    ):
        with pytest.raises(UserError, match="no example to train on was given"):
            draw()
