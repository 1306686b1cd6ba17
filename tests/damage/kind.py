"""A kind of file: how one is made, how the program reads it, and what became of a damaged one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes.errors import UserError

LINE, SAME, OTHER, TRACEBACK = "one line", "same result", "another result", "traceback"
OUTCOMES = (LINE, SAME, OTHER, TRACEBACK)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Args:
        name: of it.
        make: writes a small one into an empty folder, with what belongs to it.
        read: reads it as the program does; what comes of it is compared by its text.
        form: `json`, `jsonl` or `toml` where its values have types.
        sealed: whether it carries a hash, so that nothing else may come of it than it held.
        dear: whether it takes seconds to read, so that a tenth as many damages are tried.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    form: str = ""
    sealed: bool = False
    dear: bool = False


@dataclass(frozen=True)
class Reading:
    """A whole file of a kind, and what comes of it."""

    kind: Kind
    file: Path
    data: bytes
    result: str

    @staticmethod
    def of(kind: Kind, folder: Path) -> Reading:
        file = kind.make(folder)
        data = file.read_bytes()
        return Reading(kind, file, data, repr(kind.read(file)))

    def after(self, data: bytes) -> tuple[str, BaseException | None]:
        """What comes of other bytes in the file's place, and the exception that was no line."""
        self.file.write_bytes(data)
        try:
            found = repr(self.kind.read(self.file))
        except UserError:
            return LINE, None
        except Exception as error:  # noqa: BLE001  this is what is looked for
            return TRACEBACK, error
        finally:
            self.file.write_bytes(self.data)
        return (SAME if found == self.result else OTHER), None
