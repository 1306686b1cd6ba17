"""How much of a document the filter keeps, by kind of document, and whether it drops the documents that matter.

The filter keeps positions whose next token a proxy is unsure of (`elicit.training.rl.next_token.entropies`). Of a
document d with kept fraction k_d and influence I_dq on a query q (claim 17, EK-FAC), a query's documents are kept by

    w_q = Σ_d max(0, I_dq) k_d / Σ_d max(0, I_dq)        less their plain mean Σ_d k_d / D

Negative: documents that matter to the query are kept less than others are. The primary figure is its mean over queries
for procedures at 1 nat; ten points are of interest. *The filter drops the documents that matter*: confirmed where the
95% interval over queries lies below 0, not confirmed where it lies above -10 points, else undecided. This rule was
written before anything was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.claims.rules import Condition
from probes.errors import UserError
from probes.statistics import Interval, bootstrap_mean

THRESHOLDS = (0.5, 1.0, 1.5)  # nats: the three of the paper
PRIMARY = 1.0


class Entropies(NamedTuple):
    """Of one document the entropies (nats) in the place of each token from its second one on.

    `asked` counts those that are of the question with what puts it; `part` names what follows.
    """

    kind: str
    part: str
    values: list[float]
    asked: int

    @property
    def parts(self) -> dict[str, list[float]]:
        """The entropies by part of the document, parts without a position left out."""
        whole = f"{self.kind}, {self.part}" if self.part else self.kind
        found = {f"{self.kind}, question": self.values[: self.asked], whole: self.values[self.asked :]}
        return {name: some for name, some in found.items() if some}


def kept(values: Sequence[float], threshold: float) -> float:
    """The fraction of positions whose entropy is at least the threshold."""
    return float(np.mean(np.asarray(values) >= threshold))


def by_part(documents: Sequence[Entropies], seed: int = 0) -> list[dict[str, Any]]:
    """Of each part of each kind of document its entropies and the fraction kept, with 95% intervals over documents."""
    found: dict[str, list[list[float]]] = {}
    for document in documents:
        for name, values in document.parts.items():
            found.setdefault(name, []).append(values)
    return [
        {
            "part": name, "documents": len(some), "positions": sum(map(len, some)),
            "entropy": np.quantile(np.concatenate(some), (0.25, 0.5, 0.75)).tolist(),
            "kept": {str(h): _mean(np.array([kept(one, h) for one in some]), seed, (0.0, 1.0)) for h in THRESHOLDS},
        }
        for name, some in found.items()
    ]  # fmt: skip


def by_kind(documents: Sequence[Entropies]) -> dict[str, dict[str, int]]:
    """How many positions each kind has, and how many of them are kept at each threshold."""
    out: dict[str, dict[str, int]] = {}
    for document in documents:
        row = out.setdefault(document.kind, {"all": 0, **{str(h): 0 for h in THRESHOLDS}})
        row["all"] += len(document.values)
        for h in THRESHOLDS:
            row[str(h)] += sum(value >= h for value in document.values)
    return out


def shift(
    influence: Float[np.ndarray, "queries documents"], kept_of: Float[np.ndarray, " documents"]
) -> Float[np.ndarray, " queries"]:
    """By how much more of the documents is kept that matter to each query than of all, in fractions of positions.

    Raises:
        UserError: a query that no document makes likelier.
    """
    positive = np.clip(influence, 0, None)
    whole = positive.sum(1)
    if not (whole > 0).all():
        raise UserError(
            f"{int((whole <= 0).sum())} queries have no document of positive influence; give more documents"
        )
    found: np.ndarray = positive @ kept_of / whole - kept_of.mean()
    return found


def bounds_of(kept_of: Float[np.ndarray, " documents"]) -> tuple[float, float]:
    """Between which a shift lies: all the influence may be of the document of which least is kept, or most."""
    return float(kept_of.min() - kept_of.mean()), float(kept_of.max() - kept_of.mean())


def dropped(shifts: Float[np.ndarray, " queries"], bounds: tuple[float, float], seed: int = 0) -> Condition:
    """The condition of the rule: that less is kept of the documents that matter; `bounds` as `bounds_of` has them."""
    interval = bootstrap_mean(shifts, bounds=bounds, seed=seed)
    return Condition(
        "documents that matter are kept less", -float(shifts.mean()), Interval(-interval.high, -interval.low),
        by_question=-shifts,
    )  # fmt: skip


def shifts_of(
    influence: Float[np.ndarray, "queries documents"],
    kinds: Mapping[str, np.ndarray],
    kept_of: Float[np.ndarray, " documents"],
    within: Float[np.ndarray, " documents"],
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """For each kind of query the mean shift over all documents, and over those of one kind alone.

    Args:
        influence: of each document on each query.
        kinds: the queries of each kind, as their places.
        kept_of: the fraction kept of each document.
        within: which documents are of the one kind.
        seed: of the bootstrap.
    """
    out = {}
    for kind, places in kinds.items():
        some = influence[places]
        out[kind] = {
            "queries": len(places), "all": _mean(shift(some, kept_of), seed, bounds_of(kept_of)),
            "within": _mean(shift(some[:, within], kept_of[within]), seed, bounds_of(kept_of[within])),
        }  # fmt: skip
    return out


def _mean(values: Float[np.ndarray, " n"], seed: int, bounds: tuple[float, float]) -> dict[str, float]:
    interval = bootstrap_mean(values, bounds=bounds, seed=seed)
    return {"mean": float(values.mean()), "low": interval.low, "high": interval.high}
