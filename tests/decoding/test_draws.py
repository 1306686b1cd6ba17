"""What a policy draws from given logits: which branches open, at which temperature, and with whose numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from elicit.decoding.decoders import Branching, Sampling
from elicit.decoding.decoders.sampling import RngStream, rng_stream
from probes.confidence import top2

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
