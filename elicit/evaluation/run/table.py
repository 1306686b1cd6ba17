"""A run's samples by column: `samples.parquet` through DuckDB, so that of a million samples no token becomes an object.

Statistics read `Outcome`s, what each trace came to without its tokens; figures and the browser of samples read the
whole traces of the few questions that they show.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elicit.decoding.trace import Outcome, Trace
from elicit.evaluation.run.seal import not_whole

if TYPE_CHECKING:
    import duckdb

BATCH_SIZE = 50_000
MEMORY, THREADS = "768MB", 4  # of DuckDB's own; what does not fit goes through the disk


_OTHER_DELTAS = ("delta_greedy", "delta_zero")
_OUTCOMES = """
select source, item, "index", prompt_tokens, finish, spent, answer, delta, dropped, score,
       coalesce(list_sum({logprob}), 0.0) + {end_logprob}, coalesce(list_avg({logprob}), '-infinity'::double),
       {unjudged}, {found_by}, {forwards}, {delta_greedy}, {delta_zero}
from read_parquet($file)
"""


def outcomes(file: Path) -> dict[str, dict[str, list[Outcome]]]:
    """For each source and item its outcomes, in order.

    Raises:
        UserError: the table is cut, changed or of another program.
    """
    with readable(file), _uncollected():
        return _outcomes(file)


@contextmanager
def readable(file: Path) -> Iterator[Path]:
    """A table that is read; what its readers cannot make out is one line.

    Raises:
        UserError: the table is cut, changed or of another program.
    """
    import duckdb
    import pyarrow as pa

    try:
        yield file
    except (duckdb.Error, pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())
        raise not_whole(file.parent, f"its {file.name} cannot be read ({why})") from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: there are none here, and it would walk over all of it again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _outcomes(file: Path) -> dict[str, dict[str, list[Outcome]]]:
    out: dict[str, dict[str, list[Outcome]]] = {}
    for batch in _asked(_query(file), file=str(file)).to_arrow_reader(BATCH_SIZE):
        source, item, *columns = (column.to_numpy(zero_copy_only=False) for column in batch.columns)
        starts = np.flatnonzero(np.r_[True, (item[1:] != item[:-1]) | (source[1:] != source[:-1])])
        names = np.repeat(item[starts], np.diff(np.r_[starts, len(item)]))  # one text for all samples of a question
        rows = list(map(Outcome._make, zip(names, *_plain(columns), strict=True)))
        for first, last in pairwise([*starts.tolist(), len(rows)]):
            out.setdefault(source[first], {}).setdefault(rows[first].item, []).extend(rows[first:last])
    return out


def _query(file: Path) -> str:
    import pyarrow.parquet as pq

    known = pq.read_schema(file).names  # tables of older runs lack some
    later = {
        "end_logprob": "0.0", "unjudged": "''", "found_by": "''", "forwards": "-1",
        **dict.fromkeys(_OTHER_DELTAS, "null::double"),
    }  # fmt: skip
    columns = {k: f"coalesce({k}, {none})" if k in known else none for k, none in later.items()}
    logprob = "if(len(logprob) = 0, coalesce(logged, logprob), logprob)" if "logged" in known else "logprob"
    return _OUTCOMES.format(logprob=logprob, **columns)


def _plain(columns: Sequence[np.ndarray]) -> list[list[Any]]:
    """Lists of Python's own values: no answer has no Δ, and of a word that stands everywhere there is one."""
    values = dict(zip(Outcome._fields[1:], (column.tolist() for column in columns), strict=True))
    for name in ("delta", *_OTHER_DELTAS):
        values[name] = [None if d is None or d != d else d for d in values[name]]
    for name in ("finish", "dropped", "unjudged", "found_by"):
        values[name] = list(map(sys.intern, values[name]))
    return list(values.values())


def traces(file: Path, source: str, items: Sequence[str]) -> dict[str, list[Trace]]:
    """The whole traces of some items of one source.

    Raises:
        UserError: the table is cut, changed or of another program.
    """
    with readable(file):
        return _traces(file, source, items)


def _traces(file: Path, source: str, items: Sequence[str]) -> dict[str, list[Trace]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    wanted = pa.array(list(items), pa.string())
    out: dict[str, list[Trace]] = {}
    for group in range(table.num_row_groups):  # whose is read whole only where it holds one of them
        whose = table.read_row_group(group, columns=["source", "item"])
        here = pc.and_(pc.equal(whose["source"], source), pc.is_in(whose["item"], value_set=wanted))
        if not pc.any(here).as_py():
            continue
        for row in table.read_row_group(group).filter(here).drop_columns(["source"]).to_pylist():
            trace = Trace.from_dict({k: v for k, v in row.items() if v is not None or k in _OPTIONAL})
            out.setdefault(trace.item, []).append(trace)
    return out


_OPTIONAL = ("answer", "span", "delta")


def _asked(query: str, **parameters: Any) -> duckdb.DuckDBPyRelation:
    import duckdb

    # It keeps the order of the file, unless another is asked for.
    connection = duckdb.connect(config={"memory_limit": MEMORY, "threads": THREADS, "preserve_insertion_order": True})
    return connection.sql(query, params=parameters)
