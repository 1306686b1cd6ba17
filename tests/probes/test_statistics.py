"""Against worked numbers: textbook examples, closed forms, and slow versions of the formulas."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from probes.at_k import NO_ANSWER, coverage_at_k, maj_at_k, pass_at_k
from probes.auroc import auroc
from probes.statistics import (
    against_null,
    bootstrap_mean,
    clustered_standard_error,
    holm,
    mcnemar_exact,
    over_seeds,
    paired,
    proportion_interval,
    ratio_interval,
    resampled_means,
)


def test_mcnemar_worked() -> None:
    # 10 discordant pairs, 9 one way: 2 * (C(10,9) + C(10,10)) / 2^10
    assert mcnemar_exact(9, 1) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0


def test_holm_worked() -> None:
    # Holm (1979) on 0.01, 0.04, 0.03: ordered 0.01*3, 0.03*2, 0.04*1, made monotone
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@pytest.mark.parametrize("p_values", [[0.3], [0.2, 0.2, 1.0, 0.0], [0.01, 0.9, 0.02, 0.011, 0.012, 0.04]])
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_the_interval_of_a_proportion_holds_any_proportion() -> None:
    for n in (24, 32, 200, 1000):
        every = np.array([proportion_interval(k, n).pair for k in range(n + 1)])
        truth = np.linspace(0.001, 0.999, 999)[:, None]
        held = (every[:, 0] <= truth) & (truth <= every[:, 1])
        assert (stats.binom.pmf(np.arange(n + 1), n, truth) * held).sum(1).min() > 0.93
    # by hand for 15 of 148: z² / 2 successes and as many failures are added
    share, total = (15 + 3.8415 / 2) / (148 + 3.8415), 148 + 3.8415
    half = 1.95996 * sqrt(share * (1 - share) / total)
    assert proportion_interval(15, 148).pair == pytest.approx([share - half, share + half], abs=1e-5)
    assert proportion_interval(0, 10).low == 0 and proportion_interval(10, 10).high == 1


def test_pass_at_k_is_the_share_of_subsets() -> None:
    for n, c, k in ((10, 3, 1), (10, 3, 5), (6, 0, 3), (6, 6, 2), (7, 2, 7)):
        right = [1] * c + [0] * (n - c)
        slow = np.mean([max(s) for s in combinations(right, k)])
        assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(slow)
    # Chen et al. 2021: n=200, c=10, k=10
    assert pass_at_k(np.array([200]), np.array([10]), 10)[0] == pytest.approx(1 - comb(190, 10) / comb(200, 10))
    for n, c, k in ((1100, 3, 512), (2048, 5, 1024), (100_000, 40, 50_000), (100_000, 1, 99_999), (100_000, 7, 1)):
        exact = 1 - Fraction(comb(n - c, k), comb(n, k))
        assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(float(exact), rel=1e-6)
    assert pass_at_k(np.array([100_000] * 2), np.array([0, 100_000]), 50_000).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="k = 3"):
        pass_at_k(np.array([2]), np.array([1]), 3)


def test_maj_at_k() -> None:
    groups = [np.array([0, 0, 1]), np.array([0, 1, 1])]
    right = [np.array([1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])]
    assert maj_at_k(groups, right, 3).tolist() == [1.0, 0.0]
    one = maj_at_k(groups, right, 1, resamples=4000)
    assert one == pytest.approx([2 / 3, 1 / 3], abs=0.03)
    tie = maj_at_k([np.array([0, 1])], [np.array([1.0, 0.0])], 2)
    assert tie[0] == 0.5


def test_a_sample_without_an_answer_has_no_vote() -> None:
    groups = [np.array([NO_ANSWER] * 6 + [0] * 4), np.array([NO_ANSWER] * 3)]
    right = [np.array([0.0] * 6 + [1.0] * 4), np.array([1.0, 0.0, 0.0])]
    assert maj_at_k(groups[:1], right[:1], 10).tolist() == [1.0]
    assert maj_at_k(groups[1:], right[1:], 3).tolist() == [1.0]  # the first stands in
    assert maj_at_k(groups[:1], right[:1], 1, resamples=4000)[0] == pytest.approx(0.4, abs=0.04)


def test_coverage_is_by_rank() -> None:
    right = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 1]], dtype=float)
    assert coverage_at_k(right) == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_auroc_counts_pairs() -> None:
    score, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert auroc(score, positive) == 0.75  # the worked example of scikit-learn's documentation
    assert auroc(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5
    assert np.isnan(auroc(score, np.ones(4)))


def test_clustered_error_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=60), np.repeat(np.arange(12), 5)
    deviation = values - values.mean()
    sums = np.array([deviation[clusters == c].sum() for c in range(12)])
    n, g = 60, 12
    expected = sqrt((sums**2).sum()) / n * sqrt(g / (g - 1) * (n - 1) / (n - 1))
    assert clustered_standard_error(values, clusters) == pytest.approx(expected)
    alone = clustered_standard_error(values, np.arange(60))
    assert alone == pytest.approx(values.std(ddof=1) / sqrt(60))


def test_bootstrap_agrees_with_normal_theory_where_it_holds() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 2000)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.005)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.005)


def test_no_discordance_is_no_certainty() -> None:
    same = np.ones(40)
    result = paired(same, same)
    assert result.difference == 0 and result.mcnemar_p == 1.0
    assert result.interval.high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert result.interval.low == -result.interval.high


def test_an_interval_is_inside_what_can_be() -> None:
    for values, bounds in (
        (np.zeros(20), (0.0, 1.0)), (np.ones(20), (0.0, 1.0)), (np.r_[np.ones(19), 0], (0.0, 1.0)),
        (np.ones(20), (-1.0, 1.0)), (np.full(20, 2.0), (-2.0, 2.0)), (np.r_[np.full(19, -1.0), 1], (-1.0, 1.0)),
    ):  # fmt: skip
        found = bootstrap_mean(values, bounds=bounds)
        assert bounds[0] <= found.low < found.high <= bounds[1] and found.low <= values.mean() <= found.high
    # all of 20 at one end: a deviating one is at the other end, twice as far as from the middle
    missed = 1 - 0.025 ** (1 / 20)
    assert bootstrap_mean(np.ones(20)).low == pytest.approx(1 - 2 * missed)
    assert bootstrap_mean(np.ones(20), bounds=(0.0, 1.0)).low == pytest.approx(1 - missed)
    assert np.isnan(bootstrap_mean(np.full(9, 3.0)).low)  # who knows how far it could be
    with pytest.raises(ValueError, match="bounds 0 and 1"):
        bootstrap_mean(np.array([0.5, 1.5]), bounds=(0.0, 1.0))


def test_few_that_deviate_widen_the_interval() -> None:
    """Five wins and no loss are no lead for certain: McNemar's p is 1/16; of many it is nearly the bootstrap's."""
    for wins, sure in ((5, False), (6, True)):
        lead = paired(np.r_[np.ones(wins), np.zeros(100 - wins)], np.zeros(100))
        assert (lead.interval.low > 0) == sure == ((lead.mcnemar_p or 0) < 0.05)
    few, many = (np.repeat([1.0, 0.0, -1.0], counts) for counts in ((2, 96, 2), (20, 60, 20)))
    drawn = [np.quantile(resampled_means(v[:, None])[:, 0], [0.025, 0.975]) for v in (few, many)]
    found = [bootstrap_mean(v) for v in (few, many)]
    assert found[0].low < drawn[0][0] and found[0].high > drawn[0][1]
    assert found[1].pair == pytest.approx(drawn[1].tolist(), abs=0.01)
    one_sided = bootstrap_mean(np.repeat([1.0, 0.0], (12, 188)))  # 12 of 200 do not rule out a tenth
    assert np.quantile(resampled_means(np.repeat([1.0, 0.0], (12, 188))[:, None])[:, 0], 0.975) < 0.1 < one_sided.high


def test_the_ratio_of_means_is_not_told_where_its_denominator_may_be_nothing() -> None:
    assert ratio_interval((0.5, 0.2), (0.01, 0.0, 0.011), 1000) is None
    found = ratio_interval((0.5, 1.0), (0.01, 0.0, 0.0), 1000)  # a denominator that is known: plain Student's t
    assert found is not None and found.pair == pytest.approx(
        [0.5 + sign * stats.t.ppf(0.975, 1000) * 0.1 for sign in (-1, 1)]
    )


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    alike = (rng.random(200) < 0.5).astype(float)
    one = bootstrap_mean(alike)
    thrice = over_seeds(np.stack([alike] * 3))
    assert over_seeds(alike[None]) == one and thrice.low <= one.low < one.high <= thrice.high
    assert thrice.high - thrice.low < 1.1 * (one.high - one.low)
    apart = np.stack([np.where(rng.random(200) < p, 1.0, 0.0) for p in (0.3, 0.5, 0.7)])
    wide = over_seeds(apart)
    assert wide.high - wide.low > 3 * (one.high - one.low) and wide.low >= -1 and wide.high <= 1
    # a worked number: half of the t interval of the seeds' means, 2 degrees of freedom, and that of questions
    means = np.repeat(np.array([[0.2], [0.5], [0.6]]), 50, axis=1)
    low, high = stats.t.interval(0.95, 2, means[:, 0].mean(), means[:, 0].std(ddof=1) / sqrt(3))
    mean, questions = means.mean(), bootstrap_mean(means.mean(0))
    below = sqrt((mean - low) ** 2 + (mean - questions.low) ** 2)
    assert over_seeds(means).pair == pytest.approx(
        [mean - below, mean + sqrt((high - mean) ** 2 + (questions.high - mean) ** 2)]
    )


def test_seeds_of_a_measure_beyond_one_have_an_interval_around_it() -> None:
    nats = 5 + np.random.default_rng(0).normal(0, 0.5, (3, 100))
    assert 4.5 < over_seeds(nats).low < nats.mean() < over_seeds(nats).high < 5.5
    assert np.isnan(over_seeds(np.full((3, 100), 5.0)).pair).all()
    with pytest.raises(ValueError, match=r"values from .* were given with bounds 0 and 1"):
        over_seeds(np.array([[0.5, 1.5], [0.5, 0.1]]), bounds=(0.0, 1.0))  # though no mean over seeds is beyond them


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_paired_is_antisymmetric(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(x, dtype=float) for x in zip(*pairs, strict=True))
    forth, back = paired(a, b, resamples=200), paired(b, a, resamples=200)
    assert forth.difference == -back.difference
    assert (forth.wins, forth.losses) == (back.losses, back.wins)
    assert forth.mcnemar_p == back.mcnemar_p
    assert forth.interval.low == pytest.approx(-back.interval.high, abs=0.35)


def test_clusters_widen_the_interval() -> None:
    a = np.repeat(np.random.default_rng(2).integers(0, 2, 20), 10).astype(float)
    b = np.zeros(200)
    one = paired(a, b)
    many = paired(a, b, clusters=np.repeat(np.arange(20), 10).tolist())
    assert many.clusters == 20
    assert many.interval.high - many.interval.low > 2 * (one.interval.high - one.interval.low)
    with pytest.raises(ValueError, match="0 and 0 observations"):
        paired(a[:0], b[:0])


def test_clusters_may_have_any_names() -> None:
    a, b = np.array([1.0, 1, 0, 1, 0, 1]), np.zeros(6)
    plain = paired(a, b, [0, 0, 1, 1, 2, 3])
    for names in (["a", "a", "b", "b", "c", "d"], [("x", 1), ("x", 1), ("x", 2), ("x", 2), ("y", 1), ("y", 2)]):
        assert paired(a, b, names) == plain
    mixed = paired(a, b, [1, 1, "1", "1", 2, None])
    assert (mixed.clusters, mixed.standard_error) == (4, plain.standard_error)


def test_of_values_that_are_not_finite_no_interval_is_told() -> None:
    for value in (np.nan, np.inf):
        found = bootstrap_mean(np.array([0.0, 1.0, value, 1.0]))
        assert np.isnan(found.low) and np.isnan(found.high)
        several = over_seeds(np.array([[0.0, 1.0], [value, 1.0]]))
        assert np.isnan(several.low) and np.isnan(several.high)


def test_pairs_are_of_the_same_question() -> None:
    """Whoever is right where the other is wrong: means are equal, and every question is won or lost."""
    a, b = np.array([1.0, 1.0, 0.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    found = paired(a, b, resamples=200)
    assert (found.difference, found.wins, found.losses, found.mcnemar_p) == (0.0, 2, 2, 1.0)
    assert found.standard_error > 0.2 and found.interval.low < -0.5 and found.interval.high > 0.5


@pytest.mark.parametrize("greater", [False, True])
def test_a_null_of_n_draws_gives_no_p_below_one_in_n_and_one(greater: bool) -> None:
    draws = np.linspace(-1.0, 1.0, 99)
    assert against_null(50.0, draws, greater=greater).p == pytest.approx(1 / 100)
    assert against_null(-50.0, draws, greater=greater).p == pytest.approx(1.0 if greater else 1 / 100)
