"""A run is a folder: `config.toml`, `items.jsonl`, `samples.jsonl` (append-only) → `samples.parquet`, `elicited/`,
`metrics.json`, `report.html`.

Samples are appended a batch at a time and flushed to the disk. Each line carries its batch and the number
of lines in it; when a run is opened again, whatever follows the last whole batch is cut off and computed
anew *in the same batches*. So a run that was killed ends with the same samples as one that was not, to the bit.
"""

from __future__ import annotations

import json
import os
import tomllib
from array import array
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from elicit.decoding.trace import Trace
from elicit.models.identity import SCHEMA
from elicit.tasks.base import Item, Items
from elicit.tasks.registry import restored
from probes.errors import UserError
from probes.files import LOCK, digest, locked, make_folder, no_link, whole, write_whole
from steering.adapters import WHOLE_FILES

CONFIG, ITEMS, SAMPLES, PARQUET, METRICS, REPORT = (
    "config.toml",
    "items.jsonl",
    "samples.jsonl",
    "samples.parquet",
    "metrics.json",
    "report.html",
)
# All that lies in a run's folder: what `--fresh` removes, and what may not be a link while a run is written.
_ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
BUNDLE = (
    "elicited.json",
    *(f"{name}.{kind}" for name in ("interventions", "partner") for kind in ("json", "safetensors")),
    *(f"{name}/{file}" for name in ("adapter", "partner") for file in _ADAPTER),
    *(f"model/{file}" for file in WHOLE_FILES),
)
MEMBERS = (
    METRICS, ITEMS, SAMPLES, PARQUET, REPORT, "card.json", "steer.html", "dose.json",
    *(f"{name}/{file}" for name in ("elicited", "direction") for file in BUNDLE),
    CONFIG,
)  # fmt: skip
ROWS = 4096  # of the table, written together


def folder_for(what: str, task: str, model: str, decides: Any) -> Path:
    """Where something is kept unless a folder is given: the name carries a hash of all that decides it."""
    return Path("runs") / f"{what}-{task}-{Path(model).name}-{digest(decides)}"


class Store:
    """The files of one run. `config["identity"]` says which run it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {}

    @staticmethod
    def open(folder: Path, config: dict[str, Any]) -> Store:
        """Create the run's folder, or resume the run that it holds.

        A resumed run keeps its own execution settings (the batches), so that it continues as it began.

        Raises:
            UserError: the folder holds another run, or something else.
        """
        store = Store(folder)
        if (folder / CONFIG).is_file():
            found = store._read_config()
            if found["schema"] < SCHEMA:
                raise UserError(
                    f"{str(folder)!r} holds a run of an older version, which does not say what its answers were "
                    "graded against; give another --out, or --fresh to start over"
                )
            if found["identity"] != as_kept(config["identity"]):
                changed = [k for k, v in as_kept(config["identity"]).items() if found["identity"].get(k) != v]
                raise UserError(
                    f"{str(folder)!r} holds a run with another {', '.join(changed) or 'configuration'}; "
                    "give another --out, or --fresh to start over"
                )
            return store
        make_folder(folder)
        if any(path.name not in (LOCK, f".{CONFIG}.part") for path in folder.iterdir()):
            raise UserError(f"{str(folder)!r} is not empty and holds no run; give another --out")
        store.config = as_kept({**config, "schema": SCHEMA})
        store._write_config()
        return store

    @staticmethod
    def clear(folder: Path) -> None:
        """Remove the run that a folder holds, under its lock: the files that a run has and no others.

        `config.toml` goes last, so that what was interrupted is still known as a run.

        Raises:
            UserError: no run of ours, something else beside it, a process that writes it; nothing is removed then.
        """
        Store(folder)._read_config()
        with locked(folder, "writing"):
            files = _members(folder)
            folders = _folders(folder)
            for path in _leaves(folder):
                known = folders if path.is_dir() else [folder / LOCK, *files]
                if path not in known or path.is_symlink():
                    raise UserError(
                        f"{str(folder)!r} holds {str(path.relative_to(folder))!r}, which is no file of a run; "
                        "nothing was removed: move it away, or give another --out"
                    )
            *others, config = files
            for path in others:
                path.unlink(missing_ok=True)
            for path in folders:
                if path.is_dir():
                    path.rmdir()
            config.unlink()

    @staticmethod
    def read(folder: Path) -> Store:
        """Open a run to look at it.

        Raises:
            UserError: there is no run.
        """
        store = Store(folder)
        store._read_config()
        return store

    def _read_config(self) -> dict[str, Any]:
        if not (self.folder / CONFIG).is_file():
            raise UserError(f"{str(self.folder)!r} holds no run (no {CONFIG}); give a run's folder")
        none = f"{str(self.folder)!r} holds no run of ours: its {CONFIG}"
        try:
            found = tomllib.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{none} cannot be read ({error}); give another folder, or remove it by hand") from error
        kinds = {"schema": int, "identity": dict, "arms": dict}
        if not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
            raise UserError(f"{none} was written by another program; give another folder")
        self.config = found
        return found

    def _write_config(self) -> None:
        import tomli_w

        self.write(CONFIG, tomli_w.dumps(self.config))

    def write_items(self, items: Items) -> None:
        """Keep the questions with their gold answers, so that the run can be looked into without its task."""
        lines = [json.dumps({**asdict(item), "kind": items.task.kind_of(item)}) for item in items]
        self.write(ITEMS, "\n".join(lines) + "\n")

    @property
    def keeps_items(self) -> bool:
        """Whether the questions are here; runs of older versions have none."""
        return (self.folder / ITEMS).is_file()

    def items(self) -> Items:
        """The questions again, with their grader.

        Raises:
            UserError: the run was written before runs kept them.
        """
        if not self.keeps_items:
            raise UserError(f"{str(self.folder)!r} holds no {ITEMS}, as older runs; run its command again with --fresh")
        lines = (self.folder / ITEMS).read_text(encoding="utf-8").splitlines()
        kept = tuple(Item(**json.loads(line)) for line in lines)
        return Items(restored(self.config["identity"]["task"], self.config["task"], kept), kept)

    def write(self, name: str, text: str) -> None:
        """All of a file or nothing of it."""
        write_whole(self.folder / name, text)

    @contextmanager
    def writing(self) -> Iterator[Journal]:
        """The samples, open for appending; one process at a time, until the run is finished.

        Raises:
            UserError: another process is writing this run, or began another one here; a link where a file goes.
        """
        with locked(self.folder, "writing"):
            identity = self.config["identity"]
            if self._read_config()["identity"] != identity:
                raise UserError(f"another process began a run in {str(self.folder)!r}; give another --out")
            for path in (*_members(self.folder), *_folders(self.folder)):
                no_link(path)
            with (self.folder / SAMPLES).open("a+b") as file:
                yield Journal(file)

    def traces(self, sources: Collection[str] | None = None) -> dict[str, dict[str, list[Trace]]]:
        """All whole batches: for each source (or these) and item its traces, in order."""
        out: dict[str, dict[str, list[Trace]]] = {}
        path = self.folder / SAMPLES
        if not path.is_file():
            return out
        with path.open("rb") as file:
            for source, _, traces in _batches(file):
                for trace in traces if sources is None or source in sources else ():
                    out.setdefault(source, {}).setdefault(trace.item, []).append(trace)
        return out

    def batches(self) -> Iterator[tuple[str, int, list[Trace]]]:
        """All whole batches as they were written: the source, the batch's number, its traces."""
        with (self.folder / SAMPLES).open("rb") as file:
            yield from _batches(file)

    def write_table(self, order: Sequence[str]) -> None:
        """Write the samples as Parquet, a source after another and each in the order of the items.

        Lines are found in one pass and read again in their order, a few thousand at a time.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = table_schema()
        with (
            whole(self.folder / PARQUET) as part,
            (self.folder / SAMPLES).open("rb") as file,
            pq.ParquetWriter(part, schema) as writer,
        ):
            for places in _places(file, order).values():
                for start in range(0, len(places), ROWS):
                    rows = [_row_at(file, int(place)) for place in places[start : start + ROWS]]
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the metrics, last of all: a run that has them is finished."""
        self.write(METRICS, json.dumps(metrics, indent=2, allow_nan=False))

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The metrics of a finished run, else None."""
        path = self.folder / METRICS
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


class Journal:
    """`samples.jsonl` while a run writes it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        file.seek(0)
        self.done: set[tuple[str, int]] = set()
        self.spent: dict[str, dict[str, int]] = {}
        whole = 0
        for source, batch, traces in _batches(file):
            self._note(source, batch, traces)
            whole = file.tell()
        file.truncate(whole)
        file.seek(whole)

    def append(self, source: str, batch: int, traces: Sequence[Trace]) -> None:
        head = {"source": source, "batch": batch, "of": len(traces)}
        lines = [json.dumps({**head, **trace.to_dict()}) for trace in traces]
        self.file.write(("\n".join(lines) + "\n").encode())
        self.file.flush()
        os.fsync(self.file.fileno())
        self._note(source, batch, traces)

    def _note(self, source: str, batch: int, traces: Sequence[Trace]) -> None:
        self.done.add((source, batch))
        spent = self.spent.setdefault(source, {})
        for trace in traces:
            spent[trace.item] = spent.get(trace.item, 0) + trace.spent


def _members(folder: Path) -> list[Path]:
    """Where a run's files lie, and those that are only half written; `config.toml` last."""
    places = [folder / name for name in MEMBERS]
    return [where for place in places for where in (place.with_name(f".{place.name}.part"), place)]


def _folders(folder: Path) -> list[Path]:
    """The folders in a run's folder, the inner ones first."""
    return sorted({place.parent for place in _members(folder)} - {folder}, reverse=True)


def _leaves(folder: Path) -> Iterator[Path]:
    """All that lies in a folder but its folders that hold something; links are not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
            yield from _leaves(path)
        else:
            yield path


def _batches(file: BinaryIO) -> Iterator[tuple[str, int, list[Trace]]]:
    """Whole batches from the file's position on; stops at the first line or batch that is not whole."""
    for source, batch, lines in _whole_batches(file):
        yield source, batch, [Trace.from_dict(data) for _, data in lines]


def _whole_batches(file: BinaryIO) -> Iterator[tuple[str, int, list[tuple[int, dict[str, Any]]]]]:
    """The same with each trace as it was written, and where its line begins."""
    while True:
        lines: list[tuple[int, dict[str, Any]]] = []
        head: tuple[str, int, int] | None = None
        while head is None or len(lines) < head[2]:
            begins = file.tell()
            line = file.readline()
            if not line.endswith(b"\n"):
                return
            try:
                data = json.loads(line)
            except json.JSONDecodeError:
                return
            found = (data.pop("source"), data.pop("batch"), data.pop("of"))
            if head is not None and found != head:
                return
            head = found
            lines.append((begins, data))
        yield head[0], head[1], lines


def _places(file: BinaryIO, order: Sequence[str]) -> dict[str, np.ndarray]:
    """For each source where the lines of its traces begin, in the order of the items."""
    rank = {item: n for n, item in enumerate(order)}
    found: dict[str, tuple[array[int], array[int]]] = {}
    for source, _, lines in _whole_batches(file):
        ranks, begins = found.setdefault(source, (array("q"), array("q")))
        for begin, data in lines:
            if data["item"] in rank:
                ranks.append(rank[data["item"]])
                begins.append(begin)
    return {
        source: np.array(begins)[np.argsort(np.array(ranks), kind="stable")]
        for source, (ranks, begins) in found.items()
    }


def _row_at(file: BinaryIO, place: int) -> dict[str, Any]:
    file.seek(place)
    data: dict[str, Any] = json.loads(file.readline())
    return data


def table_schema() -> Any:
    """The columns of the table: the source, and `Trace`'s fields."""
    import pyarrow as pa

    whole, real, text = pa.int64(), pa.float64(), pa.string()
    kinds = {
        "int": whole, "float": real, "str": text, "str | None": text, "float | None": real, "int | None": whole,
        "list[int]": pa.list_(whole), "list[float]": pa.list_(real), "tuple[int, int] | None": pa.list_(whole),
    }  # fmt: skip
    return pa.schema([("source", text), *((field.name, kinds[str(field.type)]) for field in fields(Trace))])


def as_kept(value: Any) -> Any:
    """As TOML will give it back: no None, no tuples."""
    if isinstance(value, dict):
        return {str(k): as_kept(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [as_kept(v) for v in value]
    return value
