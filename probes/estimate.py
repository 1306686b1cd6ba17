"""What a job will take, told before it begins: seconds, memory beside what is held already, disk; in one line, and
refused where there is no room."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from probes.errors import UserError

WORTH_TELLING = 10.0  # seconds


@dataclass(frozen=True)
class Estimate:
    """What a job takes.

    Args:
        seconds: of all of it.
        memory: bytes at its peak, beside what the process holds before; 0 where that is not reckoned.
        disk: bytes that it writes; likewise.
        most: whether less may do, since what was tried did not come to its end.
        beside: what is not in it, in words.
    """

    seconds: float
    memory: int = 0
    disk: int = 0
    most: bool = False
    beside: str = ""

    def __add__(self, other: Estimate) -> Estimate:
        """One after the other: time and disk add up, memory does not."""
        return Estimate(
            self.seconds + other.seconds,
            max(self.memory, other.memory),
            self.disk + other.disk,
            self.most or other.most,
            "; ".join(filter(None, (self.beside, other.beside))),
        )

    @property
    def line(self) -> str:
        said = f"{'at most' if self.most else 'about'} {spoken(self.seconds)}"
        said += f", {gigabytes(self.memory)} of memory beside the model's" if self.memory else ""
        said += f", {gigabytes(self.disk)} of disk" if self.disk else ""
        return said + (f"; {self.beside}" if self.beside else "")


def check_room(
    needed: Estimate, folder: Path, free_memory: int | None, *, what: str, for_disk: str, for_memory: str = ""
) -> None:
    """Refuse what there is no room for.

    Args:
        needed: by the job.
        folder: where it writes; it need not be there.
        free_memory: bytes; None where the system does not say.
        what: the job, in words.
        for_disk, for_memory: what to give instead.

    Raises:
        UserError: less memory or disk than is needed.
    """
    if free_memory is not None and needed.memory > free_memory:
        raise UserError(
            f"{what} needs {gigabytes(needed.memory)} of memory beside the model's and {gigabytes(free_memory)} are "
            f"free; {for_memory}"
        )
    free = free_disk(folder)
    if needed.disk > free:
        raise UserError(
            f"{what} needs {gigabytes(needed.disk)} of disk and {gigabytes(free)} are free at {str(folder)!r}; "
            f"{for_disk}"
        )


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be made."""
    place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    return shutil.disk_usage(place).free


def spoken(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, round(seconds))} s"


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 or not count else f"{count / 1e6:.2f} MB"
