"""Files written in one go past the page cache, so that writing takes next to no processor time from a forward.

Where the file system (tmpfs, some network ones) or the platform has no direct writes, they are ordinary ones.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

BLOCK = 4096  # what lengths and addresses of direct writes are multiples of
BUFFER = 16 << 20


class DirectFile:
    """A file to be written from its beginning to its end; `close` makes it whole."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)  # Windows would end lines its way
        try:
            self.fd = os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o644)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.fd = os.open(path, flags, 0o644)
        self.size = 0
        self.held = 0
        self.memory = mmap.mmap(-1, BUFFER)  # aligned to pages, as direct writes ask for
        self.buffer = np.frombuffer(self.memory, dtype=np.uint8)

    def write(self, data: UInt8[np.ndarray, " bytes"]) -> None:
        done = 0
        while done < len(data):
            part = min(len(data) - done, BUFFER - self.held)
            self.buffer[self.held : self.held + part] = data[done : done + part]
            self.held += part
            done += part
            if self.held == BUFFER:
                self._flush(BUFFER)
        self.size += len(data)

    def close(self) -> None:
        """Write what is left, in whole blocks, and cut the file to its size."""
        try:
            self._flush(-(-self.held // BLOCK) * BLOCK)
            os.ftruncate(self.fd, self.size)
        finally:
            os.close(self.fd)

    def _flush(self, count: int) -> None:
        view = memoryview(self.memory)[:count]
        while len(view):
            try:
                view = view[os.write(self.fd, view) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._was_direct():
                    raise
        self.held = 0

    def _was_direct(self) -> bool:
        """Make a file whose direct write was refused an ordinary one.

        Before a limit no whole block fits, which the system calls invalid; an ordinary write says what is used up.
        """
        import fcntl  # where there are direct writes

        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        return bool(flags & os.O_DIRECT)
