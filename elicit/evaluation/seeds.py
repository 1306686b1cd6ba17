"""One method under several seeds, on the same questions: means over both, with intervals for both.

With one seed an interval over questions says nothing of what another training, search or draw would have given: see
`probes.statistics.over_seeds`, which reads both. Where all seeds agree it is the interval over questions; with two that
differ it is wide, as it must be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.evaluation.metrics.format import percent, signed, with_interval
from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.run import Run
from probes.errors import UserError
from probes.statistics import Interval, over_seeds, proportion_interval

Scores = Mapping[str, Mapping[str, float]]
"""For each arm and item its score."""


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds and questions, its 95% interval, and each seed's own mean."""

    mean: float
    interval: Interval
    by_seed: list[float]


def parse_seeds(text: str) -> list[int]:
    """Seeds joined by commas.

    Raises:
        UserError: no numbers from 0 on, or one twice.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"seeds {text!r} were given; give whole numbers joined by commas, like 0,1,2") from error
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {text!r} were given; give distinct numbers from 0 on")
    return seeds


def summarised(values: Float[np.ndarray, "seeds questions"], *, low: float, high: float, seed: int = 0) -> OverSeeds:
    """The mean of scores or differences with its interval; of one seed's right and wrong answers it is that of a
    proportion.

    Args:
        values: of each seed and question.
        low, high: what a value can be; the interval stays within.
        seed: of the bootstrap over questions.
    """
    if len(values) == 1 and low == 0 and np.isin(values, (0, 1)).all():
        interval = proportion_interval(int(values.sum()), values.shape[1])
    else:
        interval = over_seeds(values, bounds=(low, high), seed=seed)
    return OverSeeds(float(values.mean()), interval, values.mean(1).tolist())


def pooled(
    scores: Sequence[Scores], reference: str, *, lead: bool = False, unstated: Collection[str] = (), seed: int = 0
) -> list[dict[str, Any]]:
    """All arms over several seeds, as JSON has them.

    Args:
        scores: of each seed, on the same items. Draws of one control (`random feature 12`, `random feature 90`), which
            another seed draws anew, are one arm, the mean of them.
        reference: the arm that differences are taken to.
        lead: whether they are the reference minus the row, instead of the row minus the reference.
        unstated: arms that have no accuracy under some seed, since their runs state none.
        seed: of the bootstrap.

    Returns:
        Rows with `arm`, `accuracy`, `interval`, `by_seed`; but for the reference's own `difference`,
        `difference_interval` and `difference_by_seed`. Of arms without an accuracy `arm` alone; of arms that some seed
        lacks, which come last, `arm` and how many `seeds` have it.

    Raises:
        UserError: seeds of different items, or without an arm in common.
    """
    items = list(next(iter(scores[0].values())))
    if any(set(arm) != set(items) for one in scores for arm in one.values()):
        raise UserError("the seeds are of different items; give runs of the same task, split and limit")
    shared = set.intersection(*(set(one) for one in scores))
    every = [_draws_together(one, shared, items) for one in scores]
    unstated = {_stem(name, shared) for name in unstated}
    names = [name for name in every[0] if all(name in one for one in every)]
    if reference not in names:
        raise UserError(f"{reference!r} is no arm of every seed; give one of {', '.join(names)}")
    values = {name: np.stack([one[name] for one in every]) for name in names}
    rows: list[dict[str, Any]] = []
    for name in names:
        if name in unstated:
            rows.append({"arm": name})
            continue
        own = summarised(values[name], low=0.0, high=1.0, seed=seed)
        row: dict[str, Any] = {"arm": name, "accuracy": own.mean, "interval": own.interval.pair, "by_seed": own.by_seed}
        if name != reference and reference not in unstated:
            apart = values[name] - values[reference]
            found = summarised(-apart if lead else apart, low=-1.0, high=1.0, seed=seed)
            row |= {
                "difference": found.mean, "difference_interval": found.interval.pair,
                "difference_by_seed": found.by_seed,
            }  # fmt: skip
        rows.append(row)
    rest = Counter(name for one in every for name in one if name not in names)
    return rows + [{"arm": name, "seeds": seeds} for name, seeds in rest.items()]


def _stem(name: str, shared: set[str]) -> str:
    """What a table calls an arm: its name where all seeds have it, else what is left without the draw."""
    return name if name in shared else re.sub(r"\s+(\d+|'[^']*'|\"[^\"]*\")$", "", name)


def _draws_together(
    scores: Scores, shared: set[str], items: Sequence[str]
) -> dict[str, Float[np.ndarray, " questions"]]:
    """Arms that all seeds have by name, and those that they draw, by what is left of the name."""
    found: dict[str, list[np.ndarray]] = {}
    for name, arm in scores.items():
        found.setdefault(_stem(name, shared), []).append(np.array([arm[item] for item in items]))
    return {name: np.mean(drawn, axis=0) for name, drawn in found.items()}


def scores_by_arm(run: Run) -> Scores:
    return {name: arm["scores"] for name, arm in run.metrics["arms"].items()}


def runs_over_seeds(runs: Mapping[int, Run], *, seed: int = 0) -> dict[str, Any]:
    """One method's runs under several seeds: its arms, and its lead over each.

    Raises:
        UserError: as `pooled`.
    """
    metrics = next(iter(runs.values())).metrics
    method = metrics["method"]
    unstated = {
        name for run in runs.values() for name, arm in run.metrics["arms"].items()
        if not is_accuracy(arm, run.metrics["items"])
    }  # fmt: skip
    return {
        "method": method, "task": metrics["task"], "items": metrics["items"], "model": metrics["model"],
        "seeds": list(runs), "runs": [str(run.folder) for run in runs.values()],
        "arms": pooled(
            [scores_by_arm(run) for run in runs.values()], method, lead=True, unstated=unstated, seed=seed
        ),
    }  # fmt: skip


HEAD = ("arm", "accuracy [95%]", "difference [95%]", "accuracy by seed")


def rows_of(arms: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of a table."""
    return [
        (
            row["arm"],
            with_interval(row["accuracy"], row["interval"]) if "accuracy" in row
            else "not under every seed" if "seeds" in row else "not stated",
            with_interval(row["difference"], row["difference_interval"], signed) if "difference" in row else "",
            " ".join(percent(value) for value in row.get("by_seed", ())),
        )
        for row in arms
    ]  # fmt: skip
