"""What hybrid decoding did in a run, from its traces: how often the models disagreed, how often the base was steered.

*Teacher leak* is the fraction of emitted tokens that are the partner's own choice. Where the two differ it says how
much of the partner's text was let through by the selection: emitting the partner's token at every disagreement is the
partner's own decoding, and recovers all of the gap by construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elicit.decoding.trace import Trace
from elicit.evaluation.metrics.gap import DIRECT, gap_cell, of_arms, scores_of
from elicit.evaluation.run.run import Run
from probes.errors import UserError

GAP_HEAD = ("arm", "gap recovered [95%]", "steered", "‖Δh‖/‖h‖", "copied", "copied where they differ", "cut")


@dataclass(frozen=True)
class Transfer:
    """One run. Fractions are of all tokens; None where no partner was asked, or where there are none.

    Args:
        tokens: how many.
        differs: fraction at which the two greedy tokens differ.
        steered: fraction of tokens that a steered candidate gave.
        replaced: fraction of tokens that came from the partner's distribution (substitution, mixing).
        copied: teacher leak: fraction of tokens that are the partner's own choice.
        copied_where_differs: the same, of the tokens at which the two differ.
        moved: mean ‖Δh‖ / ‖h‖ at the positions of the steered tokens.
        truncated: fraction of answers that were cut at the limit.
        by_candidate: fraction of the steered tokens that each candidate gave.
        by_category: fraction of the positions where the gate fired, and how many of these were steered.
    """

    tokens: int
    differs: float | None
    steered: float | None
    replaced: float | None
    copied: float | None
    copied_where_differs: float | None
    moved: float | None
    truncated: float
    by_candidate: dict[str, float]
    by_category: dict[str, tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def summarise(traces: Iterable[Trace]) -> Transfer:
    """The summary of a run's answers.

    Raises:
        UserError: no traces, or traces of another decoder.
    """
    every = list(traces)
    if not every:
        raise UserError("no traces were given to summarise; give those of a run of hybrid decoding")
    if any(len(t.taken) != len(t.tokens) for t in every):
        raise UserError("these traces are of another decoder; give those of a run of hybrid decoding")
    differs, taken, category, copied = (
        np.array([v for t in every for v in getattr(t, name)], dtype=int)
        for name in ("differs", "taken", "category", "copied")
    )
    moved = np.array([m for t in every for m in t.moved])
    steered, fired = taken > 0, category >= 0
    return Transfer(
        tokens=len(taken),
        differs=_mean(differs[differs >= 0]),
        steered=_mean(steered),
        replaced=_mean(taken < 0),
        copied=_mean(copied[copied >= 0]),
        copied_where_differs=_mean(copied[differs == 1]),
        moved=_mean(moved[steered]),
        truncated=float(np.mean([t.finish == "length" for t in every])),
        by_candidate={str(c): float((taken[steered] == c).mean()) for c in np.unique(taken[steered])},
        by_category={
            str(c): (float((category[fired] == c).mean()), float(steered[category == c].mean()))
            for c in np.unique(category[fired])
        },
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def gap_rows(run: Run, ceiling: str, baseline: str = DIRECT) -> list[tuple[str, ...]]:
    """The fraction of the gap between `baseline` and `ceiling` that each arm recovers, and how; none without
    the two."""
    arms = run.metrics["arms"]
    if not {baseline, ceiling} <= set(arms):
        return []
    scores = {name: scores_of(run.metrics, name) for name in arms}
    traces = run.traces
    rows = []
    for name, got in of_arms(scores, direct=baseline, ceiling=ceiling, seed=run.metrics["seed"]).items():
        told = gap_cell(got.share, got.interval.pair if got.interval else None, got.gain, got.gain_interval.pair)
        mine = [t for some in traces.get(name, {}).values() for t in some]
        did = summarise(mine) if mine and all(len(t.taken) == len(t.tokens) for t in mine) else None
        cells = [did.steered, did.moved, did.copied, did.copied_where_differs, did.truncated] if did else [None] * 5
        rows.append((name, told, *("" if v is None else f"{v:.3f}" for v in cells)))
    return rows
