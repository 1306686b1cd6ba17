"""Linear probes: what can be read off activations by a weighted sum, judged on questions that did not fit it.

Ridge regression in closed form: with the kernel K = XXᵀ of the standardised activations of the questions that fit,
predictions elsewhere are K' (K + λI)⁻¹ y, so that the labels and all their permutations are solved in one step. Every
question is predicted by a probe that was fitted without it (folds by question). The null refits with permuted labels:
what a probe of this size finds in labels that mean nothing (arXiv 1909.03368 asks for such a control).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import stats

from probes.errors import UserError

FOLDS, PERMUTATIONS = 5, 1000
PENALTY = 1.0  # of the kernel's mean diagonal; standardised activations make it the same for all layers


@dataclass(frozen=True, eq=False)
class Fitted:
    """Out-of-fold predictions on each test set: of the labels, and of their permutations."""

    scores: list[Float[np.ndarray, " items"]]
    null: list[Float[np.ndarray, "items permutations"]]


def folds_of(groups: Sequence[Any], seed: int = 0, folds: int = FOLDS) -> Int[np.ndarray, " items"]:
    """A fold for each item; items of one group share theirs.

    Raises:
        UserError: fewer groups than folds.
    """
    names, number = np.unique([str(g) for g in groups], return_inverse=True)
    if len(names) < folds:
        raise UserError(f"{len(names)} questions were given; give at least {folds}, one a fold")
    fold = np.random.default_rng(seed).permutation(len(names)) % folds
    return np.asarray(fold[number])


def crossfit(
    train: Float[np.ndarray, "items features"],
    labels: Float[np.ndarray, " items"],
    tests: Sequence[Float[np.ndarray, "items features"]],
    folds: Int[np.ndarray, " items"],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Fitted:
    """Fit on all folds but one, predict that one in every test set.

    Args:
        train: what the probe is fitted on, an item a row.
        labels: what it is to say.
        tests: features of the same items elsewhere (under other handles), and the base's own.
        folds: of the items.
        permutations: of the labels, for the null.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    many = np.column_stack([labels, *(rng.permutation(labels) for _ in range(permutations))])
    out = [np.zeros((len(labels), permutations + 1)) for _ in tests]
    for fold in np.unique(folds):
        fit = folds != fold
        mean, spread = train[fit].mean(0), train[fit].std(0)
        spread = np.where(spread > 0, spread, 1.0)
        x = (train[fit] - mean) / spread
        kernel = x @ x.T
        centre = many[fit].mean(0)
        penalty = PENALTY * max(float(np.trace(kernel)) / len(kernel), 1e-12)
        dual = np.linalg.solve(kernel + penalty * np.eye(len(kernel)), many[fit] - centre)
        weights = x.T @ dual
        for values, test in zip(out, tests, strict=True):
            # The mean of the labels differs from fold to fold, against the label that was left out: it would give a
            # probe that knows nothing an AUROC below a half.
            values[~fit] = ((test[~fit] - mean) / spread) @ weights
    return Fitted([values[:, 0] for values in out], [values[:, 1:] for values in out])


def auroc_columns(
    scores: Float[np.ndarray, "items columns"], positive: Shaped[np.ndarray, " items"]
) -> Float[np.ndarray, " columns"]:
    """The area under the ROC curve of each column."""
    positive = np.asarray(positive, dtype=bool)
    up, down = int(positive.sum()), int((~positive).sum())
    if not up or not down:
        return np.full(scores.shape[1], np.nan)
    ranks = stats.rankdata(scores, axis=0)
    return (ranks[positive].sum(0) - up * (up + 1) / 2) / (up * down)


def spearman_columns(
    scores: Float[np.ndarray, "items columns"], values: Float[np.ndarray, " items"]
) -> Float[np.ndarray, " columns"]:
    """Spearman's correlation of each column with the values; 0 for a column that is constant."""
    one, other = (stats.rankdata(v, axis=0) for v in (scores, values[:, None]))
    one, other = one - one.mean(0), other - other.mean(0)
    spread = np.sqrt((one**2).sum(0) * (other**2).sum(0))
    return np.divide((one * other).sum(0), spread, out=np.zeros(len(spread)), where=spread > 0)
