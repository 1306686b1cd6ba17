"""What a run says of its own files, and how it is held to that.

`metrics.json` ends with the size and SHA-256 of every file that the run was made of, and with the SHA-256 of itself;
`config.toml` begins with that of what follows; each batch of `samples.jsonl` carries one of its lines and of the run
that it belongs to. So what was cut, changed, removed or put there from another run is told, and not read. Runs of
versions that kept none of these are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.files import sha256_of
from probes.sealed import SUM, json_seal, sealed_json

FILES = "files"
_CONFIG = re.compile(rb"# sha256 ([0-9a-f]{64})\n")
_LINE = re.compile(rb'\{"sum": "([0-9a-f]{16})", ')

Kept = dict[str, tuple[int, str]]
"""Bytes and SHA-256 of files, by name."""


def not_whole(folder: Path, why: str) -> UserError:
    """A run whose files are not as it wrote them: why, and what to do."""
    return UserError(
        f"the run in {str(folder)!r} is not whole: {why}; put the file back from a copy, or remove metrics.json there "
        "and run its command again, which keeps the answers that are whole and makes the rest anew"
    )


def sealed_config(text: str) -> str:
    """`config.toml` with its hash in the first line."""
    return f"# sha256 {hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def is_config_whole(data: bytes) -> bool:
    """Whether `config.toml` is as it was written; True where an older version wrote it."""
    found = _CONFIG.match(data)
    return found is None or hashlib.sha256(data[found.end() :]).hexdigest().encode() == found[1]


def kept_of(folder: Path, names: Sequence[str]) -> Kept:
    """Size and hash of those of the named files that are there."""
    files = {name: folder / name for name in names}
    return {name: (file.stat().st_size, sha256_of(file)) for name, file in files.items() if file.is_file()}


def sealed_metrics(metrics: dict[str, Any], kept: Kept) -> str:
    """`metrics.json`: the metrics, the files, its own hash."""
    return sealed_json({**metrics, FILES: kept})


def read_metrics(file: Path) -> tuple[dict[str, Any], Kept]:
    """The metrics of a finished run, and what it says of its files (nothing in a run of an older version).

    Raises:
        UserError: it is cut, changed or of another program; a file is missing or has another size.
    """
    folder, name = file.parent, file.name
    data = file.read_bytes()
    own = json_seal(data)
    if own is False:
        raise not_whole(folder, f"its {name} was changed")
    try:
        found = json.loads(data)
        kept = {str(one): (int(size), str(digest)) for one, (size, digest) in found.pop(FILES, {}).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise not_whole(folder, f"its {name} cannot be read ({error})") from error
    if (found.pop(SUM, None) is not None or kept) and own is None:
        raise not_whole(folder, f"its {name} was changed")
    if not all(isinstance(found.get(key), dict) for key in ("arms", "model")):
        raise not_whole(folder, f"its {name} was written by another program")
    for one, (size, _) in kept.items():
        there = (folder / one).stat().st_size if (folder / one).is_file() else None
        if there != size:
            raise not_whole(folder, f"its {one} {'is missing' if there is None else f'has {there} bytes of {size}'}")
    return found, kept


def check_file(folder: Path, name: str, kept: Kept) -> None:
    """Hold a file to what the run says of it.

    Raises:
        UserError: it is not there, or holds other bytes.
    """
    if not (folder / name).is_file():
        raise not_whole(folder, f"its {name} is missing")
    if name in kept and sha256_of(folder / name) != kept[name][1]:
        raise not_whole(folder, f"its {name} was changed")


def batch_lines(key: str, lines: Sequence[str]) -> bytes:
    """Lines of JSON objects as they are kept, each with the sum over all of them.

    Args:
        key: of the run that they belong to.
        lines: without their ends.
    """
    total = _sum(key, [line.encode() + b"\n" for line in lines])
    return b"".join(f'{{"sum": "{total}", {line[1:]}\n'.encode() for line in lines)


def line_of(line: bytes) -> tuple[bytes | None, bytes]:
    """The sum that a line carries (None in a run of an older version), and the line without it."""
    found = _LINE.match(line)
    return (None, line) if found is None else (found[1], b"{" + line[found.end() :])


def is_batch_whole(key: str, total: bytes | None, lines: Sequence[bytes]) -> bool:
    """Whether lines, without their sum, are those of which it is."""
    return total is None or _sum(key, lines).encode() == total


def _sum(key: str, lines: Sequence[bytes]) -> str:
    total = hashlib.sha256(key.encode())
    for line in lines:
        total.update(line)
    return total.hexdigest()[:16]
