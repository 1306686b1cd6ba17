"""A run's samples by column: DuckDB over `samples.parquet`, so that of a million samples no token becomes an object.

Statistics read `Outcome`s, what each trace came to without its tokens; figures and the browser of samples read the
whole traces of the few questions that they show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elicit.trace import Trace

if TYPE_CHECKING:
    import duckdb

AT_ONCE = 50_000
MEMORY, THREADS = "768MB", 4  # of DuckDB's own; what does not fit goes through the disk


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trace without its tokens; the fields are `Trace`'s own."""

    item: str
    index: int
    prompt_tokens: int
    finish: str
    spent: int
    answer: str | None
    delta: float | None
    dropped: str
    score: float
    total_logprob: float
    mean_logprob: float

    @property
    def correct(self) -> bool:
        return self.score >= 1.0


_OUTCOMES = """
select source, item, "index", prompt_tokens, finish, spent, answer, delta, dropped, score,
       coalesce(list_sum(logprob), 0.0), coalesce(list_avg(logprob), '-infinity'::double)
from read_parquet($file)
"""
_TRACES = """
select * exclude (source, file_row_number) from read_parquet($file, file_row_number = true)
where source = $source and item in (select unnest($items)) order by file_row_number
"""


def outcomes(file: Path) -> dict[str, dict[str, list[Outcome]]]:
    """For each source and item its outcomes, in order."""
    asked = _asked(_OUTCOMES, file=str(file))
    out: dict[str, dict[str, list[Outcome]]] = {}
    for source, item, index, prompt_tokens, finish, spent, answer, delta, dropped, *rest in _rows(asked):
        by_item = out.setdefault(source, {})
        found = by_item.get(item)
        if found is None:
            by_item[item] = found = []
            kept = item
        else:
            kept = found[0].item  # one text for all samples of a question
        about = (sys.intern(finish), spent, answer, delta, sys.intern(dropped))
        found.append(Outcome(kept, index, prompt_tokens, *about, *rest))
    return out


def traces(file: Path, source: str, items: Sequence[str]) -> dict[str, list[Trace]]:
    """The whole traces of some items of one source."""
    asked = _asked(_TRACES, file=str(file), source=source, items=list(items))
    names = [column[0] for column in asked.description or ()]
    out: dict[str, list[Trace]] = {}
    for row in _rows(asked):
        trace = Trace.from_dict({k: v for k, v in zip(names, row, strict=True) if v is not None or k in _OPTIONAL})
        out.setdefault(trace.item, []).append(trace)
    return out


_OPTIONAL = ("answer", "span", "delta")


def _asked(query: str, **parameters: Any) -> duckdb.DuckDBPyConnection:
    import duckdb

    # It keeps the order of the file, unless told otherwise.
    connection = duckdb.connect(config={"memory_limit": MEMORY, "threads": THREADS, "preserve_insertion_order": True})
    return connection.execute(query, parameters)


def _rows(asked: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := asked.fetchmany(AT_ONCE):
        yield from rows
