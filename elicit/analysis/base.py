"""What an analysis is, what it returns, how its result is kept on disk, and what several of them need.

An author writes a module (`elicit/analysis/README.md` has one in full). The registry wraps it in an `Analyser`, and the
command line and the reports ask that.

A result is two files: `<name>.json` (command, options, model, notes, table, numbers) and `<name>.figures.json`. `save`
writes them and `load` reads them, and nothing else does.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import plotly.graph_objects as go

from probes.errors import UserError
from probes.files import ours_to_replace, write_whole
from probes.modules import checked, keywords
from probes.statistics import Interval

T = TypeVar("T")
MODEL, RUNS, SAMPLES = "model", "runs", "samples"  # what an analysis reads
PROGRESS = "progress"  # the one parameter of `analyse` that is no option
FIGURES = ".figures.json"


@dataclass(frozen=True, eq=False)
class Analysis:
    """A result with its picture.

    Args:
        name: of the analysis.
        table: rows, each a dict of column to value.
        figure: the main figure.
        notes: what a reader must know, a sentence each.
        data: all numbers, as JSON can hold them.
        more: further figures: (heading, explanation, figure).
    """

    name: str
    table: list[dict[str, Any]]
    figure: go.Figure
    notes: list[str]
    data: dict[str, Any]
    more: list[tuple[str, str, go.Figure]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Analyser:
    """An analysis of the registry. The name of each attribute in the author's module stands in brackets.

    Args:
        module: the author's.
        name: [`NAME`] of the analysis, and of the files of its results.
        summary: [`SUMMARY`] what it shows, half a sentence.
        paper: [`PAPER`] the arXiv id it follows, or "".
        analyse: [`analyse`] `analyse(model, *, …)` or `analyse(runs, *, …)`, which returns an `Analysis`. Its options
            are keyword-only, each with a default; one called `progress` is `(what, done, of) -> None` and no option.
        reads: [`READS`, optional] `model`; `runs`, which it may open to load their model; or `samples`: nothing but
            what runs of one task and one model hold on disk. Those that read samples are in every report. Unless
            given: as the first parameter of `analyse` is called.
        about: what it is a question about: the folder that the module stands in.
    """

    module: ModuleType
    name: str
    summary: str
    paper: str
    analyse: Callable[..., Analysis]
    reads: str
    about: str

    @staticmethod
    def of(module: ModuleType) -> Analyser:
        """Wrap a module.

        Raises:
            ValueError: what it lacks, or has otherwise than it is called for.
        """
        texts = ("NAME", "SUMMARY", "PAPER")
        types = dict.fromkeys((*texts, "READS"), str)
        found = checked(module, "analysis", (*texts, "analyse"), types, {"analyse": (("subject",), ())})
        where = f"the analysis module {module.__name__!r}"
        first = next(iter(inspect.signature(found["analyse"]).parameters))
        if first not in (MODEL, RUNS):
            raise ValueError(f"analyse of {where} takes {first!r} first; call it model, or runs")
        reads = found.get("READS", first)
        if reads not in ({MODEL} if first == MODEL else {RUNS, SAMPLES}):
            raise ValueError(f"{where} has READS = {reads!r} and its analyse takes {first}")
        keywords(found["analyse"], f"analyse of {where}", 1)
        about = module.__name__.rpartition(".")[0].rpartition(".")[2]
        return Analyser(module, found["NAME"], found["SUMMARY"], found["PAPER"], found["analyse"], reads, about)

    @property
    def takes_runs(self) -> bool:
        return self.reads != MODEL

    @property
    def options(self) -> dict[str, Any]:
        """Its options with their defaults."""
        found = keywords(self.analyse, f"analyse of {self.name}", 1)
        return {name: option.default for name, option in found.items() if name != PROGRESS}

    @property
    def tells_progress(self) -> bool:
        return PROGRESS in inspect.signature(self.analyse).parameters


def check_place(folder: Path, name: str) -> None:
    """Refuse a folder in which a result would be written over files that are not ours.

    Raises:
        UserError: which.
    """
    ours_to_replace(folder / f"{name}.json", f'"analysis": "{name}"')
    ours_to_replace(folder / f"{name}{FIGURES}", '[["Result", ""')


def save(result: Analysis, folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write a result as JSON, and its figures beside it.

    Args:
        result: of the analysis.
        folder: that is there.
        about: how it was made: command, options, model.

    Returns:
        What the JSON file holds.
    """
    numbers = {"notes": result.notes, "table": result.table, "data": result.data}
    saved: dict[str, Any] = plain({"analysis": result.name, **about, **numbers})
    figures = [("Result", "", result.figure), *result.more]
    drawn = [(heading, text, json.loads(figure.to_json())) for heading, text, figure in figures]
    write_whole(folder / f"{result.name}{FIGURES}", json.dumps(drawn, ensure_ascii=False, allow_nan=False))
    written = json.dumps(saved, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(folder / f"{result.name}.json", written + "\n")
    return saved


def load(file: Path) -> Analysis:
    """A result as `save` wrote it, with its figures from the file beside it.

    Raises:
        UserError: one of both is not there, cannot be read, or is something else (one line).
    """
    drawn = file.with_name(file.name.removesuffix(".json") + FIGURES)
    data = _json(file)
    shape: dict[str, type] = {"analysis": str, "notes": list, "table": list, "data": dict}
    for key, kind in shape.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), kind):
            raise _no_result(file, f"it has no {key!r} that is a {kind.__name__}")
    if not all(isinstance(row, dict) and row.keys() == data["table"][0].keys() for row in data["table"]):
        raise _no_result(file, "the rows of its 'table' are not objects with the same keys")
    if not all(isinstance(note, str) for note in data["notes"]):
        raise _no_result(file, "its 'notes' are not texts")
    figures = _json(drawn)
    try:
        (_, _, first), *more = [(str(heading), str(text), go.Figure(figure)) for heading, text, figure in figures]
    except (TypeError, ValueError) as error:
        raise _no_result(drawn, "it is not a list of [heading, explanation, Plotly figure]") from error
    return Analysis(data["analysis"], data["table"], first, data["notes"], data["data"], more)


def _json(file: Path) -> Any:
    if not file.is_file():
        raise UserError(f"there is no {str(file)!r}; give a JSON file that `elicit analyse` wrote")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be read ({error.strerror}); give another file") from error
    except (ValueError, RecursionError) as error:
        raise _no_result(file, f"it is not JSON: {error}") from error


def _no_result(file: Path, why: str) -> UserError:
    return UserError(f"{str(file)!r} is no result of `elicit analyse` ({why}); give one, or make it again")


def plain(value: Any) -> Any:
    """What JSON can hold of a result; NaN is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_turn(what: str, some: Sequence[T], progress: Callable[[str, int, int], None] | None) -> Iterator[T]:
    """Each of them in its turn; `progress` is called with what they are for, how many are done, and of how many."""
    for done, one in enumerate(some):
        if progress is not None:
            progress(what, done, len(some))
        yield one


def shown(value: float, interval: Interval | None = None) -> str:
    """A number with its interval, as a table's cell."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval is not None else "")


def with_left_out(rows: list[dict[str, Any]], left_out: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a table, and a row for each arm to which the analysis does not apply, with the reason.

    The first column names the arm, and the last is its reading.
    """
    first, *_, last = rows[0]
    empty = dict.fromkeys(rows[0], "–")
    return [*rows, *({**empty, first: name, last: f"does not apply: {why}"} for name, why in left_out.items())]


def halves(count: int, seed: int) -> np.ndarray:
    """Which of so many items are for fitting: a random half, [count] of bool."""
    fit = np.zeros(count, dtype=bool)
    fit[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    return fit
