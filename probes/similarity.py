"""Linear CKA of two sets of activations of the same questions, without its bias (arXiv 1905.00414, 2010.15327).

    CKA(X, Y) = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)),   K = XXᵀ, L = YYᵀ

The plain estimator is near 1 for any two sets where there are fewer questions than dimensions. HSIC here is the
unbiased one (Song et al. 2012, eq. 5), whose mean is 0 for sets that have nothing in common. Questions that a resample
draws twice make a pair of one question with itself; such pairs are left out like the diagonal.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def linear_cka(x: Float[np.ndarray, "items d"], y: Float[np.ndarray, "items e"]) -> float:
    """Similarity of two representations of the same items; 1 where one is a rotation of the other.

    Raises:
        ValueError: fewer than four items, of which the unbiased estimator is not defined.
    """
    return float(cka_of(gram(x), gram(y)))


def gram(x: Float[np.ndarray, "items d"]) -> Float[np.ndarray, "items items"]:
    """The kernel of the centred activations."""
    centred = x - x.mean(0)
    return centred @ centred.T


def cka_of(
    k: Float[np.ndarray, "items items"],
    l: Float[np.ndarray, "items items"],  # noqa: E741  as in the equation
    drawn: Int[np.ndarray, " draws"] | None = None,
) -> float:
    """CKA from two kernels, of a resample of the items where one is given.

    Raises:
        ValueError: fewer than four items.
    """
    if drawn is not None:
        apart = drawn[:, None] != drawn[None]
        k, l = k[np.ix_(drawn, drawn)] * apart, l[np.ix_(drawn, drawn)] * apart  # noqa: E741
    if len(k) < 4:
        raise ValueError(f"{len(k)} items; give at least four")
    spread = _hsic(k, k) * _hsic(l, l)
    return float(_hsic(k, l) / np.sqrt(spread)) if spread > 0 else 0.0


def _hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    n = len(k)
    off = ~np.eye(n, dtype=bool)
    k, l = k * off, l * off  # noqa: E741
    one, other = k.sum(0), l.sum(0)
    inner = (k * l).sum() + one.sum() * other.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ other)
    return float(inner / (n * (n - 3)))
