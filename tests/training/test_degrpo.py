"""DeGRPO's loss against ten slow lines, alone and through the loop; the control token's gradient knows no length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elicit.models import Model
from elicit.models.prompts import Prompt
from elicit.training.rl import losses
from elicit.training.rl.learner import learner
from elicit.training.rl.loop import _Run
from elicit.training.rl.rewards import parse
from elicit.training.rl.settings import Settings
from probes.errors import UserError
from tests.support.toys import toy_task, vowels

ALPHA, LOW, HIGH = 0.05, 0.2, 0.3


def slow(logprob: Sequence[Tensor], old: Sequence[Tensor], advantage: Sequence[float], alpha: float | None) -> Tensor:
    """The paper's: a sum over rollouts, token by token; without α GRPO's."""
    total = torch.zeros(())
    for new, before, a in zip(logprob, old, advantage, strict=True):
        each = []
        for t in range(len(new)):
            ratio = torch.exp(new[t] - before[t])
            each.append(-min(ratio * a, max(min(ratio, torch.tensor(1 + HIGH)), torch.tensor(1 - LOW)) * a))
        if alpha is None:
            total = total + sum(each) / len(each)
        else:
            total = total + alpha * each[0] + sum(each[1:]) / max(1, len(each) - 1)
    return total / len(logprob)


def ours(logprob: Tensor, old: Tensor, mask: Tensor, advantage: Tensor, how: str, alpha: float | None) -> Tensor:
    """As the loop has it."""
    scaled = advantage[:, None].expand_as(logprob)
    if alpha is not None:
        scaled = scaled * losses.relative_weights(mask, how, alpha)
    return (losses.surrogate(logprob, old, scaled, LOW, HIGH) * losses.token_weights(mask, how))[mask].sum()


def drawn(lengths: Sequence[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    logprob, moved = (torch.randn(mask.shape, generator=generator) for _ in range(2))
    return logprob, logprob + 0.3 * moved, mask, torch.randn(len(lengths), generator=generator)


@pytest.mark.parametrize("alpha", [None, 0.0, ALPHA, 1.0])
@pytest.mark.parametrize("lengths", [(5, 2, 7), (1, 4, 2), (3, 3, 3)])
def test_the_loss_is_that_of_ten_slow_lines(alpha: float | None, lengths: tuple[int, ...]) -> None:
    logprob, old, mask, advantage = drawn(lengths, 3)
    one, other = logprob.clone().requires_grad_(), logprob.clone().requires_grad_()
    fast = ours(one, old, mask, advantage, "sequence-mean", alpha)
    rows = [other[n, :length] for n, length in enumerate(lengths)]
    expected = slow(rows, [old[n, :length] for n, length in enumerate(lengths)], advantage.tolist(), alpha)
    fast.backward()
    expected.backward()
    torch.testing.assert_close(fast.detach(), expected.detach())
    assert one.grad is not None and other.grad is not None
    torch.testing.assert_close(one.grad, other.grad)


def test_the_authors_form_averages_over_the_batch() -> None:
    logprob, old, mask, advantage = drawn((5, 2, 7), 4)
    each = losses.surrogate(logprob, old, advantage[:, None].expand_as(mask), LOW, HIGH)
    answers = mask.clone()
    answers[:, 0] = False
    expected = ALPHA * each[:, 0].mean() + each[answers].mean()
    assert float(ours(logprob, old, mask, advantage, "token-mean", ALPHA)) == pytest.approx(float(expected), rel=1e-5)


def of_control(lengths: Sequence[int], how: str, alpha: float | None) -> list[float]:
    """The gradient of each rollout's first log-probability, all ratios 1 and all advantages 1."""
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    logprob = torch.zeros(mask.shape, requires_grad=True)
    ours(logprob, torch.zeros(mask.shape), mask, torch.ones(len(lengths)), how, alpha).backward()
    assert logprob.grad is not None
    return logprob.grad[:, 0].tolist()


@given(st.lists(st.integers(1, 40), min_size=2, max_size=6), st.sampled_from(sorted(losses.AGGREGATES)))
def test_what_the_control_token_learns_depends_on_no_length(lengths: list[int], how: str) -> None:
    expected = pytest.approx([-ALPHA / len(lengths)] * len(lengths), rel=1e-4)
    assert of_control(lengths, how, ALPHA) == expected
    if how == "sequence-mean":  # of GRPO a short answer's control token learns as many times faster as it is shorter
        assert of_control(lengths, how, None) == pytest.approx([-1 / n / len(lengths) for n in lengths], rel=1e-4)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0, 1))
def test_the_shares_of_control_and_answer(lengths: list[int], alpha: float) -> None:
    """Over all rollouts the control tokens weigh α in all, the answers 1."""
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    for how in ("token-mean", "sequence-mean"):
        weights = losses.token_weights(mask, how) * losses.relative_weights(mask, how, alpha)
        assert float(weights[:, 0].sum()) == pytest.approx(alpha, abs=1e-5)
        assert float(weights[:, 1:].sum()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_the_loop_steps_along_the_gradient_of_the_slow_loss(tiny: Model, tmp_path: Path, alpha: float | None) -> None:
    settings = Settings(
        updates=1, rollouts=8, group=4, part=4, reward="vowels", max_new_tokens=6, rank=2, kl=0.0, entropy=0.0,
        aggregate="sequence-mean", control_weight=alpha, grad_clip=1e9, seed=1, clip_low=LOW, clip_high=HIGH,
    )  # fmt: skip
    items, prompt = toy_task().fit[:2], Prompt()
    with learner(tiny, settings.recipe) as student:
        run = _Run(student, items, settings, prompt, parse("vowels", {"vowels": vowels}))
        buffer = run.roll_out(0)
        before = {name: p.detach().clone() for name, p in student.trained.items()}
        rows = []
        for record in buffer.records:
            asked = prompt.ids(items[record["question"]].question, tiny.tokenizer)
            ids = torch.tensor([[*asked, *record["tokens"]]])
            logp = torch.log_softmax(student.lm(input_ids=ids).logits[0, len(asked) - 1 : -1].float(), -1)
            rows.append(logp.gather(1, ids[0, len(asked) :, None])[:, 0])
        assert any(record["advantage"] for record in buffer.records)
        slow(rows, [row.detach() for row in rows], buffer.advantage.tolist(), alpha).backward()
        expected = {name: p.grad.clone() for name, p in student.trained.items() if p.grad is not None}
        optimiser = torch.optim.SGD(student.trained.values(), lr=1.0)
        optimiser.zero_grad()
        run.step(buffer, optimiser, 0)
        largest = max(float(g.abs().max()) for g in expected.values())
        for name, p in student.trained.items():
            torch.testing.assert_close(before[name] - p.detach(), expected[name], atol=1e-4 * largest, rtol=1e-3)


def test_settings_keep_it_where_it_says_something() -> None:
    assert "control_weight" not in Settings().kept()
    assert Settings(control_weight=0.5).kept()["control_weight"] == 0.5
    assert Settings(**replace(Settings(), control_weight=0.5).kept()).control_weight == 0.5
    for value in (-1.0, float("nan")):
        with pytest.raises(UserError, match="control_weight = "):
            Settings(control_weight=value)
