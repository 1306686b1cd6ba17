"""Files that carry their own SHA-256, and are held to it when they are read.

A JSON object has it as its last key. A safetensors file has it in its header, which every library reads past: the hash
is over the whole file with zeros where the hash stands, so that names, shapes, numbers and what else the header says
are under it. Files of other programs carry none and are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.files import CHUNK, read_json, whole, write_whole

if TYPE_CHECKING:
    from torch import Tensor

SEALED, SUM = "sealed", "sha256"  # keys in JSON
OWN, BESIDE = "elicit_sha256", "elicit_settings_sha256"  # in a header
_ZEROS = b"0" * 64
_IN_JSON = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n\}\Z')
_IN_HEADER = re.compile(rb'"elicit_sha256":"([^"]{64})"')


def sealed_json(data: Mapping[str, Any], allow_nan: bool = False) -> str:
    """An object as JSON, with the SHA-256 of its text as the last key.

    Raises:
        ValueError: NaN or infinity, which is no JSON, where they are not allowed.
    """
    text = json.dumps(dict(data), indent=2, allow_nan=allow_nan)
    own = hashlib.sha256(text.encode()).hexdigest()
    return text.removesuffix("\n}") + f',\n  "{SUM}": "{own}"\n}}'


def json_seal(data: bytes) -> bool | None:
    """Whether the text of an object is the one that was sealed; None where it ends in no hash."""
    own = _IN_JSON.search(data)
    return None if own is None else hashlib.sha256(data[: own.start()] + b"\n}").hexdigest().encode() == own[1]


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """A JSON file for `read_sealed`: its first key says that the last one is its hash."""
    write_whole(path, sealed_json({SEALED: True, **data}, allow_nan=True))


def read_sealed(path: Path, todo: str) -> tuple[dict[str, Any], bool]:
    """The object that a JSON file holds, held to its hash, and whether it carries one.

    Args:
        path: of the file.
        todo: what a person can do where it is not as it was written.

    Raises:
        UserError: no JSON, no object, or another than was written.
    """
    data = read_json(path, todo)
    as_written = json_seal(path.read_bytes())
    if not as_written and (as_written is False or SUM in data or SEALED in data):
        raise UserError(f"{str(path)!r} was changed after it was written; {todo}")
    return {key: value for key, value in data.items() if key not in (SEALED, SUM)}, bool(as_written)


def save_tensors(tensors: Mapping[str, Tensor], file: Path, beside: str = "", **about: str) -> None:
    """A safetensors file with its hash, all of it or nothing.

    Args:
        tensors: by name.
        file: where.
        beside: a hash of the settings that the tensors are nothing without, in a file of another form.
        about: what else stands in the header.
    """
    from safetensors.torch import save_file

    about |= {"format": "pt", OWN: _ZEROS.decode()} | ({BESIDE: beside} if beside else {})
    with whole(file) as part:
        save_file(dict(tensors), part, about)
        _sort_header(part)
        digest, place, _ = _summed(part)
        with part.open("r+b") as opened:
            opened.seek(place)
            opened.write(digest.encode())


def _sort_header(file: Path) -> None:
    """What the header says, in one order: safetensors writes it in any, and the same tensors must be the same bytes."""
    with file.open("r+b") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError(f"a header of {size} bytes became {len(text)}")
        opened.seek(8)
        opened.write(text.ljust(size))


def check_tensors_file(file: Path, what: str, todo: str, beside: str = "") -> None:
    """Hold a safetensors file to its hash, where it carries one.

    Args:
        file: of tensors.
        what, todo: name it in the message, and say what a person can do.
        beside: the hash of the settings that lie there, where they were kept.

    Raises:
        UserError: other bytes than were written, or settings that were saved with other tensors.
    """
    digest, place, header = _summed(file)
    if not place and BESIDE.encode() not in header:
        return
    if not place or header[place - 8 : place + 56] != digest.encode():
        raise UserError(f"{what}: {file.name} is not as it was written; {todo}")
    if beside:
        kept = json.loads(header).get("__metadata__", {}).get(BESIDE, beside)
        if kept != beside:
            raise UserError(f"{what}: its settings are not those that {file.name} was written with; {todo}")


def _summed(file: Path) -> tuple[str, int, bytes]:
    """A safetensors file's hash, where in the file it should stand (0: nowhere), and the header."""
    with file.open("rb") as opened:
        head = opened.read(8)
        size = int.from_bytes(head, "little")
        header = opened.read(size) if size < file.stat().st_size else b""
        found = _IN_HEADER.search(header)
        if found is None:
            return "", 0, header
        total = hashlib.sha256(head + header[: found.start(1)] + _ZEROS + header[found.end(1) :])
        while chunk := opened.read(CHUNK):
            total.update(chunk)
    return total.hexdigest(), 8 + found.start(1), header
