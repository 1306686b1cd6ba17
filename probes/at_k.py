"""pass@k, maj@k and coverage: what k samples, or the first k branches, of a question are worth.

pass@k is the unbiased estimator of arXiv 2107.03374, eq. 1, for independent samples; for the distinct, ordered branches
of a deterministic search there is `coverage_at_k` instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from probes.statistics import DRAWN

NO_ANSWER = -1  # the class of a sample that has no answer, or none that counts


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
