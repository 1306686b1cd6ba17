"""How a claim is judged: by conditions, each with the smallest effect of interest, into one of four verdicts.

A condition asks that a number lies above a bound, and names the smallest value of interest d above it (`INTEREST`
beyond the bound unless a claim says another; for what must *not* be there, the bound lies that far below 0). By the
number's 95% interval, the first that applies:

    fails     it lies below the bound: the opposite is shown
    no room   the number is not defined, or the largest that it could have been would not have been above the bound
    fails     it lies below d: no effect of interest is there
    holds     it lies above the bound, and p < 0.05 where a null is asked for as well
    open      else

A claim, the first that applies:

    not testable   something that it stands on is missing (a training that gained nothing, too few questions)
    not confirmed  a condition fails
    not testable   a condition has no room
    undecided      a condition is open; told is the effect that so many questions would have seen at 80% power
    confirmed      all hold

So one number cannot be confirmed where its truth is at the bound with more than 2.5%, nor refused where it is at d; of
several conditions all must hold, and each may fail, so that a claim of up to eight that are all true at d is refused
with at most 20%. How often that comes out: `python -m experiments.simulations`; several seeds: `seeds.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from probes.statistics import RESAMPLES, Interval, bootstrap_mean

CONFIRMED, NOT_CONFIRMED = "confirmed here", "not confirmed"
UNDECIDED, NOT_TESTABLE = "undecided here", "not testable here"
VERDICTS = (CONFIRMED, NOT_CONFIRMED, UNDECIDED, NOT_TESTABLE)
HOLDS, FAILS, OPEN, NO_ROOM = "holds", "fails", "open", "no room"
INTEREST = 0.1  # ten points: one value for all claims that name none, so that none is fitted to what was found
COUNTED = 1e-6  # between bound and interest: what is counted has no effect that is too small
FEWEST = 5  # questions that can tell
POWER = 0.8
STEPS = 2001  # of a difference, between its bound and 1


@dataclass(frozen=True)
class Condition:
    """What a claim asks of one number.

    Args:
        name: what the number is, as a sentence goes on after "it is open whether".
        value, interval: measured; NaN where it is not defined.
        bound: the interval must lie above it.
        interest: the smallest value of interest.
        together: how many such intervals hold at once with 95% (Bonferroni).
        p: of the null that it must pass as well; None where none is asked for.
        chance: the upper end of the null's middle 95%, where one is known.
        room: whether the largest value that there could have been would be above the bound.
        unit: `points` (the number is a fraction, shown in hundredths), or what follows the number.
        least_seen: the value that so many questions would have shown to lie above the bound in 80% of all cases, where
            the number is a mean of differences by question (`least_seen`); else it is read from the interval.
        by_question: what the number is the mean of, where it is one; not kept.
    """

    name: str
    value: float
    interval: Interval
    bound: float = 0.0
    interest: float = INTEREST
    together: int = 1
    p: float | None = None
    chance: float | None = None
    room: bool = True
    unit: str = "points"
    least_seen: float | None = None
    by_question: Float[np.ndarray, " n"] | None = field(default=None, repr=False, compare=False)

    @property
    def outcome(self) -> str:
        low, high = self.interval.pair
        defined = all(math.isfinite(one) for one in (self.value, low, high))
        if defined and high < self.bound:
            return FAILS
        if not defined or not self.room or (self.p is not None and math.isnan(self.p)):
            return NO_ROOM
        if high < self.interest:
            return FAILS
        return HOLDS if low > self.bound and (self.p is None or self.p < 0.05) else OPEN

    @property
    def seen(self) -> float:
        """The value that so many questions would have shown to be above the bound, and what chance gives, in 80% of all
        cases."""
        if self.least_seen is not None:
            return self.least_seen
        z = float(stats.norm.ppf(1 - 0.025 / self.together))
        least = self.bound if self.chance is None else max(self.bound, self.chance)
        return least + (self.value - self.interval.low) * (1 + float(stats.norm.ppf(POWER)) / z)

    @property
    def seen_told(self) -> str:
        """The same as text. What is counted has none; no difference of fractions is above 1, one of a gap may be."""
        if self.interest - self.bound < COUNTED:
            return "–"
        beyond = self.seen > 1 and self.bound < 0.5 and self.unit != "nats"
        return "none that can be" if beyond else self.shown(self.seen)

    def shown(self, value: float, *, signed: bool = True) -> str:
        if not math.isfinite(value):
            return "–"
        if self.unit == "points":
            return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
        return f"{value:.2f}"

    @property
    def measured(self) -> str:
        low, high = (self.shown(end) for end in self.interval.pair)
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.shown(self.value)} [{low}, {high}]{unit}" + (f", p {self.p:.2g}" if self.p is not None else "")

    def row(self) -> dict[str, str]:
        """A row of the table that stands on the claim's page."""
        return {
            "condition": self.name, "measured [95%]": self.measured, "must lie above": self.shown(self.bound),
            "of interest from": self.shown(self.interest), "could be seen at 80% power": self.seen_told,
            "outcome": self.outcome,
        }  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """Conditions, what the claim stands on and misses, and what follows."""

    conditions: tuple[Condition, ...]
    unmet: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        found = [one.outcome for one in self.conditions]
        if self.unmet or not found:
            return NOT_TESTABLE
        for outcome, verdict in ((FAILS, NOT_CONFIRMED), (NO_ROOM, NOT_TESTABLE), (OPEN, UNDECIDED)):
            if outcome in found:
                return verdict
        return CONFIRMED

    @property
    def reason(self) -> str:
        """The verdict's reason in one line."""
        if self.unmet or not self.conditions:
            return "; ".join(self.unmet) or "nothing was measured"
        by = {what: [one for one in self.conditions if one.outcome == what] for what in (FAILS, NO_ROOM, OPEN, HOLDS)}
        if by[FAILS]:
            return "does not hold: " + "; ".join(f"{one.name} {one.measured}" for one in by[FAILS])
        if by[NO_ROOM]:
            return "there is no room to see: " + "; ".join(one.name for one in by[NO_ROOM])
        if by[OPEN]:
            return "open: " + "; ".join(
                f"{one.name} {one.measured}, where what could be seen at 80% power is {one.seen_told}"
                for one in by[OPEN]
            )
        return "all holds: " + "; ".join(f"{one.name} {one.measured}" for one in by[HOLDS])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; what is not defined is None, and `least_seen` is there where it is known."""
        apart = ("by_question", "least_seen")
        kept = [{k: value for k, value in vars(one).items() if k not in apart} for one in self.conditions]
        rows = [
            {**row, "interval": [_or_none(end) for end in one.interval.pair], "value": _or_none(one.value),
             "p": None if one.p is None else _or_none(one.p, "undefined"),
             **({} if one.least_seen is None else {"least_seen": _or_none(one.least_seen, "none")})}
            for row, one in zip(kept, self.conditions, strict=True)
        ]  # fmt: skip
        return {"conditions": rows, "unmet": list(self.unmet)}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Judgement:
        rows = []
        for row in kept["conditions"]:
            low, high = (_or_nan(end) for end in row["interval"])
            p = None if row["p"] is None else _or_nan(row["p"])
            seen = row.get("least_seen")
            rows.append(
                Condition(
                    **{**row, "interval": Interval(low, high), "value": _or_nan(row["value"]), "p": p,
                       "least_seen": math.inf if seen == "none" else seen}
                )
            )  # fmt: skip
        return cls(tuple(rows), tuple(kept["unmet"]))


def lead(
    name: str,
    right: Float[np.ndarray, " n"],
    other: Float[np.ndarray, " n"],
    *,
    margin: float = 0.0,
    together: int = 1,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Condition:
    """By how much some answers are right more often than others to the same questions.

    Args:
        name: of the condition.
        right, other: scores between 0 and 1 of the same questions.
        margin: by how much they may be right less often.
        together: as in `Condition`.
        seed, resamples: of the bootstrap.
    """
    confidence = 1 - 0.05 / together
    interval, best = (
        bootstrap_mean(values, seed=seed, resamples=resamples, confidence=confidence)
        for values in (right - other, 1 - other)
    )
    return Condition(
        name, float((right - other).mean()), interval, -margin, INTEREST - margin, together,
        room=best.low > -margin, least_seen=least_seen(right - other, -margin, confidence=confidence),
        by_question=right - other,
    )  # fmt: skip


def least_seen(difference: Float[np.ndarray, " n"], bound: float, *, confidence: float = 0.95) -> float:
    """The mean difference that so many questions would have shown to lie above a bound in 80% of all cases; infinite
    where none would.

    A larger mean is thought to come of questions that are alike now and are won then, so that differences spread more
    as it grows; the interval is that of `probes.statistics.bootstrap_mean` but for the drawn part of it.

    Args:
        difference: between -1 and 1, by question.
        bound: the interval must lie above it.
        confidence: of the interval.
    """
    n, mean = len(difference), float(difference.mean())
    square, cube = (float((difference**power).mean()) - mean for power in (2, 3))  # a question won adds to all alike
    t = float(stats.t.ppf((1 + confidence) / 2, max(1, n - 1)))
    true = np.linspace(max(bound, -1.0), 1.0, STEPS)
    observed = true - float(stats.norm.ppf(POWER)) * np.sqrt(np.maximum(square + true - true**2, 0) / n)
    first, third = observed * n / (n + 2), (cube + observed) * n / (n + 2)
    second = ((square + observed) * n + 2) / (n + 2)
    spread = np.maximum(second - first**2, 1e-12)
    skew = (third - 3 * first * second + 2 * first**3) / spread
    low = first - t * np.sqrt(spread / (n + 2)) + np.minimum(0, skew * (2 * t * t + 1) / (6 * (n + 2)))
    shown = true[low > bound]
    return float(shown[0]) if len(shown) else math.inf


def absent(what: str, gain: float, interval: Interval, *, together: int = 1) -> Condition:
    """That something gains nothing of interest over direct answers: direct is at most `INTEREST` below it."""
    name = f"direct over {what}, at most {INTEREST:.0%} less"
    return Condition(name, -gain, Interval(-interval.high, -interval.low), -INTEREST, 0.0, together)


def either(conditions: Sequence[Condition]) -> Condition:
    """Of conditions of which one must hold, the one that decides."""
    order = (HOLDS, OPEN, NO_ROOM, FAILS)
    return min(conditions, key=lambda one: (order.index(one.outcome), -one.value if one.value == one.value else 0.0))


def few(n: int, what: str) -> list[str]:
    """What is missing where fewer than `FEWEST` questions can tell."""
    return [f"{what}: {n}, and at least {FEWEST} are needed"] if n < FEWEST else []


def _or_none(value: float, instead: str | None = None) -> float | str | None:
    return value if math.isfinite(value) else instead


def _or_nan(value: float | str | None) -> float:
    return value if isinstance(value, float | int) else math.nan
