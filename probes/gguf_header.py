"""Whether what the head of a GGUF file counts can stand in it: `gguf` reads on past its end, until memory is full."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from probes.errors import UserError

HEAD = 24  # bytes: mark, version, how many tensors and fields
FIELD = 13  # bytes at least: the length of a name, a type and a value
DEEPEST = 8  # lists within lists


def check_counts(file: Path) -> None:
    """Refuse a GGUF file whose fields go beyond its end; of any other file the reader says what it is.

    Raises:
        UserError: as said.
    """
    with file.open("rb") as opened:
        mark = opened.read(HEAD)
        if len(mark) < HEAD or mark[:4] != b"GGUF":
            return
        order = "<" if int.from_bytes(mark[4:8], "little") & 0xFFFF else ">"
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Fields(file, data, order).check(*struct.unpack_from(f"{order}Q", mark, 16))


class _Fields:
    """Steps over the fields of a file."""

    def __init__(self, file: Path, data: mmap.mmap, order: str) -> None:
        from gguf import GGUFReader, GGUFValueType

        self.file, self.data, self.order = file, data, order
        self.scalars = {int(kind): kept().itemsize for kind, kept in GGUFReader.gguf_scalar_to_np.items()}
        self.string, self.list = int(GGUFValueType.STRING), int(GGUFValueType.ARRAY)

    def check(self, fields: int) -> None:
        self._fits(HEAD, fields * FIELD, f"{fields:,} fields")
        at = HEAD
        for _ in range(fields):
            at += 8 + self._number(at, "Q")
            at = self._after(at + 4, self._number(at, "I"))

    def _after(self, at: int, kind: int, depth: int = 0) -> int:
        """Where a value ends."""
        if kind in self.scalars:
            return at + self.scalars[kind]
        if kind == self.string:
            return at + 8 + self._number(at, "Q")
        if kind != self.list or depth == DEEPEST:
            raise UserError(f"{self.file.name} holds a field of type {kind}, which GGUF has not; copy it again")
        inner, count = self._number(at, "I"), self._number(at + 4, "Q")
        at += 12
        self._fits(at, count * self.scalars.get(inner, 8), f"a list of {count:,}")
        if inner in self.scalars:
            return at + count * self.scalars[inner]
        for _ in range(count):
            at = self._after(at, inner, depth + 1)
        return at

    def _number(self, at: int, form: str) -> int:
        self._fits(at, struct.calcsize(self.order + form), "a field")
        return int(struct.unpack_from(self.order + form, self.data, at)[0])

    def _fits(self, at: int, size: int, what: str) -> None:
        if at + size > len(self.data):
            raise UserError(f"{self.file.name} is damaged: {what} would go beyond its end; copy or fetch it again")
