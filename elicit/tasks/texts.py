"""Plain text that something is trained on: a text file, JSON Lines, Parquet, or a data set of the hub.

    notes.txt, notes.jsonl, notes.parquet                                 the last two with a column `text`
    hub:owner/name, hub:owner/name:config=…,split=…,column=…,revision=…   split `train`, column `text` unless given

A text file is read in lumps of some thousand characters, or as documents with blank lines between them
(`paragraphs`). A data set of the hub is streamed: no more of it is fetched than is read. What is read is fixed by the
commit that the revision stood for when it was asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from elicit.tasks.given import value_of
from probes.errors import UserError, unknown
from probes.files import sha256_of

HUB = "hub:"
OPTIONS = {"config": "", "split": "train", "column": "text", "revision": "main"}
LUMP = 4096  # characters of a text file that are tokenised together


def identity(name: str) -> tuple[bool, str]:
    """Whether a source is plain text, and what fixes its content: a file's SHA-256, a data set's commit.

    Raises:
        UserError: a file that holds no text, a data set that cannot be reached or has no such column.
    """
    if name.startswith(HUB):
        commit = _commit(name)
        next(documents(name, commit))
        return True, commit
    path = Path(name).expanduser()
    if not path.is_file():
        return False, ""
    if _is_task_file(path):
        return False, sha256_of(path)
    next(documents(name))
    return True, sha256_of(path)


def read_texts(name: str, most: int) -> list[str]:
    """The first so many documents of a source.

    Raises:
        UserError: as `documents`; a data set that cannot be reached.
    """
    commit = _commit(name) if name.startswith(HUB) else ""
    return list(islice(documents(name, commit, paragraphs=True), most))


def documents(name: str, commit: str = "", *, paragraphs: bool = False) -> Iterator[str]:
    """The texts of a source, one after the other.

    Args:
        name: the source.
        commit: of a data set of the hub.
        paragraphs: whether blank lines part the documents of a text file.

    Raises:
        UserError: no such file; it holds no text, is not UTF-8, lacks the column, or has a line that is no object with
            a text.
    """
    if name.startswith(HUB):
        yield from _rows(name, commit)
        return
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f"text {name!r} was given and there is no such file; give a .txt, .jsonl or .parquet file, or "
            "hub:owner/name"
        )
    empty = True
    for text in _parquet(path) if path.suffix == ".parquet" else _lines(path, paragraphs):
        empty = False
        yield text
    if empty:
        raise UserError(f"{str(path)!r} holds no text; give a file with some")


def _lines(path: Path, paragraphs: bool) -> Iterator[str]:
    lump = ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if path.suffix == ".jsonl":
                    if line.strip():
                        yield _text_of(line, f"{path}, line {number}")
                    continue
                ended = not line.strip() if paragraphs else len(lump) + len(line) >= LUMP
                lump += "" if ended and paragraphs else line
                if ended and lump:
                    yield lump.removesuffix("\n") if paragraphs else lump
                    lump = ""
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} is not text in UTF-8 (byte {error.start}); give a text file") from error
    if lump.strip():
        yield lump.removesuffix("\n") if paragraphs else lump


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = OPTIONS["column"]
            if column not in file.schema_arrow.names:
                raise _no_column(str(path), column, file.schema_arrow.names)
            for batch in file.iter_batches(columns=[column]):
                yield from (_checked(text, str(path)) for text in batch.column(0).to_pylist() if text != "")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{str(path)!r} is cut or no Parquet file ({str(error)[:80]}); write it again") from error


def _hub(name: str) -> tuple[str, dict[str, str]]:
    """The repository and the options of `hub:owner/name:key=value,…`."""
    repo, _, tail = name.removeprefix(HUB).partition(":")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"source {name!r} was given; write hub:owner/name, and options after a colon: split=train")
    given = {}
    for pair in tail.split(",") if tail else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"{pair!r} was given for {HUB}{repo}; write key=value with {', '.join(OPTIONS)}")
        if key not in OPTIONS:
            raise unknown("option of a data set", key, OPTIONS)
        given[key] = str(value_of(value))
    return repo, {**OPTIONS, **given}


def _commit(name: str) -> str:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    repo, options = _hub(name)
    try:
        return str(HfApi().dataset_info(repo, revision=options["revision"]).sha)
    except HFValidationError as error:
        raise UserError(
            f"data set {repo!r} was asked for; that is no name of the hub's: write hub:owner/name"
        ) from error
    except HfHubHTTPError as error:
        raise UserError(
            f"data set {repo!r} at revision {options['revision']!r} is not on the hub, or is gated "
            f"({type(error).__name__}); mend the name, or log in (hf auth login)"
        ) from error
    except (OfflineModeIsEnabled, httpx2.HTTPError) as error:
        raise UserError(
            f"data set {repo!r} could not be reached ({type(error).__name__}); connect to a network, or give a file"
        ) from error


def _rows(name: str, commit: str) -> Iterator[str]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    repo, options = _hub(name)
    column = options["column"]
    empty = True
    try:
        for row in load_dataset(
            repo, options["config"] or None, split=options["split"], revision=commit, streaming=True
        ):
            if column not in row:
                raise _no_column(f"data set {repo}", column, list(row))
            if row[column] != "":
                empty = False
                yield _checked(row[column], f"data set {repo}")
    except (ConnectionError, DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"data set {repo} could not be read ({reason}); mend config or split, or give a file"
        ) from error
    if empty:
        raise UserError(f"data set {repo} holds no text in its column {column!r}; give another column")


def _no_column(what: str, column: str, names: list[str]) -> UserError:
    return UserError(f"{what} has no column {column!r}; it has {', '.join(names) or 'none'}")


def _checked(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{what} holds a {type(text).__name__} where a text is expected; give a column of texts")
    return text


def _is_task_file(path: Path) -> bool:
    """Whether the first line of a JSON Lines file asks a question."""
    if path.suffix not in (".jsonl", ".json"):
        return False
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline())
        except (ValueError, RecursionError):
            return False
    return isinstance(first, dict) and "question" in first


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: no object with a text; mend or remove the line") from error
    if not isinstance(text, str):
        raise UserError(f"{where}: the text is a {type(text).__name__}; mend or remove the line")
    return text
