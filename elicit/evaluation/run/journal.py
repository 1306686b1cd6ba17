"""`samples.jsonl`: appended a batch at a time and flushed to the disk.

Each line carries its batch, the number of lines in it and a sum over them (`seal.py`). When a run is opened again,
whatever follows the last whole batch is cut off and computed anew *in the same batches*.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from elicit.decoding.trace import Trace
from elicit.evaluation.run import seal
from probes.errors import GARBLED


class Journal:
    """`samples.jsonl` while a run writes it."""

    def __init__(self, file: BinaryIO, key: str) -> None:
        self.file, self.key = file, key
        file.seek(0)
        self.done: set[tuple[str, int]] = set()
        self.spent: dict[str, dict[str, int]] = {}
        whole = 0
        for source, batch, traces in batches_of(file, key):
            self._note(source, batch, traces)
            whole = file.tell()
        file.truncate(whole)
        file.seek(whole)

    def append(self, source: str, batch: int, traces: Sequence[Trace]) -> None:
        head = {"source": source, "batch": batch, "of": len(traces)}
        lines = [json.dumps({**head, **trace.to_dict()}) for trace in traces]
        self.file.write(seal.batch_lines(self.key, lines))
        self.file.flush()
        os.fsync(self.file.fileno())
        self._note(source, batch, traces)

    def _note(self, source: str, batch: int, traces: Sequence[Trace]) -> None:
        self.done.add((source, batch))
        spent = self.spent.setdefault(source, {})
        for trace in traces:
            spent[trace.item] = spent.get(trace.item, 0) + trace.spent


def batches_of(file: BinaryIO, key: str) -> Iterator[tuple[str, int, list[Trace]]]:
    """Whole batches from the file's position on; stops at the first line or batch that is not whole."""
    for source, batch, lines in _whole_batches(file, key):
        try:
            traces = [Trace.from_dict(data) for _, data in lines]
        except GARBLED:
            return
        if not all(isinstance(trace.item, str) and isinstance(trace.spent, int) for trace in traces):
            return
        yield source, batch, traces


def _whole_batches(file: BinaryIO, key: str) -> Iterator[tuple[str, int, list[tuple[int, dict[str, Any]]]]]:
    """The same with each trace as it was written, and where its line begins."""
    seen: set[tuple[str, int]] = set()
    while True:
        lines: list[tuple[int, dict[str, Any]]] = []
        texts: list[bytes] = []
        head: tuple[bytes | None, str, int, int] | None = None
        while head is None or len(lines) < head[3]:
            begins = file.tell()
            total, line = seal.line_of(file.readline())
            if not line.endswith(b"\n"):
                return
            try:
                data = json.loads(line)
                found = (total, data.pop("source"), data.pop("batch"), data.pop("of"))
                if (head is not None and found != head) or [type(part) for part in found[1:]] != [str, int, int]:
                    return
            except GARBLED:
                return
            head = found
            lines.append((begins, data))
            texts.append(line)
        if head[1:3] in seen or not seal.is_batch_whole(key, head[0], texts):
            return
        seen.add(head[1:3])
        yield head[1], head[2], lines


def places_of(file: BinaryIO, key: str, order: Sequence[str]) -> dict[str, np.ndarray]:
    """For each source where the lines of its traces begin, in the order of the items."""
    rank = {item: n for n, item in enumerate(order)}
    found: dict[str, tuple[array[int], array[int]]] = {}
    for source, _, lines in _whole_batches(file, key):
        ranks, begins = found.setdefault(source, (array("q"), array("q")))
        for begin, data in lines:
            if data["item"] in rank:
                ranks.append(rank[data["item"]])
                begins.append(begin)
    return {
        source: np.array(begins)[np.argsort(np.array(ranks), kind="stable")]
        for source, (ranks, begins) in found.items()
    }


def row_at(file: BinaryIO, place: int) -> dict[str, Any]:
    """The trace whose line begins there, with its source."""
    file.seek(place)
    data: dict[str, Any] = json.loads(seal.line_of(file.readline())[1])
    return data
