"""The area under the ROC curve."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats


def auroc(score: Float[np.ndarray, " n"], positive: Shaped[np.ndarray, " n"]) -> float:
    """Chance that a positive's score is above a negative's, ties counting half; NaN if one class is empty."""
    positive = np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
