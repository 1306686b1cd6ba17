"""Statistics for paired evaluations: the question is the unit, and every difference has an interval.

Clustered standard errors follow statsmodels' sandwich estimator on the paired differences (the design of
arXiv 2411.00640, eq. 4 and 8); the bootstrap resamples questions (clusters), and its interval is widened by two
observations that were not made (Bonett and Price 2012, for paired proportions) and by their skewness. Several seeds and
questions are two crossed random effects. How often each interval holds the truth: `python -m experiments.simulations`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Shaped
from scipy import special, stats

RESAMPLES = 10_000
DRAWN = 4_000_000  # random numbers held at once
FEW = 8  # rows a distinct one, from which on counting is cheaper than drawing
SLACK = 1e-12  # equal up to rounding is equal
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    @property
    def pair(self) -> list[float]:
        return [self.low, self.high]


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
    from statsmodels.regression.linear_model import OLS

    labels = _labels(clusters, len(values))
    if len(set(labels.tolist())) < 2:
        return float("nan")
    model = OLS(np.asarray(values, dtype=float), np.ones(len(values)))
    return float(model.fit(cov_type="cluster", cov_kwds={"groups": labels}).bse[0])


def bootstrap_mean(
    values: Float[np.ndarray, " n"],
    clusters: Shaped[np.ndarray, " n"] | None = None,
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a mean, resampling clusters; never beyond the bounds of what was measured.

    Alone it holds the truth too seldom where few questions deviate from the others, and where they deviate to one side.
    So it is widened to hold Student's t interval of the clusters and one more observation at each bound, and the same
    one shifted by what their skewness takes from it (Johnson 1978, doi 10.1080/01621459.1978.10480051). Where no
    question deviates the interval reaches as far as a fraction of deviating questions that n questions would miss with
    probability (1 − confidence) / 2, times the way to the bound.

    Args:
        values: of each observation.
        clusters: the question behind each; each its own unless given.
        bounds: of a single value; values beyond ±1 extend the default. Nothing can be said where all are one value
            beyond ±1 whose bounds are not given, or where one is NaN or infinite: NaN.
        seed, resamples: of the bootstrap.
        confidence: of the interval.

    Raises:
        ValueError: values beyond bounds that were given.
    """
    labels = _labels(clusters, len(values))
    low, high = _extended(bounds, values)
    if not np.isfinite(values).all() or ((low, high) != bounds and np.ptp(values) == 0):
        return Interval(float("nan"), float("nan"))
    sums = np.bincount(labels, weights=values)
    counts = np.bincount(labels).astype(float)
    n, mean, tail = len(counts), float(sums.sum() / counts.sum()), (1 - confidence) / 2
    if np.ptp(sums / counts) == 0:
        reach = 1 - tail ** (1 / n)
        return Interval(mean - reach * (mean - low), mean + reach * (high - mean))
    columns = [sums] if np.ptp(counts) == 0 else [sums, counts]
    drawn = resampled_means(np.stack(columns, axis=1), seed=seed, resamples=resamples)
    found = np.quantile(drawn[:, 0] / (drawn[:, 1] if len(columns) > 1 else counts[0]), [tail, 1 - tail])
    each = np.r_[mean + (sums - mean * counts) / counts.mean(), low, high]
    centre, spread = float(each.mean()), float(each.std())
    t = float(special.stdtrit(max(1, n - 1), 1 - tail))
    half = t * spread / math.sqrt(n + 2)
    shift = float(((each - centre) ** 3).mean()) / spread**2 * (2 * t * t + 1) / (6 * (n + 2))
    return Interval(
        max(low, min(float(found[0]), centre - half + min(0.0, shift))),
        min(high, max(float(found[1]), centre + half + max(0.0, shift))),
    )


def over_seeds(
    values: Float[np.ndarray, "seeds questions"],
    *,
    bounds: tuple[float, float] = (-1.0, 1.0),
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """The interval of a mean over seeds and questions, both of which could have been others.

    Seeds are few, and a bootstrap that resamples three of them holds the truth in as few as 64 of 100 cases where they
    differ much. So questions are resampled, on their means over seeds; seeds enter by Student's t with one degree of
    freedom fewer than there are; and the two halves are added in quadrature, each side for itself (MOVER: Zou and
    Donner, doi 10.1002/sim.3095). It is never narrower than that of questions alone. Of one seed nothing is known of
    others: the interval is over questions, and speaks of this seed. Where a seed is one of two things (a fit works, or
    does not) three or five of them cannot show it, whatever the method.

    Args:
        values: of each seed, question by question.
        bounds: of a single value, as `bootstrap_mean` takes them: values beyond ±1 extend the default.
        seed, resamples: of the bootstrap over questions.
        confidence: of the interval.

    Raises:
        ValueError: no value; values beyond bounds that were given.
    """
    seeds, n = values.shape
    if not values.size:
        raise ValueError(f"{seeds} seeds of {n} questions were given; give at least one of each")
    alone = bootstrap_mean(values.mean(0), bounds=bounds, seed=seed, resamples=resamples, confidence=confidence)
    low, high = _extended(bounds, values)
    if seeds < 2 or math.isnan(alone.low):
        return alone
    mean, by_seed = float(values.mean()), values.mean(1)
    half = float(special.stdtrit(seeds - 1, (1 + confidence) / 2) * by_seed.std(ddof=1) / math.sqrt(seeds))
    below, above = math.hypot(mean - alone.low, half), math.hypot(alone.high - mean, half)
    return Interval(max(low, mean - below), min(high, mean + above))


def _extended(bounds: tuple[float, float], values: Float[np.ndarray, "*n"]) -> tuple[float, float]:
    """The bounds of a single value; the default ones are extended to hold these values.

    Raises:
        ValueError: values beyond bounds that were given.
    """
    (low, high), least, most = bounds, float(np.min(values)), float(np.max(values))
    if least < low - SLACK or most > high + SLACK:
        if bounds != (-1.0, 1.0):
            raise ValueError(f"values from {least:g} to {most:g} were given with bounds {low:g} and {high:g}")
        return min(low, least), max(high, most)
    return bounds


def ratio_interval(
    over: tuple[float, float],
    errors: tuple[float, float, float],
    degrees: int,
    *,
    confidence: float = 0.95,
) -> Interval | None:
    """Fieller's interval of a ratio of two means: all ratios r at which numerator − r · denominator may be 0.

    From Fieller 1954, doi 10.1111/j.2517-6161.1954.tb00159.x. None where the denominator may be 0 itself, for then any
    ratio may be.

    Args:
        over: numerator and denominator.
        errors: the variance of the numerator, the covariance of both, the variance of the denominator.
        degrees: of freedom of Student's t.
        confidence: of the interval.
    """
    (a, b), (aa, ab, bb) = over, errors
    t = float(special.stdtrit(max(1, degrees), (1 + confidence) / 2)) ** 2
    square, cross, rest = b * b - t * bb, a * b - t * ab, a * a - t * aa
    if square <= 0:
        return None
    root = math.sqrt(max(0.0, cross * cross - square * rest))
    return Interval((cross - root) / square, (cross + root) / square)


def resampled_means(
    rows: Float[np.ndarray, "n columns"], *, seed: int = 0, resamples: int = RESAMPLES
) -> Float[np.ndarray, "resamples columns"]:
    """Means of the columns in each bootstrap resample of the rows.

    Rows that are equal need not be told apart: how often each distinct row is drawn is multinomial. So a resample of a
    million right or wrong answers costs two numbers; where few rows are equal, rows are drawn one by one.
    """
    n = len(rows)
    ordered = rows[np.lexsort(rows.T)]  # many times faster than np.unique along an axis
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    distinct, count = ordered[starts], np.diff(np.r_[starts, n])
    few = FEW * len(distinct) <= n
    rng = np.random.default_rng(seed)
    out = np.empty((resamples, rows.shape[1]))
    step = max(1, DRAWN // (len(distinct) if few else n * rows.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            out[start : start + size] = rng.multinomial(n, count / n, size=size) @ distinct / n
        else:
            out[start : start + size] = rows[rng.integers(0, n, (size, n))].mean(axis=1)
    return out


def mcnemar_exact(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test from the discordant pairs."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses).pvalue)


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Agresti and Coull's interval of a proportion (doi 10.1080/00031305.1998.10480550), inside 0 and 1.

    Wilson's, which lies inside it, holds a proportion near 0 or 1 in as few as 84 of 100 cases, whatever n; this one
    holds any proportion in at least 93 from n = 24 on. It never has width 0.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="agresti_coull")
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, Scandinavian Journal of Statistics 6:65): the k-th smallest of m by m + 1 - k.

    By hand, since each call of statsmodels' `multipletests` has Python collect its garbage, half a second where much
    is loaded.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values)
    adjusted = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return [float(adjusted[place]) for place in np.argsort(order)]


def holm_by_name(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjustment over the p-values that are defined; NaN, where nothing was tested, stays NaN."""
    tested = [name for name, p in p_values.items() if not math.isnan(p)]
    return {**p_values, **dict(zip(tested, holm([p_values[name] for name in tested]), strict=True))}


def _labels(clusters: Sequence[Hashable] | np.ndarray | None, n: int) -> np.ndarray:
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} cluster labels for {n} observations")
    if isinstance(clusters, np.ndarray):
        return np.unique(clusters, return_inverse=True)[1]
    names: list[Any] = list(dict.fromkeys(clusters))
    with suppress(TypeError):  # names of several types have no order
        names = sorted(names)
    number = {name: n for n, name in enumerate(names)}
    return np.array([number[name] for name in clusters])


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
    far = defined >= value - SLACK if greater else np.abs(defined - centre) >= abs(value - centre) - SLACK
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
