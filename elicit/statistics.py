"""Statistics for paired evaluations: the question is the unit, and every difference has an interval.

Clustered standard errors follow statsmodels' sandwich estimator on the paired differences (the design of
arXiv 2411.00640, eq. 4 and 8); the bootstrap resamples questions (clusters). pass@k is the unbiased estimator of arXiv
2107.03374, eq. 1, for independent samples; for the distinct, ordered branches of a deterministic search
there is `coverage_at_k` instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import special, stats

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    @property
    def pair(self) -> list[float]:
        return [self.low, self.high]

    def scaled(self, by: float) -> Interval:
        return Interval(self.low * by, self.high * by)


@dataclass(frozen=True)
class Paired:
    """A mean difference over paired observations, a − b.

    `wins` and `losses` count questions where a is above or below b; `mcnemar_p` is exact and two-sided,
    and None where scores are not 0 or 1. `interval` is the 95% bootstrap interval by cluster.
    """

    n: int
    clusters: int
    difference: float
    standard_error: float
    interval: Interval
    wins: int
    losses: int
    mcnemar_p: float | None


def paired(
    a: Float[np.ndarray, " n"],
    b: Float[np.ndarray, " n"],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Paired:
    """Compare two systems on the same observations.

    Args:
        a, b: scores, in the same order.
        clusters: the question behind each observation; each its own unless given.
        seed: of the bootstrap.

    Raises:
        ValueError: nothing to compare, or lengths that differ.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} observations; give the same number, at least one")
    labels = _labels(clusters, len(a))
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    return Paired(
        n=len(difference),
        clusters=len(set(labels.tolist())),
        difference=float(difference.mean()),
        standard_error=clustered_standard_error(difference, labels),
        interval=bootstrap_mean(difference, labels, seed=seed, resamples=resamples),
        wins=wins,
        losses=losses,
        mcnemar_p=mcnemar_exact(wins, losses) if binary else None,
    )


def clustered_standard_error(values: Float[np.ndarray, " n"], clusters: Shaped[np.ndarray, " n"]) -> float:
    """Standard error of the mean, robust to correlation within clusters; NaN for a single cluster."""
    import statsmodels.api as sm

    labels = _labels(clusters, len(values))
    if len(set(labels.tolist())) < 2:
        return float("nan")
    model = sm.OLS(np.asarray(values, dtype=float), np.ones(len(values)))
    return float(model.fit(cov_type="cluster", cov_kwds={"groups": labels}).bse[0])


def bootstrap_mean(
    values: Float[np.ndarray, " n"],
    clusters: Shaped[np.ndarray, " n"] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a mean, resampling clusters.

    Where every value is the same the bootstrap would return an interval of width 0, which claims more than
    n observations can. Then, for values in [-1, 1], the interval reaches as far as a share of deviating
    questions that n questions would miss with probability 1 − confidence: 1 − (1 − confidence)^(1/n),
    the "rule of three".
    """
    labels = _labels(clusters, len(values))
    groups = np.unique(labels, return_inverse=True)[1]
    sums = np.bincount(groups, weights=values)
    counts = np.bincount(groups).astype(float)
    if np.ptp(values) == 0:
        reach, centre = 1 - (1 - confidence) ** (1 / len(counts)), float(values[0])
        return Interval(max(-1.0, centre - reach), min(1.0, centre + reach))

    def mean(s: np.ndarray, c: np.ndarray, axis: int = -1) -> np.ndarray:
        return s.sum(axis) / c.sum(axis)

    result = stats.bootstrap(
        (sums, counts),
        mean,
        n_resamples=resamples,
        batch=1000,
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def mcnemar_exact(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test from the discordant pairs."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses).pvalue)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a share; it never has width 0."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]] if len(p_values) else []


def pass_at_k(n: Int[np.ndarray, " items"], correct: Int[np.ndarray, " items"], k: int) -> Float[np.ndarray, " items"]:
    """1 − C(n−c, k)/C(n, k) for each item: n independent samples, c of them right.

    Raises:
        ValueError: k below 1 or above the number of samples.
    """
    n, correct = np.asarray(n), np.asarray(correct)
    if k < 1 or (n < k).any():
        raise ValueError(f"k = {k} with {int(n.min())} samples; give a k from 1 to the number of samples")
    return 1.0 - special.comb(n - correct, k) / special.comb(n, k)


def maj_at_k(
    groups: Sequence[Int[np.ndarray, " samples"]],
    correct: Sequence[Float[np.ndarray, " samples"]],
    k: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Float[np.ndarray, " items"]:
    """For each item the chance that the majority of k of its samples is right (ties shared evenly).

    Args:
        groups: for each item the equivalence class of each sample's answer.
        correct: for each item whether each sample is right.
    """
    rng = np.random.default_rng(seed)
    out = []
    for label, right in zip(groups, correct, strict=True):
        if not 1 <= k <= len(label):
            raise ValueError(f"k = {k} with {len(label)} samples; give a k from 1 to the number of samples")
        draws = 1 if k == len(label) else resamples
        picks = np.argsort(rng.random((draws, len(label))), axis=1)[:, :k]
        scores = []
        for pick in picks:
            _, first, count = np.unique(np.asarray(label)[pick], return_index=True, return_counts=True)
            winners = first[count == count.max()]
            scores.append(float(np.mean(np.asarray(right)[pick][winners])))
        out.append(float(np.mean(scores)))
    return np.array(out)


def coverage_at_k(correct: Float[np.ndarray, "items branches"]) -> Float[np.ndarray, " branches"]:
    """Share of items that one of the first 1, 2, … branches answers rightly, in rank order."""
    return np.maximum.accumulate(np.asarray(correct, dtype=float), axis=1).mean(axis=0)


def _labels(clusters: Sequence[Hashable] | np.ndarray | None, n: int) -> np.ndarray:
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} cluster labels for {n} observations")
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


@dataclass(frozen=True)
class Null:
    """What a measure is where there is nothing to find: mean and central 95% of its draws, and the chance `p` of a
    value as extreme as the one that was measured. NaN throughout where no draw is defined."""

    mean: float
    interval: Interval
    p: float


def against_null(value: float, draws: Float[np.ndarray, " draws"], *, greater: bool = False) -> Null:
    """A measure beside its null; `greater` asks for values above it alone, else both sides count."""
    defined = draws[np.isfinite(draws)]
    if not len(defined) or not np.isfinite(value):
        return Null(float("nan"), Interval(float("nan"), float("nan")), float("nan"))
    centre = float(defined.mean())
    slack = 1e-12  # equal up to rounding is equal
    far = defined >= value - slack if greater else np.abs(defined - centre) >= abs(value - centre) - slack
    return Null(centre, central(defined), float((1 + far.sum()) / (1 + len(defined))))


def central(values: Float[np.ndarray, " draws"]) -> Interval:
    """The central 95% of draws, infinite ones among them; NaN where fewer than half are defined."""
    defined = values[~np.isnan(values)]
    if not len(defined) or len(defined) * 2 < len(values):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(defined, [0.025, 0.975], method="inverted_cdf")
    return Interval(float(low), float(high))


def question_weights(
    questions: int, *, seed: int = 0, resamples: int = 1000
) -> Float[np.ndarray, "resamples questions"]:
    """How often each question is drawn in each bootstrap resample, for measures that are ratios of sums."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(questions, np.full(questions, 1 / questions), size=resamples).astype(float)
