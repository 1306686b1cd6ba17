"""What each claim needs to be asked properly: questions, seeds, samples and updates, what that costs, and the command.

A kept finding says how far each condition's number spreads between questions. An interval's half falls with the root of
their number n, so a condition is seen in 80% of all cases where its truth is the smallest effect of interest d from

    n = n0 ((h (1 + z(0.8) / z(1 - 0.025/m)) + c) / (d - bound))²

on, with the kept interval's wider half h at n0 questions, m intervals that hold together, and c what chance gives above
the bound where a null must be passed as well; what is counted, and a number that is not defined, asks for none. Where
something is trained or fitted `claim.toml` asks for three seeds: fewer give no interval between them worth its name.

Cost is that of the kept call and of the runs that it found done, as these tell it (`Record.reused`), times how many
more questions, samples and tokens of an answer there are, or how much more is trained (`TRAINED`) where that is more,
times the seeds, and times how much slower this machine is than that one was (`pace`; 1 where the record does not say).
It is an upper bound, since fits do not grow with questions nor answers with updates. Where it is not known what was
found done (a training that another call did; all records from before 2026-11-29) it is a lower one, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from experiments.claims.base import Claim, claims
from experiments.claims.record import Record, kept
from experiments.claims.rules import COUNTED, POWER, Condition

# What the cost of trainings grows with; of a list its length.
TRAINED = (
    "updates",
    "steps",
    "fits",
    "group",
    "rollouts",
    "rollout_tokens",
    "positions",
    "thought_tokens",
    "arms",
    "rewards",
)
MOST = 1_000  # questions: what asks for more is said to


@dataclass(frozen=True)
class Plan:
    """Of one claim.

    Args:
        claim: which.
        n: questions that 80% power asks for; 0 where no condition asks for any.
        asks: the condition that asks for most.
        minutes: it takes, with nothing found done; None where nothing is kept to reckon from.
        least: whether it may be more, since the kept call does not say what it found done.
    """

    claim: Claim
    n: int
    asks: str
    minutes: float | None
    least: bool = False

    @property
    def limit(self) -> int:
        """Questions of the full settings."""
        return int(self.claim.settings[_counted(self.claim)])

    @property
    def command(self) -> str:
        seeds = f" --seeds {','.join(map(str, range(self.claim.seeds)))}" if self.claim.seeds > 1 else ""
        return f"python -m experiments.claims {self.claim.name}{seeds}"

    @property
    def cost(self) -> str:
        return "unknown" if self.minutes is None else f"{'at least ' * self.least}{self.minutes:,.0f} min"

    def row(self) -> dict[str, str]:
        settings = self.claim.settings
        return {
            "#": str(self.claim.number), "claim": self.claim.name,
            "n for 80%": f"{self.n:,}" if self.n else "–", "asked by": self.asks or "–",
            "n": f"{self.limit:,}" + (" (too few)" if self.limit < self.n else ""), "seeds": str(self.claim.seeds),
            "k": str(settings.get("samples", "–")), "updates": str(settings.get("updates", "–")),
            "cost": self.cost,
        }  # fmt: skip


def questions_for(one: Condition, n: int) -> float:
    """Questions from which a condition is seen in 80% of all cases at its smallest effect of interest; NaN where its
    number is not defined, 0 where it is counted.

    Args:
        one: as measured.
        n: questions that it was measured on.
    """
    room = one.interest - one.bound
    if room < COUNTED:
        return 0.0
    z = float(stats.norm.ppf(1 - 0.025 / one.together))
    half = max(one.value - one.interval.low, one.interval.high - one.value)
    chance = 0.0 if one.chance is None else max(0.0, one.chance - one.bound)
    return n * ((half * (1 + float(stats.norm.ppf(POWER)) / z) + chance) / room) ** 2


def planned(one: Claim, record: Record | None, slower: float = 1.0) -> Plan:
    """The plan of a claim.

    Args:
        one: the claim.
        record: what is kept of it.
        slower: by how much this machine is than the one of the record.
    """
    if record is None:
        return Plan(one, 0, "", None)
    counted = _counted(one)
    had = int(record.settings[counted])
    asked = [(questions_for(row, had), row.name) for row in record.judgement.conditions]
    most, name = max(((n, name) for n, name in asked if math.isfinite(n)), default=(0.0, ""))
    asks_more = int(one.settings[counted]) / had
    for grows in ("samples", "max_new_tokens"):
        asks_more *= float(one.settings.get(grows, 1)) / record.settings.get(grows, 1)
    trains_more = math.prod(
        _size(one.settings[name]) / _size(record.settings[name]) for name in TRAINED if name in one.settings
    )
    more = max(asks_more, trains_more) * one.seeds
    minutes = (record.seconds + (record.reused or 0.0)) / 60 * more / max(1, len(record.seeds)) * slower
    return Plan(one, math.ceil(most), name if most else "", minutes, record.reused is None)


def plans(pace: float | None = None) -> Sequence[Plan]:
    """Of all claims, cheapest first.

    Args:
        pace: seconds of a step here, as `Record.pace` has it of the machine of the record.
    """
    found = []
    for one in claims().values():
        record = kept(one)
        slower = pace / record.pace if pace and record and record.pace else 1.0
        found.append(planned(one, record, slower))
    return sorted(found, key=lambda plan: math.inf if plan.minutes is None else plan.minutes)


def _counted(one: Claim) -> str:
    """The setting that counts its questions."""
    return "limit" if "limit" in one.settings else "queries"


def _size(setting: Any) -> float:
    return float(len(setting.split(","))) if isinstance(setting, str) else float(setting)
