"""Scores that rank features: against sums done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from probes.errors import UserError
from probes.sae import SAE
from probes.sae.scores import Scores, both, contrast, firing, reason_score, word_windows
from probes.sites import Site


def identity(width: int = 4) -> SAE:
    """Feature f reads coordinate f."""
    eye = torch.eye(width)
    return SAE(eye, torch.zeros(width), eye, torch.zeros(width), Site(0), name="identity")


def test_contrast_is_the_difference_of_means() -> None:
    positive = torch.tensor([[1.0, 0, 0, 2], [3, 0, -5, 2]])
    negative = torch.tensor([[0.0, 1, 0, 2]])
    found = contrast(identity(), positive, negative)
    assert found.values.tolist() == [2.0, -1.0, 0.0, 0.0]
    assert found.top(3) == [0]


def test_a_contrast_without_a_difference_is_refused() -> None:
    same = torch.ones(3, 4)
    with pytest.raises(UserError, match="no feature of 'identity' fires more"):
        contrast(identity(), same, same)


def test_a_contrast_that_is_rounding_is_refused() -> None:
    acts = torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
    shuffled = acts[torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert (acts.mean(0) - shuffled.mean(0)).any()
    with pytest.raises(UserError, match="no feature of 'identity' fires more"):
        contrast(identity(), acts, shuffled)


def test_words_are_found_whatever_the_tokens_and_windows_reach_one_left_and_two_right() -> None:
    tokens = [" So", ",", " a", " b", " c", " how", "ever", " d", " e", " so", "me", " wait", "."]
    (labels,), words = word_windows([tokens], ["wait", "however", "so"])
    assert words == ["so", "however", "wait"]
    assert labels == [0, 0, 0, -1, 1, 1, 1, 1, -1, -1, 2, 2, 2]


def test_no_word_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="none of the words wait occurs"):
        word_windows([[" a", " b"]], ["wait"])


def test_reason_score_by_hand() -> None:
    acts = torch.tensor([[4.0, 4, 0, 0], [4, 0, 0, 0], [0, 0, 2, 0], [0, 0, 2, 1]])
    word = torch.tensor([0, 1, -1, -1])
    found = reason_score(identity(), acts, word)
    # μ⁺ = (4, 2, 0, 0), μ⁻ = (0, 0, 2, ½); feature 0 fires on both words, feature 1 on one alone
    expected = [4 / 6 * 1.0, 0.0, -2 / 2.5, -0.5 / 2.5]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-5)


def test_of_activations_of_either_sign_a_reason_score_counts_those_above_0() -> None:
    """Sums of both signs may be below 0, and a share of them would rank the features the other way round."""
    sae = replace(identity(), activation="abstopk", k=4)
    acts = torch.tensor([[4.0, 4, -9, -9], [4, 0, -9, -9], [-9, 0, 2, 0], [0, -9, 2, 1]])
    word = torch.tensor([0, 1, -1, -1])
    assert reason_score(sae, acts, word).values.tolist() == reason_score(sae, acts.clamp(min=0), word).values.tolist()
    assert reason_score(sae, acts, word).top(4) == [0]


@pytest.mark.parametrize(("rows", "where"), [(slice(0, 2), "inside"), (slice(2, 4), "outside")])
def test_a_reason_score_of_silence_is_refused(rows: slice, where: str) -> None:
    acts = torch.ones(4, 4)
    acts[rows] = 0
    with pytest.raises(UserError, match=f"no feature of 'identity' fires {where} the windows"):
        reason_score(identity(), acts, torch.tensor([0, 0, -1, -1]))


def test_entropy_is_of_means_a_word_and_not_of_counts() -> None:
    acts = torch.tensor([[3.0, 0, 0, 0], [3, 0, 0, 0], [3, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    found = reason_score(identity(), acts, torch.tensor([0, 0, 0, 1, -1]))
    p = 0.75
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)
    assert found.values[0].item() == pytest.approx(entropy**0.7, abs=1e-5)


def test_both_takes_the_worse_rank() -> None:
    a = Scores("a", torch.tensor([3.0, 2, 1, 0]))
    b = Scores("b", torch.tensor([1.0, 2, 3, -1]))
    assert both(a, b).top(4) == [1, 0, 2]


def test_firing_and_features_that_fire_alike() -> None:
    width = 32
    sae = identity(width)
    acts = torch.zeros(100, width)
    for feature in range(1, width):
        acts[: 3 * feature, feature] = feature
    found = firing(sae, acts)
    assert found.density[10].item() == pytest.approx(0.3) and found.maximum[10] == 10 and found.positions == 100
    near = found.alike(sae, 10, 2, seed=0)
    assert len(set(near)) == 2 and not {0, 10} & set(near) and near == found.alike(sae, 10, 2, seed=0)
    assert all(4 <= f <= 31 for f in near)
    with pytest.raises(UserError, match="40 random features were asked for and 30"):
        found.alike(sae, 10, 40, seed=0)


def test_a_letter_that_is_two_in_lower_case_moves_no_window() -> None:
    """The lower case of İ is an i and a dot above it."""
    plain, found = word_windows([["I", " said", " wait", " a", " b", " c"]], ["wait"])
    assert word_windows([["İ", " said", " wait", " a", " b", " c"]], ["wait"]) == (plain, found)
    assert plain == [[-1, 0, 0, 0, 0, -1]]
