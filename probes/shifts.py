"""Do two mechanisms shift the residual stream the same way? Mean shifts, their cosine, its null and its ceiling.

The residual stream is anisotropic (arXiv 1909.00512): a few directions hold most of its variance, and two unrelated
shifts that lie along them have a large cosine. So the null draws pairs of directions with the residual stream's own
covariance; their length does not matter to a cosine, so any norm is matched. A mean over few questions is noisy: the
ceiling is the cosine of one mechanism's own means over random halves of the questions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

DRAWS, RESAMPLES, HALVES = 3000, 1000, 100  # so many draws that a p survives Holm's over 150 layers
Shifts = Float[np.ndarray, "items d_model"]


@dataclass(frozen=True)
class Cosine:
    """Of two mean shifts, with its 95% interval by question; the middle 95% of the null and the chance there of a
    cosine as large in size; the median cosine of each one's own halves. NaN where one does not move the stream."""

    value: float
    low: float
    high: float
    null_low: float
    null_high: float
    p: float
    ceiling: tuple[float, float]


def shift_cosine(one: Shifts, other: Shifts, stream: Float[np.ndarray, "samples d_model"], *, seed: int = 0) -> Cosine:
    """Compare the mean shifts of two mechanisms on the same questions.

    Args:
        one, other: what each adds to the residual stream on each question.
        stream: activations of the base, whose covariance the null has.
        seed: of draws, resamples and halves.
    """
    nan = float("nan")
    if not np.abs(one.mean(0)).max() or not np.abs(other.mean(0)).max():
        return Cosine(nan, nan, nan, nan, nan, nan, (nan, nan))
    rng = np.random.default_rng(seed)
    value = float(cosine(one.mean(0), other.mean(0)))
    n = len(one)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    low, high = np.quantile(cosine(weights @ one, weights @ other), [0.025, 0.975])
    # g = Xᵀz has the covariance of X's rows where z is standard normal.
    basis = stream - stream.mean(0)
    first, second = (rng.standard_normal((DRAWS, len(basis))) @ basis for _ in range(2))
    drawn = cosine(first, second)
    null_low, null_high = np.quantile(drawn, [0.025, 0.975])
    p = (1 + (np.abs(drawn) >= abs(value)).sum()) / (1 + DRAWS)
    ceiling = (own_halves(one, rng), own_halves(other, rng))
    return Cosine(value, float(low), float(high), float(null_low), float(null_high), float(p), ceiling)


def own_halves(shifts: Shifts, rng: np.random.Generator) -> float:
    """The median cosine of the means over two random halves of the questions; NaN below two."""
    n = len(shifts)
    if n < 2:
        return float("nan")
    orders = [rng.permutation(n) for _ in range(HALVES)]
    halves = [np.stack([shifts[order[side::2]].mean(0) for order in orders]) for side in (0, 1)]
    return float(np.median(cosine(*halves)))


def cosine(
    one: Float[np.ndarray, "*rows d_model"], other: Float[np.ndarray, "*rows d_model"]
) -> Float[np.ndarray, "*rows"]:
    """Row by row; 0 where one of them is 0."""
    length = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.divide((one * other).sum(-1), length, out=np.zeros_like(length), where=length > 0)


@dataclass(frozen=True)
class Raised:
    """The features that two mechanisms raise most, and how many they share; the null exchanges the sign of each
    question's change at random, which keeps how much a feature varies and takes away that it is raised."""

    one: tuple[int, ...]
    other: tuple[int, ...]
    shared: float
    null: float
    null_high: float
    p: float


def raised(one: Shifts, other: Shifts, *, top: int = 10, draws: int = 200, seed: int = 0) -> Raised:
    """Jaccard overlap of the `top` features of each, by their mean change.

    Args:
        one, other: change of each feature's activation on each question.
        top: how many features of each.
        draws: of the null.
        seed: of the signs.
    """
    rng = np.random.default_rng(seed)
    sets = [_top(changes.mean(0), top) for changes in (one, other)]
    shared = _jaccard(*sets)
    n = len(one)
    null = []
    for _ in range(draws):
        signs = rng.choice([-1.0, 1.0], size=(2, n))
        null.append(_jaccard(*(_top(sign @ c / n, top) for sign, c in zip(signs, (one, other), strict=True))))
    above = sum(value >= shared for value in null)
    return Raised(
        sets[0], sets[1], shared, float(np.mean(null)), float(np.quantile(null, 0.975)), (1 + above) / (1 + draws)
    )


def _top(change: Float[np.ndarray, " features"], top: int) -> tuple[int, ...]:
    """The features that are raised, the most first."""
    order = np.argsort(-change, kind="stable")[:top]
    return tuple(int(i) for i in order if change[i] > 0)


def _jaccard(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    both = set(one) | set(other)
    return len(set(one) & set(other)) / len(both) if both else 0.0
