"""A run is a folder: `config.toml`, `items.jsonl`, `samples.jsonl` (append-only) → `samples.parquet`, `elicited/`,
`metrics.json`, `report.html`.

Samples are appended a batch at a time (`journal.py`), so a run that was killed ends with the same samples as one that
was not, to the bit. All files carry hashes, to which a run is held whenever it is read (`seal.py`).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from elicit.decoding.trace import Trace
from elicit.evaluation.run import seal
from elicit.evaluation.run.journal import Journal, batches_of, places_of, row_at
from elicit.models.identity import SCHEMA
from elicit.tasks.base import Item, Items
from elicit.tasks.registry import restored
from probes.errors import GARBLED, UserError
from probes.files import HOLDER, LOCK, digest, locked, make_folder, no_link, whole, write_whole
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
    *(f"{name}.{kind}" for name in ("interventions", "partner", "mixing") for kind in ("json", "safetensors")),
    *(f"{name}/{file}" for name in ("adapter", "partner") for file in _ADAPTER),
    *(f"model/{file}" for file in WHOLE_FILES),
)
MEMBERS = (
    METRICS, ITEMS, SAMPLES, PARQUET, REPORT, "card.json", "steer.html", "dose.json",
    *(f"{name}/{file}" for name in ("elicited", "direction") for file in BUNDLE),
    CONFIG,
)  # fmt: skip
SEALED = (CONFIG, ITEMS, SAMPLES, PARQUET, *(name for name in MEMBERS if name.startswith("elicited/")))
ROWS = 4096  # of the table, written together


def folder_for(what: str, task: str, model: str, decides: Any) -> Path:
    """Where something is kept unless a folder is given: the name carries a hash of all that decides it."""
    return Path("runs") / f"{what}-{task}-{Path(model).name}-{digest(decides)}"


class Store:
    """The files of one run. `config["identity"]` says which run it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {}
        self._kept: seal.Kept | None = None
        self._checked: set[str] = set()

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
                told = ", ".join(f"{'other' if k.endswith('s') else 'another'} {k}" for k in changed)
                raise UserError(
                    f"{str(folder)!r} holds a run with {told or 'another configuration'}; "
                    "give another --out, or --fresh to start over"
                )
            return store
        make_folder(folder)
        if any(path.name not in (LOCK, HOLDER, f".{CONFIG}.part") for path in folder.iterdir()):
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
                known = folders if path.is_dir() else [folder / LOCK, folder / HOLDER, *files]
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
        data = (self.folder / CONFIG).read_bytes()
        if not seal.is_config_whole(data):
            raise UserError(f"{none} was cut or changed; put it back from a copy, or give another folder")
        try:
            found = tomllib.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{none} cannot be read ({error}); give another folder, or remove it by hand") from error
        kinds = {"schema": int, "identity": dict, "arms": dict}
        if not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
            raise UserError(f"{none} was written by another program; give another folder")
        self.config = found
        return found

    def _write_config(self) -> None:
        import tomli_w

        self.write(CONFIG, seal.sealed_config(tomli_w.dumps(self.config)))

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
            UserError: the run was written before runs kept them, or they are not as it kept them.
        """
        if not self.keeps_items:
            raise UserError(f"{str(self.folder)!r} holds no {ITEMS}, as older runs; run its command again with --fresh")
        try:
            lines = self.file(ITEMS).read_text(encoding="utf-8").splitlines()
            kept = tuple(Item(**json.loads(line)) for line in lines)
        except GARBLED as error:
            raise seal.not_whole(self.folder, f"its {ITEMS} cannot be read ({error})") from error
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
                yield Journal(file, self._key)

    def traces(self, sources: Collection[str] | None = None) -> dict[str, dict[str, list[Trace]]]:
        """All whole batches: for each source (or these) and item its traces, in order."""
        out: dict[str, dict[str, list[Trace]]] = {}
        if not (self.folder / SAMPLES).is_file() and self.metrics is None:
            return out
        with self.file(SAMPLES).open("rb") as file:
            for source, _, traces in batches_of(file, self._key):
                for trace in traces if sources is None or source in sources else ():
                    out.setdefault(source, {}).setdefault(trace.item, []).append(trace)
        return out

    def batches(self) -> Iterator[tuple[str, int, list[Trace]]]:
        """All whole batches as they were written: the source, the batch's number, its traces."""
        with self.file(SAMPLES).open("rb") as file:
            yield from batches_of(file, self._key)

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
            for places in places_of(file, self._key, order).values():
                for start in range(0, len(places), ROWS):
                    rows = [row_at(file, int(place)) for place in places[start : start + ROWS]]
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the metrics and the hashes of all files, last of all: a run that has them is finished."""
        self.write(METRICS, seal.sealed_metrics(metrics, seal.kept_of(self.folder, SEALED)))

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The metrics of a finished run, else None.

        Raises:
            UserError: they are not as they were written, or a file of the run is missing or of another size.
        """
        if not (self.folder / METRICS).is_file():
            return None
        found, self._kept = seal.read_metrics(self.folder / METRICS)
        return found

    def file(self, name: str) -> Path:
        """A file of the run, held to its hash when it is first asked for.

        Raises:
            UserError: it is not there, or not as the run wrote it.
        """
        if self._kept is None and self.metrics is None:
            return self.folder / name
        if name not in self._checked:
            seal.check_file(self.folder, name, self._kept or {})
            self._checked.add(name)
        return self.folder / name

    def check(self) -> None:
        """Hold all files of a finished run to their hashes.

        Raises:
            UserError: the first that is not as the run wrote it.
        """
        if self.metrics is not None:
            for name in self._kept or {}:
                self.file(name)

    @property
    def bundle(self) -> Path:
        """The folder of what was evaluated, its files held to their hashes.

        Raises:
            UserError: the first that is not as the run wrote it.
        """
        if self.metrics is not None:
            for name in self._kept or {}:
                if name.startswith("elicited/"):
                    self.file(name)
        return self.folder / "elicited"

    @property
    def _key(self) -> str:
        """What tells this run's samples from another's."""
        return digest(as_kept(self.config["identity"]))


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
