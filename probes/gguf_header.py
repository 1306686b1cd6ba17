"""Whether what the head of a GGUF file counts can stand in it: `gguf` reads on past its end, until memory is full."""

from __future__ import annotations

import struct
from pathlib import Path

from probes.errors import UserError

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value by its type
STRING, ARRAY = 8, 9
DEEPEST = 8  # arrays within arrays


def check_counts(file: Path) -> None:
    """Refuse a file of version 2 or 3 whose fields go beyond its end; of any other the reader says what it is.

    Raises:
        UserError: as said.
    """
    data = file.read_bytes() if file.stat().st_size < 1 << 16 else _head(file)
    size = file.stat().st_size
    if len(data) < 24 or data[:4] != b"GGUF":
        return
    order = "<" if int.from_bytes(data[4:8], "little") & 0xFFFF else ">"
    fields = struct.unpack_from(f"{order}Q", data, 16)[0]
    if fields * 13 > size:  # the length of a name, a type and a byte
        raise _beyond(file, f"{fields:,} fields")
    at = 24
    try:
        for _ in range(fields):
            at += 8 + _number(file, data, at, f"{order}Q", size)
            kind = _number(file, data, at, f"{order}I", size)
            at = _after(file, data, at + 4, kind, order, size, 0)
    except EOFError:
        return  # beyond what was read of it


def _number(file: Path, data: bytes, at: int, form: str, size: int) -> int:
    end = at + struct.calcsize(form)
    if end > size:
        raise _beyond(file, "a field")
    if end > len(data):
        raise EOFError
    return int(struct.unpack_from(form, data, at)[0])


def _after(file: Path, data: bytes, at: int, kind: int, order: str, size: int, depth: int) -> int:
    """Where the value of a field ends."""
    if kind in SCALARS:
        return at + SCALARS[kind]
    if kind == STRING:
        return at + 8 + _number(file, data, at, f"{order}Q", size)
    if kind != ARRAY or depth == DEEPEST:
        raise UserError(f"{file.name} holds a field of type {kind}, which GGUF has not; copy it again")
    inner, count = _number(file, data, at, f"{order}I", size), _number(file, data, at + 4, f"{order}Q", size)
    at += 12
    if count * SCALARS.get(inner, 8) > size - at:
        raise _beyond(file, f"a list of {count:,}")
    if inner in SCALARS:
        return at + count * SCALARS[inner]
    for _ in range(count):
        at = _after(file, data, at, inner, order, size, depth + 1)
    return at


def _head(file: Path) -> bytes:
    """Enough of a long file for its fields: vocabularies take tens of megabytes."""
    with file.open("rb") as opened:
        return opened.read(1 << 28)


def _beyond(file: Path, what: str) -> UserError:
    return UserError(f"{file.name} is damaged: {what} would go beyond its end; copy or fetch it again")
