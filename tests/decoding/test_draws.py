"""What a policy draws from given logits: which branches open, at which temperature, and with whose numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from elicit.decoding.decoders import Branching, ModeGate, Sampling
from elicit.decoding.decoders.sampling import RngStream, rng_stream
from probes.confidence import top2
from probes.errors import UserError

LOGITS = torch.tensor([[0.5, 2.0, -1.0, 1.0, 0.0], [3.0, 0.0, 1.0, 3.0, -2.0]])


def test_branches_open_from_the_likeliest_token_on() -> None:
    opened = Branching(3).policy(["a", "b"], 5).first(LOGITS)
    assert opened.tolist() == [[1, 3, 0], [0, 3, 2]]  # of equal logits the lower id first
    assert torch.equal(opened[:, 0], top2(LOGITS).argmax)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_at_the_temperature(temperature: float) -> None:
    policy = Sampling(20_000, temperature).policy(["a"], 5)
    drawn = torch.bincount(policy.first(LOGITS[:1])[0], minlength=5) / 20_000
    wanted = torch.softmax(LOGITS[0] / temperature, 0)
    assert (drawn - wanted).abs().max() < 4.5 * (0.25 / 20_000) ** 0.5


def test_every_part_of_a_stream_s_name_changes_its_numbers() -> None:
    first = RngStream(0, "a")
    streams = [first, first._replace(seed=1), RngStream(0, "b"), first._replace(epoch=1), first._replace(choice=1)]
    drawn = np.stack([one.uniform(64) for one in streams])
    assert len({tuple(row) for row in drawn}) == len(streams) and ((drawn >= 0) & (drawn < 1)).all()
    apart = np.abs(np.corrcoef(drawn) - np.eye(len(streams)))
    assert apart.max() < 0.5  # that of independent rows of 64 is 0.13 on average
    assert np.array_equal(rng_stream(0, "a", 0, 64), drawn[0]) and np.array_equal(drawn[0][:8], streams[0].uniform(8))


def test_two_items_of_a_batch_draw_with_numbers_of_their_own() -> None:
    alike = LOGITS[:1].expand(2, -1)
    first, second = Sampling(50, 1.0).policy(["a", "b"], 5).first(alike)
    assert not torch.equal(first, second)
    again = Sampling(50, 1.0).policy(["b"], 5).first(alike[:1])[0]
    assert torch.equal(again, second)


@pytest.mark.parametrize(("top_p", "top_k", "min_p"), [(0.95, 20, 0.0), (0.6, 7, 0.1), (0.8, 0, 0.0), (1.0, 5, 0.05)])
def test_filters_leave_the_tokens_that_those_of_transformers_leave(top_p: float, top_k: int, min_p: float) -> None:
    logits = torch.randn(40, 64, generator=torch.Generator().manual_seed(0))
    theirs = LogitsProcessorList([TemperatureLogitsWarper(0.6), *([TopKLogitsWarper(top_k)] if top_k else [])])
    theirs += [TopPLogitsWarper(top_p), *([MinPLogitsWarper(min_p)] if min_p else [])]
    wanted = torch.softmax(theirs(torch.empty(0, dtype=torch.long), logits), -1).double()
    policy = Sampling(1, 0.6, top_p, top_k, min_p).policy(["a"], 64)
    numbers = torch.linspace(0, 0.999, 2000)
    for row, law in zip(logits, wanted, strict=True):
        drawn = policy.chosen(row.expand(2000, -1), numbers)  # type: ignore[attr-defined]
        share = torch.bincount(drawn, minlength=64) / 2000
        assert set(drawn.tolist()) <= set(law.nonzero()[:, 0].tolist())
        torch.testing.assert_close(share.double(), law, atol=2e-3, rtol=0)


def test_a_temperature_is_finite() -> None:
    for given in (0.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="give a value above 0"):
            Sampling(1, given)


def test_a_coin_is_tossed_anew_in_each_epoch() -> None:
    logits = torch.zeros(64, 8)
    streams = [RngStream(0, f"item {n}") for n in range(64)]
    tossed = [
        ModeGate(3, 4).policy([one._replace(epoch=epoch) for one in streams], 8).first(logits)[:, 0].tolist()
        for epoch in range(3)
    ]
    assert tossed[0] == ModeGate(3, 4).policy([one.sample for one in streams], 8).first(logits)[:, 0].tolist()
    assert tossed[0] != tossed[1] != tossed[2] != tossed[0]
