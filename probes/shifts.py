"""Do two mechanisms shift the residual stream the same way? Mean shifts, their cosine, its null and its ceiling.

The residual stream is anisotropic (arXiv 1909.00512): a few directions hold most of its variance, and two unrelated
shifts that lie along them have a large cosine. So cosines are taken in a whitened stream: each direction is divided by
the stream's standard deviation along it, by the covariance that Ledoit and Wolf (2004) shrink towards a sphere. What is
left of the anisotropy is measured on activations that the covariance was not estimated from, crosswise by halves: two
unrelated directions have there a mean squared cosine of 1/d, where d is the number of dimensions that count, and their
cosine has the distribution of two random directions in d dimensions. That is a formula; no number of draws limits p.

A mean over few questions is noisy: the ceiling is the cosine of one mechanism's own means over random halves of the
questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

RESAMPLES, HALVES = 1000, 100
Shifts = Float[np.ndarray, "items d_model"]
Stream = Float[np.ndarray, "samples d_model"]


@dataclass(frozen=True)
class Cosine:
    """Of two mean shifts in the whitened stream, with its 95% interval by question; the middle 95% of the null and the
    chance there of a cosine as large in size; the median cosine of each one's own halves. NaN where one does not move
    the stream.

    `plain` is the cosine as the stream has it, which a few directions decide.
    """

    value: float
    low: float
    high: float
    null_low: float
    null_high: float
    p: float
    ceiling: tuple[float, float]
    plain: float = math.nan


@dataclass(frozen=True, eq=False)
class Whitening:
    """What whitens a stream, and how many dimensions count in it."""

    root: Float[np.ndarray, "d_model d_model"]
    dimensions: float

    def p(self, value: float) -> float:
        """The chance that two random directions have a cosine as large in size."""
        return float(special.betainc((self.dimensions - 1) / 2, 0.5, 1 - min(1.0, abs(value)) ** 2))

    @property
    def reach(self) -> float:
        """The middle 95% of the null reaches so far to both sides."""
        return math.sqrt(1 - float(special.betaincinv((self.dimensions - 1) / 2, 0.5, 0.05)))


def whitening(stream: Stream, *, seed: int = 0) -> Whitening:
    """Estimate what whitens a stream.

    Args:
        stream: activations of the base.
        seed: of the halves.

    Raises:
        ValueError: fewer than eight activations.
    """
    if len(stream) < 8:
        raise ValueError(
            f"{len(stream)} activations were given; give at least eight, of which a covariance can be told"
        )
    order = np.random.default_rng(seed).permutation(len(stream))
    squares = []
    for n in (0, 1):
        fit, away = stream[order[n::2]], stream[order[1 - n :: 2]]
        seen = _unit((away - fit.mean(0)) @ _root(fit))
        gram = seen @ seen.T
        squares.append((float((gram**2).sum()) - len(gram)) / (len(gram) * (len(gram) - 1)))
    return Whitening(_root(stream), max(2.0, 1 / float(np.mean(squares))))


def _root(stream: Stream) -> Float[np.ndarray, "d_model d_model"]:
    """The inverse square root of the shrunk covariance."""
    from sklearn.covariance import ledoit_wolf

    size = float(np.abs(stream - stream.mean(0)).max()) or 1.0  # numbers near 1, whatever the stream's norm
    values, vectors = np.linalg.eigh(ledoit_wolf(stream / size)[0])
    root: np.ndarray = (vectors / np.sqrt(np.maximum(values, values.max() * 1e-9))) @ vectors.T
    return root


def _unit(rows: Float[np.ndarray, "rows d_model"]) -> Float[np.ndarray, "rows d_model"]:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def shift_cosine(one: Shifts, other: Shifts, white: Whitening, *, seed: int = 0) -> Cosine:
    """Compare the mean shifts of two mechanisms on the same questions.

    Args:
        one, other: what each adds to the residual stream on each question.
        white: of the base's stream there.
        seed: of resamples and halves.
    """
    nan = float("nan")
    if not np.abs(one.mean(0)).max() or not np.abs(other.mean(0)).max():
        return Cosine(nan, nan, nan, nan, nan, nan, (nan, nan))
    rng = np.random.default_rng(seed)
    plain = float(cosine(one.mean(0), other.mean(0)))
    one, other = one @ white.root, other @ white.root
    value = float(cosine(one.mean(0), other.mean(0)))
    n = len(one)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n
    low, high = np.quantile(cosine(weights @ one, weights @ other), [0.025, 0.975])
    ceiling = (own_halves(one, rng), own_halves(other, rng))
    return Cosine(value, float(low), float(high), -white.reach, white.reach, white.p(value), ceiling, plain)


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
