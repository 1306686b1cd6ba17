"""How a cell of the map is read: the trained model less its base at k = 1 and at the largest k.

By the 95% intervals over questions (and seeds) that hold together over the cells of the map (Bonferroni), ten points
being of interest, the first that applies:

    creates     at the largest k the trained model leads: it solves what samples of the base do not reach
    narrows     at the largest k the base leads
    selects     at k = 1 the trained model leads, and at the largest k by less than ten points
    nothing     it leads by less than ten points at both
    undecided   else

The largest k is half the samples of a question: at k = n pass@k is 1 or 0, its noisiest form. The primary figure is the
lead at the largest k. Below k = 32 the base's reach is not told, and a reading says so. This rule was written before
the first training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from elicit.analysis.behaviour.pass_at_k import Samples, curves
from experiments.claims.narrowing import TENS
from experiments.claims.rules import INTEREST
from probes.statistics import Interval, bootstrap_mean, over_seeds

CREATES, NARROWS, SELECTS, NOTHING, UNDECIDED = "creates", "narrows", "selects", "nothing", "undecided"


class Leads(NamedTuple):
    """The trained model less its base at k = 1 and at the largest k, question by question for each seed."""

    first: Float[np.ndarray, "seeds items"]
    last: Float[np.ndarray, "seeds items"]
    most: int


def leads(pairs: Sequence[tuple[Samples, Samples]], most: int) -> Leads:
    """Of (base, trained) for each seed, on the same questions."""
    first, last = [], []
    for base, trained in pairs:
        of_base, of_trained = (curves(one, most) for one in (base, trained))
        first.append(of_trained[:, 0] - of_base[:, 0])
        last.append(of_trained[:, -1] - of_base[:, -1])
    return Leads(np.stack(first), np.stack(last), most)


def mean(values: Float[np.ndarray, "seeds items"], together: int, seed: int = 0) -> tuple[float, Interval]:
    """The mean over seeds and questions; so many of these intervals hold at once with 95%."""
    confidence = 1 - 0.05 / together
    if len(values) == 1:
        return float(values.mean()), bootstrap_mean(values[0], seed=seed, confidence=confidence)
    return float(values.mean()), over_seeds(values, seed=seed, confidence=confidence)


def read(first: Interval, last: Interval) -> str:
    """The reading of a cell by the intervals of its leads."""
    if last.low > 0:
        return CREATES
    if last.high < 0:
        return NARROWS
    if last.high < INTEREST:
        if first.low > 0:
            return SELECTS
        if first.high < INTEREST:
            return NOTHING
    return UNDECIDED


def row(one: Leads, together: int, seed: int = 0) -> dict[str, Any]:
    """A cell as it is kept."""
    first, last = (mean(values, together, seed) for values in (one.first, one.last))
    return {
        "k": one.most, "items": one.first.shape[1], "seeds": len(one.first),
        "lead at 1": [first[0], *first[1].pair], "lead at k": [last[0], *last[1].pair],
        "reading": read(first[1], last[1]) + ("" if one.most >= TENS else f" (k = {one.most}, below {TENS})"),
    }  # fmt: skip
