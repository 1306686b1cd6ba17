"""Answers whose verdict was lost, and when a run's accuracy may not be called one.

An answer is given up by what it costs alone (processor time and memory of the grading process, `elicit.tasks.worker`),
never by what was spent on others before it: the same answer has the same verdict in any order, in any batch and on any
loaded machine. So a run has no budget that runs out; it counts, and where too many answers of an arm have no verdict,
its accuracy is only known to lie between two bounds and is not stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOST = ("time", "memory", "died")  # reasons that say nothing of the answer; what a scorer cannot read is not right
MOST_LOST = 0.05  # of an arm's answers


def lost_of(arm: Mapping[str, Any]) -> int:
    """How many of an arm's answers have no verdict for want of time, memory or a process that survives them."""
    return sum(count for why, count in arm.get("unjudged", {}).items() if why in LOST)


def is_accuracy(arm: Mapping[str, Any], items: int) -> bool:
    """Whether an arm's accuracy is one: at most `MOST_LOST` of its answers have no verdict."""
    lost = lost_of(arm)
    return not lost or lost <= MOST_LOST * _answers(arm, items)


def _answers(arm: Mapping[str, Any], items: int) -> int:
    """How many an arm has, of which metrics keep the mean over questions."""
    return round(arm["branches_per_item"] * items)


def not_stated(arms: Mapping[str, Mapping[str, Any]], items: int) -> str:
    """One sentence where the accuracy of some arm is none; else "".

    Args:
        arms: of a run's metrics.
        items: its questions.
    """
    told = [
        f"{lost_of(arm)} of {_answers(arm, items)} answers of {name}"
        for name, arm in arms.items()
        if not is_accuracy(arm, items)
    ]
    if not told:
        return ""
    return (
        f"No accuracy is stated: {', '.join(told)} have no verdict, more than {MOST_LOST:.0%}; look at those answers, "
        "and grade them by another kind of answer or scorer."
    )
