"""Which row holds which page: memory that grows with the tokens that were written, whatever the rows' lengths.

A page holds `size` positions of one row, in all layers. Rows take pages as they get longer and give them back when
they end, so that a batch holds at most a page a row more than its tokens (the block tables of vLLM, arXiv 2309.06180,
section 4). Here are numbers alone; the tensors that they speak of are `PagedCache`'s.
"""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Int

PAGE = 64
NOBODY = 1 << 30  # where the page of no row begins: beyond every position, so that nothing in it is seen
GROWTH = 8  # pages that are made together are at least this part of those there are


class Pages:
    """The pages of a batch. Page 0 is nobody's: rows that are finished write there.

    Args:
        rows: how many rows there are.
        size: positions of a page.

    Attributes:
        table: the pages of each row in their order, 0 where it has no more, [rows, most].
        owner: the row of each page, 0 of a page that is free.
        start: the position at which each page begins in its row, `NOBODY` of one that is free.
    """

    def __init__(self, rows: int, size: int = PAGE) -> None:
        self.size = size
        self.table: Int[np.ndarray, "rows most"] = np.zeros((rows, 1), dtype=np.int64)
        self.owner: Int[np.ndarray, " pages"] = np.zeros(1, dtype=np.int64)
        self.start: Int[np.ndarray, " pages"] = np.full(1, NOBODY, dtype=np.int64)
        self._held = np.zeros(rows, dtype=np.int64)  # pages of each row
        self._free: list[int] = []

    @property
    def count(self) -> int:
        """All pages, those that are free and nobody's included."""
        return len(self.owner)

    @property
    def used(self) -> int:
        return int(self._held.sum())

    def reserve(self, rows: Int[np.ndarray, " some"], positions: Int[np.ndarray, " some"]) -> bool:
        """Give these rows the pages for so many positions each; whether any was given."""
        wanted = -(-positions // self.size)
        lacking = np.maximum(wanted - self._held[rows], 0)
        if not lacking.any():
            return False
        if (more := int(lacking.sum()) - len(self._free)) > 0:
            self._grow(max(more, self.count // GROWTH))
        if (most := int(wanted.max())) > self.table.shape[1]:
            # Twice as wide, since another width is another shape for every step to come.
            wider = max(most, 2 * self.table.shape[1])
            self.table = np.pad(self.table, ((0, 0), (0, wider - self.table.shape[1])))
        for row, count in zip(rows[lacking > 0].tolist(), wanted[lacking > 0].tolist(), strict=True):
            for place in range(int(self._held[row]), count):
                page = heapq.heappop(self._free)
                self.table[row, place], self.owner[page], self.start[page] = page, row, place * self.size
            self._held[row] = count
        return True

    def _grow(self, more: int) -> None:
        self._free += range(self.count, self.count + more)  # larger than all: still a heap
        self.owner = np.pad(self.owner, (0, more))
        self.start = np.pad(self.start, (0, more), constant_values=NOBODY)

    def release(self, row: int) -> None:
        """Take a row's pages back."""
        for page in self.table[row, : self._held[row]].tolist():
            self.owner[page], self.start[page] = 0, NOBODY
            heapq.heappush(self._free, page)
        self.table[row], self._held[row] = 0, 0

    def keep(self, rows: Int[np.ndarray, " kept"], count: int) -> None:
        """Only these rows continue, as the first of `count`; all others have given their pages back."""
        table, held = self.table[rows], self._held[rows]
        self.table = np.zeros((count, max(1, int(held.max(initial=1)))), dtype=np.int64)
        self.table[: len(rows)] = table[:, : self.table.shape[1]]
        self._held = np.zeros(count, dtype=np.int64)
        self._held[: len(rows)] = held
        for row in range(len(rows)):
            self.owner[self.table[row, : held[row]]] = row

    def closed_up(self) -> Int[np.ndarray, " pages"]:
        """Leave no page free: which old page each is now."""
        old = np.concatenate([[0], np.flatnonzero(self.start != NOBODY)])
        new = np.zeros(self.count, dtype=np.int64)
        new[old] = np.arange(len(old))
        self.table, self.owner, self.start, self._free = new[self.table], self.owner[old], self.start[old], []
        return old
