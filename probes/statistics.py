"""Statistics for paired evaluations: the question is the unit, and every difference has an interval.

Clustered standard errors follow statsmodels' sandwich estimator on the paired differences (the design of
arXiv 2411.00640, eq. 4 and 8); the bootstrap resamples questions (clusters), and where few of them deviate from the
others its interval is widened by two observations that were not made (Bonett and Price 2012, for paired proportions).
Several seeds and questions are two crossed random effects. pass@k is the unbiased estimator of arXiv 2107.03374, eq. 1,
for independent samples; for the distinct, ordered branches of a deterministic search there is `coverage_at_k` instead.
How often each interval holds the truth: `python -m experiments.simulations`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special, stats

RESAMPLES = 10_000
DRAWN = 4_000_000  # random numbers held at once
FEW = 8  # rows a distinct one, from which on counting is cheaper than drawing
SPARSE = 16  # questions that deviate from the others, below which a bootstrap has too few to draw from
SLACK = 1e-12  # equal up to rounding is equal
NO_ANSWER = -1  # the class of a sample that has no answer, or none that counts
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

    Where few questions deviate from the others the bootstrap draws from too few, and holds the truth too seldom. Below
    `SPARSE` of them its interval is widened to hold that of Student's t with one more observation at each bound. Where
    none deviates the interval reaches as far as a fraction of deviating questions that n questions would miss with
    probability (1 − confidence) / 2, times the way to the bound.

    Args:
        values: of each observation.
        clusters: the question behind each; each its own unless given.
        bounds: of a single value; values beyond ±1 extend the default. Nothing can be said where all are one value
            beyond ±1 whose bounds are not given: NaN.
        seed, resamples: of the bootstrap.
        confidence: of the interval.

    Raises:
        ValueError: values beyond bounds that were given.
    """
    labels = _labels(clusters, len(values))
    low, high = bounds
    extreme = float(np.min(values)), float(np.max(values))
    if extreme[0] < low - SLACK or extreme[1] > high + SLACK:
        if bounds != (-1.0, 1.0):
            raise ValueError(
                f"values from {extreme[0]:g} to {extreme[1]:g} were given with bounds {low:g} and {high:g}"
            )
        low, high = min(low, extreme[0]), max(high, extreme[1])
        if extreme[0] == extreme[1]:
            return Interval(float("nan"), float("nan"))
    sums = np.bincount(labels, weights=values)
    counts = np.bincount(labels).astype(float)
    each, n, tail = sums / counts, len(counts), (1 - confidence) / 2
    _, often = np.unique(each, return_counts=True)
    deviating, mean = n - int(often.max()), float(sums.sum() / counts.sum())
    if not deviating:
        reach = 1 - tail ** (1 / n)
        return Interval(mean - reach * (mean - low), mean + reach * (high - mean))
    drawn = resampled_means(np.stack([sums, counts], axis=1), seed=seed, resamples=resamples)
    found = Interval(*(float(end) for end in np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1 - tail])))
    if deviating >= SPARSE:
        return found
    centre = (n * mean + low + high) / (n + 2)
    spread = ((each - centre) ** 2).sum() + (low - centre) ** 2 + (high - centre) ** 2
    half = float(stats.t.ppf(1 - tail, max(1, n - 1)) * math.sqrt(spread) / (n + 2))
    return Interval(max(low, min(found.low, centre - half)), min(high, max(found.high, centre + half)))


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
        bounds: of a single value.
        seed, resamples: of the bootstrap over questions.
        confidence: of the interval.

    Raises:
        ValueError: no value.
    """
    seeds, n = values.shape
    if not values.size:
        raise ValueError(f"{seeds} seeds of {n} questions were given; give at least one of each")
    alone = bootstrap_mean(values.mean(0), bounds=bounds, seed=seed, resamples=resamples, confidence=confidence)
    if seeds < 2:
        return alone
    mean, by_seed = float(values.mean()), values.mean(1)
    half = float(stats.t.ppf((1 + confidence) / 2, seeds - 1) * by_seed.std(ddof=1) / math.sqrt(seeds))
    below, above = math.hypot(mean - alone.low, half), math.hypot(alone.high - mean, half)
    return Interval(max(bounds[0], mean - below), min(bounds[1], mean + above))


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


def auroc_within(
    score: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], question: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " questions"]:
    """The AUROC within each question that has both right and wrong answers, in the order of the questions."""
    if not len(score):
        return np.empty(0)
    order = np.lexsort((score, question))
    score, right, question = score[order], right[order], question[order]
    first = np.r_[True, question[1:] != question[:-1]]  # of a question
    tie = np.cumsum(first | np.r_[True, score[1:] != score[:-1]]) - 1
    n = np.bincount(tie)
    rank = (np.cumsum(n) - (n - 1) / 2)[tie]  # in all; ties share the middle
    starts = np.flatnonzero(first)
    place = np.cumsum(first) - 1
    rank = rank - starts[place]
    positive = np.bincount(place, weights=right)
    negative = np.bincount(place) - positive
    both = (positive > 0) & (negative > 0)
    total = np.bincount(place, weights=rank * right) - positive * (positive + 1) / 2
    found: np.ndarray = total[both] / (positive * negative)[both]
    return found


def auroc_interval(
    score: Float[np.ndarray, " n"],
    right: Bool[np.ndarray, " n"],
    question: Int[np.ndarray, " n"],
    questions: int,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> Interval | None:
    """95% bootstrap interval of the AUROC by question; None where too many resamples hold one class only.

    Scores are sorted once; a resample weighs each answer by how often its question was drawn.

    Args:
        question: of each answer, a number below `questions`; questions without any answer are drawn as well.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(score, kind="stable")
    score, right, question = score[order], right[order], question[order]
    good, bad = (question[some].astype(np.int32) for some in (right, ~right))  # half as wide is twice as fast
    below, upto = (np.searchsorted(score[~right], score[right], side).astype(np.int32) for side in ("left", "right"))
    values = np.full(resamples, np.nan)
    for n in range(resamples):
        weight = np.bincount(rng.integers(0, questions, questions), minlength=questions).astype(np.int32)
        lost = np.concatenate([[0], np.cumsum(weight[bad])])  # weight of the wrong answers before each
        won = weight[good]
        pairs = int(won.sum()) * int(lost[-1])
        if pairs:
            values[n] = float(won @ (lost[below] + lost[upto])) / 2 / pairs
    defined = values[~np.isnan(values)]
    if len(defined) < resamples * 0.95:
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(low), float(high))


def mcnemar_exact(wins: int, losses: int) -> float:
    """Exact two-sided McNemar test from the discordant pairs."""
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(wins, wins + losses).pvalue)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a proportion; it never has width 0."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(list(p_values), method="holm")[1]] if len(p_values) else []


def holm_by_name(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """Holm's adjustment over the p-values that are defined; NaN, where nothing was tested, stays NaN."""
    tested = [name for name, p in p_values.items() if not math.isnan(p)]
    return {**p_values, **dict(zip(tested, holm([p_values[name] for name in tested]), strict=True))}


def pass_at_k(n: Int[np.ndarray, " items"], correct: Int[np.ndarray, " items"], k: int) -> Float[np.ndarray, " items"]:
    """1 − C(n−c, k)/C(n, k) for each item: n independent samples, c of them right.

    By logarithms, since the binomials themselves overflow from about a thousand samples on.

    Raises:
        ValueError: k below 1 or above the number of samples.
    """
    n, correct = np.asarray(n), np.asarray(correct)
    if k < 1 or (n < k).any():
        raise ValueError(f"k = {k} with {int(n.min())} samples; give a k from 1 to the number of samples")
    few = n - correct < k  # then no choice of k misses all right ones
    wrong = np.where(few, k, n - correct)
    log = special.gammaln
    missed = (log(wrong + 1) - log(wrong - k + 1)) - (log(n + 1) - log(n - k + 1))
    passed: np.ndarray = np.where(few, 1.0, -np.expm1(missed))
    return passed


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
        groups: for each item the equivalence class of each sample's answer; `NO_ANSWER` where there is none. Such a
            sample has no vote; of k without any vote the first one answers, as under the rule `vote`.
        correct: for each item whether each sample is right.
    """
    for label in groups:
        if not 1 <= k <= len(label):
            raise ValueError(f"k = {k} with {len(label)} samples; give a k from 1 to the number of samples")
    rng = np.random.default_rng(seed)
    out = np.empty(len(groups))
    sizes = np.array([len(label) for label in groups])
    for size in np.unique(sizes):
        some = np.flatnonzero(sizes == size)
        # Many items need fewer draws each: it is their mean that is wanted.
        draws = 1 if k == size else int(np.clip(resamples * 1000 // len(some), 20, resamples))
        step = max(1, DRAWN // (draws * int(size)))
        for start in range(0, len(some), step):
            chosen = some[start : start + step]
            picks = np.sort(np.argsort(rng.random((draws, size)), axis=1)[:, :k], axis=1)
            label = np.stack([_from_one(groups[i]) for i in chosen])[:, picks].reshape(-1, k)
            right = np.stack([np.asarray(correct[i], dtype=float) for i in chosen])[:, picks].reshape(-1, k)
            out[chosen] = _majority_right(label, right, int(size)).reshape(len(chosen), draws).mean(1)
    return out


def _from_one(labels: Int[np.ndarray, " samples"]) -> Int[np.ndarray, " samples"]:
    """Classes as numbers from 1; 0 where there is no answer."""
    return np.where(labels == NO_ANSWER, 0, np.unique(labels, return_inverse=True)[1] + 1)


def _majority_right(
    label: Int[np.ndarray, "rows k"], right: Float[np.ndarray, "rows k"], classes: int
) -> Float[np.ndarray, " rows"]:
    """Of each row the fraction of its largest classes that are right, by the first member of each; class 0 is none."""
    rows = np.arange(len(label))
    counts = np.zeros((len(label), classes + 2), dtype=np.int32)
    first = np.zeros((len(label), classes + 2))
    for j in reversed(range(label.shape[1])):  # so that the first member is written last
        counts[rows, label[:, j]] += 1
        first[rows, label[:, j]] = right[:, j]
    counts, first = counts[:, 1:], first[:, 1:]
    winners = (counts == counts.max(1, keepdims=True)) & (counts > 0)
    votes = winners.sum(1)
    share: np.ndarray = np.where(votes > 0, (first * winners).sum(1) / np.maximum(votes, 1), right[:, 0])
    return share


def coverage_at_k(correct: Float[np.ndarray, "items branches"]) -> Float[np.ndarray, " branches"]:
    """Fraction of items that one of the first 1, 2, … branches answers rightly, in rank order."""
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


def auroc(score: Float[np.ndarray, " n"], positive: Shaped[np.ndarray, " n"]) -> float:
    """Chance that a positive's score is above a negative's, ties counting half; NaN if one class is empty."""
    positive = np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
