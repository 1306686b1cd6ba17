"""Files of other programs, read within bounds and as data: JSON, JSON Lines, and zips of JSON.

A member of a zip is read up to its bound, whatever size its entry claims, and its checksum is compared. Members that
are compressed by Zstandard (method 93), which `zipfile` of Python 3.13 and older does not know, are opened by PyArrow.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from probes.errors import UserError

MIB = 1 << 20
LINE, MEMBER, WHOLE = (
    64 * MIB,
    256 * MIB,
    1024 * MIB,
)  # the largest that are read; `WHOLE` of a file, and of a zip's sum
ZSTD = 93
_LOCAL = struct.Struct("<4s5H3L2H")  # a member's own header, before its name


def json_of(data: bytes, where: str) -> Any:
    """JSON, in which `NaN` and `Infinity` may stand as Python writes them.

    Raises:
        UserError: it is none, or nested too deep.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{where}: not JSON ({why}); mend it, or write the log again") from error


def whole_json(path: Path) -> Any:
    """The JSON of a file of at most `WHOLE` bytes.

    Raises:
        UserError: it cannot be read, is larger, or is no JSON.
    """
    with opened(path) as file:
        data = file.read(WHOLE + 1)
    if len(data) > WHOLE:
        raise UserError(f"{str(path)!r} has more than {WHOLE // MIB} MiB in one JSON; give it as .eval, or in parts")
    return json_of(data, str(path))


def lines_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place, in words, and its object; blank lines are passed over.

    Raises:
        UserError: it cannot be read, or a line is longer than `LINE` or no object (which).
    """
    with opened(path) as file:
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > LINE:
                raise UserError(f"{where}: longer than {LINE // MIB} MiB; remove it")
            if not line.strip():
                continue
            data = json_of(line, where)
            if not isinstance(data, dict):
                raise UserError(f"{where}: a {type(data).__name__}, expected an object; mend or remove the line")
            yield where, data


def opened(path: Path) -> IO[bytes]:
    """A file to be read.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror}); give a log that is there") from error


class Zipped:
    """A zip of JSON files.

    Raises:
        UserError: it cannot be read, or is no zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = opened(path)
        self._left = WHOLE * 4
        try:
            self._zip = ZipFile(self._file)
        except (BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
            self._file.close()
            raise UserError(f"{str(path)!r} is no zip that can be read ({error}); give a whole .eval log") from error

    def __enter__(self) -> Zipped:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> list[str]:
        """Its members', each once."""
        return list(self._zip.NameToInfo)

    def json(self, name: str) -> Any:
        """The JSON of a member.

        Raises:
            UserError: it is larger than it may be, damaged, locked, or no JSON.
        """
        where = f"{self.path}, {name}"
        info = self._zip.getinfo(name)
        most = min(MEMBER, self._left)
        if info.file_size > most or info.compress_size > most:
            raise UserError(f"{where}: more than {most // MIB} MiB; give a smaller log")
        try:
            data = self._zstd(info, most) if info.compress_type == ZSTD else self._plain(info, most)
        except (BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"{where}: cannot be read ({error}); write the log again") from error
        if len(data) > most:
            raise UserError(f"{where}: more than the size that its entry gives; write the log again")
        self._left -= len(data)
        return json_of(data, where)

    def _plain(self, info: ZipInfo, most: int) -> bytes:
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise ValueError(f"compression {info.compress_type} is not read")
        with self._zip.open(info) as member:
            return member.read(most + 1)

    def _zstd(self, info: ZipInfo, most: int) -> bytes:
        import pyarrow as pa

        if info.flag_bits & 1:
            raise ValueError("it is locked by a password")
        self._file.seek(info.header_offset)
        head = self._file.read(_LOCAL.size)
        if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
            raise ValueError("its header is damaged")
        *_, name, extra = _LOCAL.unpack(head)
        self._file.seek(name + extra, 1)
        packed = self._file.read(info.compress_size)
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            data: bytes = stream.read(most + 1)
        if len(data) <= most and zlib.crc32(data) != info.CRC:
            raise ValueError("its checksum does not fit")
        return data
