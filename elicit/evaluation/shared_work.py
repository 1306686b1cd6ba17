"""An evaluation by several processes: each answers batches of its own, and the first one writes the run.

Batches are dealt out in rounds, one a process. All learn what each answered, since a matched budget is what another
arm spent; a round is written whole before the next begins, so a run that is stopped loses a round at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elicit.decoding.trace import Trace
from elicit.evaluation.run.journal import Journal
from elicit.models.processes import Processes

Answers = dict[str, list[Trace]]
"""Of one batch: for each source its traces."""


@dataclass
class Heard:
    """What a process that writes nothing knows of `samples.jsonl`; see `elicit.evaluation.run.journal.Journal`."""

    done: set[tuple[str, int]] = field(default_factory=set)
    spent: dict[str, dict[str, int]] = field(default_factory=dict)

    def append(self, source: str, batch: int, traces: Sequence[Trace]) -> None:
        self.done.add((source, batch))
        spent = self.spent.setdefault(source, {})
        for trace in traces:
            spent[trace.item] = spent.get(trace.item, 0) + trace.spent


def in_rounds(numbers: Sequence[int], processes: Processes | None) -> Iterable[Sequence[int]]:
    """Numbers of batches that are answered at the same time."""
    count = 1 if processes is None else processes.count
    return (numbers[start : start + count] for start in range(0, len(numbers), count))


def answered(
    numbers: Sequence[int], answer: Callable[[int], Answers], processes: Processes | None
) -> list[tuple[Answers, float]]:
    """What these batches were answered, and the seconds that each took its process.

    Args:
        numbers: of the batches, one a process at most.
        answer: one batch.
        processes: among whom they are dealt out.
    """

    def timed(number: int) -> tuple[Answers, float]:
        began = time.perf_counter()
        return answer(number), time.perf_counter() - began

    if processes is None:
        return [timed(number) for number in numbers]
    said = None
    if processes.rank < len(numbers):
        found, took = timed(numbers[processes.rank])
        said = {"took": took, "traces": {name: [t.to_dict() for t in traces] for name, traces in found.items()}}
    return [
        ({name: [Trace.from_dict(t) for t in traces] for name, traces in one["traces"].items()}, one["took"])
        for one in processes.exchange(said)[: len(numbers)]
    ]


def agree(arms: Sequence[str], items: Sequence[str], processes: Processes) -> None:
    """Refuse processes that were given, or fitted, something else than the first.

    Args:
        arms: says all that decides the samples of each.
        items: ids of the questions.

    Raises:
        UserError: the process is named.
    """
    told = processes.exchange([list(arms), list(items)])
    other = next((n for n, one in enumerate(told) if one != told[0]), None)
    if other is not None:
        what = "handles" if told[other][0] != told[0][0] else "questions"
        raise processes.refusal(f"process {other} evaluates other {what} than the first; give all the same")


def tell(execution: Mapping[str, Any], journal: Journal, processes: Processes) -> None:
    """Said by the first process: how a run is computed, and what it holds already."""
    processes.exchange([dict(execution), sorted(journal.done), journal.spent])


def hear(processes: Processes) -> tuple[dict[str, Any], Heard] | None:
    """What the first process told; None: the run is finished."""
    told = processes.exchange(None)[0]
    if told is None:
        return None
    execution, done, spent = told
    return execution, Heard({(source, batch) for source, batch in done}, spent)
