"""Code lengths against slow versions and enumerations."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.description import (
    NOT_REACHED,
    REACHED,
    UNDECIDED,
    Part,
    bits_to_reach,
    excess,
    number,
    one_of,
    quantised,
    reward_bits,
    total,
    whole_number,
)
from probes.errors import UserError


def test_a_choice_costs_the_length_of_its_number_in_binary() -> None:
    assert [one_of(2**n) for n in range(6)] == pytest.approx(range(6))
    assert sum(2 ** -one_of(7) for _ in range(7)) == pytest.approx(1)
    with pytest.raises(UserError, match="among 0"):
        one_of(0)


def test_whole_numbers_cost_rissanens_code() -> None:
    """Worked by hand for 10: log₂ 2.865 + log₂ 10 + log₂ log₂ 10 + log₂ of that; the lengths are those of a code."""
    by_hand = math.log2(2.865064) + 3.321928 + 1.732021 + 0.792456
    assert whole_number(10) == pytest.approx(by_hand, abs=1e-4)
    assert whole_number(1) == pytest.approx(math.log2(2.865064))
    lengths = [2 ** -whole_number(n) for n in range(1, 200_000)]
    assert 0.6 < sum(lengths) < 1  # Kraft: what is left belongs to larger numbers
    with pytest.raises(UserError, match="1 or more"):
        whole_number(0)


def test_numbers_that_are_written_alike_cost_alike_and_none_more_than_single_precision() -> None:
    assert number(4.0) == number(-4.0) == 1 + whole_number(5) + whole_number(1)
    assert number(0.25) == 1 + whole_number(26) + whole_number(4)
    assert number(2.0) < number(2.5) < number(math.pi) == 32
    with pytest.raises(UserError, match="finite"):
        number(float("nan"))


def test_the_prequential_code_of_a_coin_is_its_slow_version_and_the_excess_what_was_learned() -> None:
    """Laplace's rule pays log₂ of (n + 1) times the binomial; the final model pays what it says of each flip."""
    flips = [1, 0, 1, 1, 1, 0, 1, 1]
    paid, ones = [], 0
    for n, flip in enumerate(flips):
        p = (ones + 1) / (n + 2)
        paid.append(-math.log2(p if flip else 1 - p))
        ones += flip
    assert math.fsum(paid) == pytest.approx(math.log2(9 * math.comb(8, 6)))
    final = 7 / 10
    after = -sum(math.log2(final if flip else 1 - final) for flip in flips)
    assert excess(paid, after) == pytest.approx(math.log2(9 * math.comb(8, 6)) - after)
    assert excess(paid, after) > 0


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=12))
def test_rewards_cost_at_most_a_bit_a_rollout_and_nothing_where_all_agree(rewards: list[float]) -> None:
    bits = reward_bits([rewards])
    assert 0 <= bits <= len(rewards) + 1e-9
    assert (bits == 0) == (len(set(rewards)) == 1)
    # Among all sequences with as many right ones there are at most 2 to the bits of them, and nearly as many.
    right = int(sum(rewards))
    ways = sum(sum(one) == right for one in product([0, 1], repeat=len(rewards)))
    assert math.log2(ways) <= bits + 1e-9 <= math.log2(ways) + math.log2(len(rewards) + 1) + 1e-9
    assert reward_bits([rewards, rewards]) == pytest.approx(2 * bits)


def test_a_quantised_vector_keeps_its_length_and_comes_nearer_with_each_bit() -> None:
    vector = np.random.default_rng(0).normal(size=500)
    near = [float(quantised(vector, bits) @ vector / (vector @ vector)) for bits in (1, 2, 4, 8, 12)]
    assert near == sorted(near) and near[0] == pytest.approx(math.sqrt(2 / math.pi), abs=0.03) and near[-1] > 0.9999
    for bits in (1, 3):
        found = quantised(vector, bits)
        assert len(set(np.round(found, 9))) <= 2**bits
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(vector))
    with pytest.raises(UserError, match="0 bits"):
        quantised(vector, 0)


def test_what_is_not_known_of_a_part_is_not_known_of_the_whole() -> None:
    assert total([Part("a", 2.0), Part("b", 3.5)]) == 5.5
    assert total([]) == 0
    assert total([Part("a", 2.0), Part("b", None)]) is None


def test_a_level_is_reached_by_intervals_and_else_undecided() -> None:
    bits, right = [0.0, 10.0, 20.0, 40.0], [3, 10, 18, 30]
    found = bits_to_reach(bits, right, 32, 0.5)
    assert found.verdict == REACHED and (found.least, found.bits, found.most) == (20.0, 20.0, 40.0)
    assert bits_to_reach(bits[:3], right[:3], 32, 0.5) == (UNDECIDED, 20.0, 20.0, None)
    assert bits_to_reach(bits[:1], right[:1], 32, 0.5) == (NOT_REACHED, None, None, None)
    shuffled = bits_to_reach(bits[::-1], right[::-1], 32, 0.5)
    assert shuffled == found
    with pytest.raises(UserError, match="as many of each"):
        bits_to_reach(bits, right[:2], 32, 0.5)
