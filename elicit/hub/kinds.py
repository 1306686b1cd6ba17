"""What can be shared: the kinds of folders, the files that each holds, and whether a folder is whole."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elicit.elicited import ADAPTER, FILE, MIXING, PARTNER, PLAN, WHOLE, parts_of
from elicit.evaluation.run.store import BUNDLE, CONFIG, MEMBERS, METRICS, Store
from elicit.training.rl.log import LOG, read_log
from probes.errors import UserError, as_expected
from probes.files import HOLDER, LOCK, sha256_of
from probes.sealed import check_tensors_file, read_sealed
from steering import adapters, storage

PARQUET = "rollouts.parquet"
SAE_CONFIG, SAE_WEIGHTS = "cfg.json", "sae_weights.safetensors"


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Args:
        name: as manifests and cards have it.
        mark: the file by which a folder is known as one.
        files: all that it may hold; nothing else is pushed, and nothing else accepted from a repository.
        repo_type: what kind of repository it becomes, `model` or `dataset`.
    """

    name: str
    mark: str
    files: tuple[str, ...]
    repo_type: str = "model"


KINDS = {
    kind.name: kind
    for kind in (  # the first whose mark is there
        Kind("run", CONFIG, MEMBERS, "dataset"),
        Kind("bundle", FILE, BUNDLE),
        Kind("direction", FILE, BUNDLE),  # the bundle that `elicit steer` leaves
        Kind("sae", SAE_CONFIG, (SAE_WEIGHTS, "sparsity.safetensors", "card.json", SAE_CONFIG)),
        Kind("adapter", adapters.CONFIG, (adapters.WEIGHTS, adapters.CONFIG)),
        Kind("rollouts", PARQUET, (PARQUET,), "dataset"),
    )
}
FORMS = (
    f"give a bundle or direction ({FILE}), an SAE ({SAE_CONFIG}), an adapter ({adapters.CONFIG}), a run ({CONFIG}), or "
    f"rollouts ({PARQUET}, or the {LOG} of a training)"
)


@dataclass(frozen=True)
class Found:
    """A folder that can be pushed.

    Args:
        kind: what it is.
        files: where each of its files lies, by the path that it has in the folder.
        about: what its mark says, for the card.
        left_out: paths of other files in the folder.
    """

    kind: Kind
    files: dict[str, Path]
    about: dict[str, Any]
    left_out: list[str]


def found(folder: Path, scratch: Path) -> Found:
    """What a folder holds.

    Args:
        folder: of any kind.
        scratch: an empty folder, in which the log of a training's rollouts becomes Parquet.

    Raises:
        UserError: a folder of no kind, or one that is not whole: a run that is not finished, a file that is missing,
            cut or of another form.
    """
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is no folder; {FORMS}")
    kind = next((one for one in KINDS.values() if (folder / one.mark).is_file()), None)
    if kind is None and (folder / LOG).is_file():
        kind = KINDS["rollouts"]
        files = {PARQUET: _as_parquet(folder, scratch / PARQUET)}
    elif kind is None:
        raise UserError(f"{str(folder)!r} is nothing that can be shared; {FORMS}")
    else:
        files = {name: folder / name for name in kind.files if (folder / name).is_file()}
    about = _about(kind, files)
    if kind.name == "bundle" and about["method"] == "steer":
        kind = KINDS["direction"]
    if missing := [name for name in _needed(kind, about) if name not in files]:
        what = "the run is not finished" if missing == [METRICS] else "it is not whole"
        raise UserError(f"{str(folder)!r} holds no {missing[0]}: {what}; finish or save it again, then push")
    if kind.name == "run":
        Store.read(folder).check()
    for path in files.values():
        if path.suffix == ".safetensors":
            _check_tensors(path, sha256_of(files[kind.mark]) if kind.name == "sae" else "")
    _check_whole(folder, kind, about)
    own = {folder / name for name in files}
    own |= {path for path in folder.rglob("*") if path.name in (LOCK, HOLDER)}
    others = (path for path in sorted(folder.rglob("*")) if path.is_file() and path not in own)
    return Found(kind, files, about, [str(path.relative_to(folder)) for path in others])


def _about(kind: Kind, files: dict[str, Path]) -> dict[str, Any]:
    """What the mark says; of a run its metrics with it, of rollouts their rows and columns."""
    mark = files[kind.mark]
    if kind.name == "rollouts":
        import pyarrow.parquet as pq

        with _readable(mark):
            head = pq.ParquetFile(mark)
        return {"rows": head.metadata.num_rows, "columns": head.schema_arrow.names}
    with _readable(mark):
        if kind.name == "bundle":
            data, _ = read_sealed(mark, "save it again, then push")
        else:
            text = mark.read_text(encoding="utf-8")
            data = tomllib.loads(text) if kind.name == "run" else json.loads(text)
        keys = {
            "run": ("identity", "arms"),
            "bundle": ("method", "model"),
            "sae": ("d_sae",),
            "adapter": ("peft_type",),
        }
        if not isinstance(data, dict) or any(key not in data for key in keys[kind.name]):
            raise ValueError(f"no {', '.join(keys[kind.name])} in it")
        if kind.name == "run" and METRICS in files:
            data = {**data, "metrics": json.loads(files[METRICS].read_text(encoding="utf-8"))}
    return data


def _needed(kind: Kind, about: dict[str, Any]) -> Iterator[str]:
    """The files without which a folder is not whole."""
    if kind.name == "run":
        yield METRICS
    elif kind.name == "sae":
        yield SAE_WEIGHTS
    elif kind.name == "adapter":
        yield adapters.WEIGHTS
    elif kind.name in ("bundle", "direction"):
        if about.get("interventions"):
            yield f"{PLAN}.json"
        if "partner" in about:
            yield f"{PARTNER}.json"
        if "mixing" in about:
            yield from (f"{MIXING}.{suffix}" for suffix in ("json", "safetensors"))
        if "adapter" in about:
            yield from (f"{ADAPTER}/{name}" for name in (adapters.CONFIG, adapters.WEIGHTS))
        if "weights" in about:
            yield from (f"{WHOLE}/{name}" for name in adapters.WHOLE_FILES)


def _as_parquet(folder: Path, out: Path) -> Path:
    """The rollouts of a training as one table; what a line lacks is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(folder / LOG):
        rows = list(read_log(folder))
        if not rows:
            raise ValueError("no rollouts in it")
        names = dict.fromkeys(name for row in rows for name in row)  # the first row need not have them all
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), out)
    return out


def _check_whole(folder: Path, kind: Kind, about: dict[str, Any]) -> None:
    """Its parts belong together, as those who read it will ask: settings that were changed, a part of another's."""
    if kind.name == "adapter":
        adapters.Adapter(folder).tensors()
    elif kind.name in ("bundle", "direction"):
        with as_expected(repr(str(folder / FILE)), "save it again, then push"):
            parts_of(folder, about)
        if "partner" in about:
            storage.read(folder, PARTNER)


def _check_tensors(path: Path, beside: str) -> None:
    """Its header, held to its length; all of it to its hash, and settings beside it to theirs, where it has them."""
    from safetensors import SafetensorError, safe_open

    check_tensors_file(path, repr(str(path)), "save it again, then push", beside)
    try:
        with safe_open(path, "np"):
            pass
    except SafetensorError as error:
        raise UserError(f"{str(path)!r} is not a whole safetensors file ({error}); save it again, then push") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError) as error:  # of JSON, TOML, UTF-8 and Arrow
        reason = " ".join(str(error).split())
        raise UserError(f"{str(path)!r} cannot be read ({reason}); make or fetch it again, then push") from error
