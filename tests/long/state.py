"""What a process holds at a moment, and what it took to get there."""

from __future__ import annotations

import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """After `done` samples, jobs or requests: resident bytes, open descriptors, objects that the collector knows,
    seconds of processor time, and bytes on the disk."""

    done: int
    resident: int
    descriptors: int
    objects: int
    seconds: float
    size: int = 0

    @staticmethod
    def now(done: int, size: int = 0) -> Point:
        gc.collect()
        return Point(done, resident(), descriptors(), len(gc.get_objects()), time.process_time(), size)


def resident() -> int:
    """Bytes of memory that this process has now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Open files, sockets and pipes of this process (Linux)."""
    return len(os.listdir("/proc/self/fd"))


HEAD = "| done | resident MB | descriptors | objects | ms of processor each | bytes each |\n" + "| ---: " * 6 + "|"


def row(before: Point, one: Point) -> str:
    """A line of the table; cost and bytes are of one sample, job or request since the point before."""
    some = one.done - before.done
    return (
        f"| {one.done:,} | {one.resident / 1e6:.0f} | {one.descriptors} | {one.objects:,} "
        f"| {1e3 * (one.seconds - before.seconds) / some:.3f} | {(one.size - before.size) / some:.0f} |"
    )
