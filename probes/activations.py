"""What was captured: in memory, or in safetensors shards that are written during the capture."""

from __future__ import annotations

import json
import queue
import re
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.direct import DirectFile
from probes.errors import UserError
from probes.files import make_folder, read_json, write_whole
from probes.sites import Site

SHARD_BYTES = 64 << 20
WRITERS = 4  # of a capture on a GPU, which computes faster than one thread writes
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64"}
INDEX = ("row", "branch", "step")
_MANIFEST = "activations.json"
_SHARD = re.compile(r"\d{5,}\.safetensors")


@dataclass(frozen=True, eq=False)
class Activations:
    """Captured activations: one entry a position.

    Args:
        values: for each site [positions, d_model].
        row: the prompt of each position, by its number.
        branch: the branch of that prompt, 0 where there is one.
        step: the step of each position.
        patterns: for `pattern` sites: for each (row, branch, step) [heads, keys], the keys from the first token on.
    """

    values: dict[Site, Float[Tensor, "positions d_model"]]
    row: Int[Tensor, " positions"]
    branch: Int[Tensor, " positions"]
    step: Int[Tensor, " positions"]
    patterns: dict[Site, dict[tuple[int, int, int], Float[Tensor, "heads keys"]]]

    def __len__(self) -> int:
        return len(self.row)

    def at(self, site: Site, *, step: int | None = None, row: int | None = None) -> Float[Tensor, "positions d_model"]:
        """The values at a site, of one step or one row only where given."""
        kept = torch.ones(len(self), dtype=torch.bool)
        if step is not None:
            kept &= self.step == step
        if row is not None:
            kept &= self.row == row
        return self.values[site][kept]

    @staticmethod
    def open(folder: Path | str) -> Activations:
        """Everything that was streamed to a folder, in memory. `shards` reads it a piece at a time.

        Raises:
            UserError: no capture there, or one that was not finished.
        """
        pieces = list(shards(folder))
        columns = {name: torch.cat([p[name] for p in pieces]) for name in pieces[0]}
        sites = {Site.parse(name): value for name, value in columns.items() if name not in INDEX}
        return Activations(sites, columns["row"], columns["branch"], columns["step"], {})


def shards(folder: Path | str) -> Iterator[dict[str, Tensor]]:
    """The shards of a capture, one after the other: `row`, `branch`, `step`, and a tensor a site under its name.

    Raises:
        UserError: no capture there, one that was not finished, or a shard that was cut.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / _MANIFEST).is_file():
        raise UserError(f"{str(folder)!r} holds no finished capture ({_MANIFEST} is missing); capture again")
    for name in _shards_of(folder):
        try:
            yield load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"shard {name!r} in {str(folder)!r} is broken ({error}); capture again") from error


def _shards_of(folder: Path) -> list[str]:
    """Names of the shards, each a file of the folder's own.

    Raises:
        UserError: the manifest is broken, or names something else.
    """
    named = read_json(folder / _MANIFEST, "capture again").get("shards")
    if not isinstance(named, list) or not all(isinstance(one, str) and _SHARD.fullmatch(one) for one in named):
        raise UserError(f"{str(folder / _MANIFEST)!r} names no shards of a capture; capture again")
    return named


def remove_shards(folder: Path) -> None:
    """Remove a finished capture's files, and its folder where nothing else lies in it."""
    for name in _shards_of(folder):
        (folder / name).unlink(missing_ok=True)
    (folder / _MANIFEST).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


@runtime_checkable
class Sink(Protocol):
    """Where a recorder puts what it sees: a batch of columns (`INDEX` and the sites) at a time."""

    def put(self, columns: dict[str, Tensor]) -> None: ...

    def close(self) -> None: ...


class Memory:
    """Keeps all."""

    def __init__(self) -> None:
        self.pieces: list[dict[str, Tensor]] = []

    def put(self, columns: dict[str, Tensor]) -> None:
        # What is kept for long is not kept in page-locked memory.
        self.pieces.append({name: t.clone() if t.is_pinned() else t for name, t in columns.items()})

    def close(self) -> None:
        pass


class Shards:
    """Writes safetensors shards in threads of its own, which may be one shard each behind, and one more that waits.

    Args:
        folder: for the shards.
        shard_bytes: a shard is written as soon as it has so many.
        writers: threads, of which each writes another shard.
    """

    def __init__(self, folder: Path | str, shard_bytes: int = SHARD_BYTES, writers: int = 1) -> None:
        self.folder = Path(folder)
        if (self.folder / _MANIFEST).exists() or any(self.folder.glob("[0-9]" * 5 + ".safetensors")):
            raise UserError(f"{str(folder)!r} holds a capture already; give another folder or remove it")
        make_folder(self.folder)
        self.shard_bytes = shard_bytes
        self.names: list[str] = []
        self.error: BaseException | None = None
        self._held: list[dict[str, Tensor]] = []
        self._size = 0
        self._waiting: queue.Queue[tuple[str, list[dict[str, Tensor]]] | None] = queue.Queue(maxsize=1)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(writers)]
        for thread in self._threads:
            thread.start()

    def put(self, columns: dict[str, Tensor]) -> None:
        """Take a batch; waits where writing is behind.

        Raises:
            BaseException: what a writer met.
        """
        self._fail()
        self._held.append(columns)
        self._size += sum(t.numel() * t.element_size() for t in columns.values())
        if self._size >= self.shard_bytes:
            self._hand_over()

    def close(self) -> None:
        if self._held and self.error is None:
            self._hand_over()
        self._join()
        self._fail()
        write_whole(self.folder / _MANIFEST, json.dumps({"shards": self.names}))

    def abandon(self) -> None:
        """Stop without a manifest: what was not finished cannot be opened."""
        self._held = []
        self._join()

    def _hand_over(self) -> None:
        name = f"{len(self.names):05d}.safetensors"
        self.names.append(name)
        self._waiting.put((name, self._held))
        self._held, self._size = [], 0

    def _join(self) -> None:
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        while True:
            shard = self._waiting.get()
            if shard is None:
                return
            try:
                if self.error is None:  # else the capture is told at its next put; until then nothing may block it
                    self._write(*shard)
            except BaseException as error:  # noqa: BLE001  handed to the thread that captures, which raises it
                self.error = error
            del shard  # its memory is not held while the next is waited for

    def _write(self, name: str, held: list[dict[str, Tensor]]) -> None:
        """One safetensors file, from the pieces as they lie: the library's own writer would copy them twice."""
        header: dict[str, Any] = {}
        end = 0
        for key, first in held[0].items():
            pieces = [h[key] for h in held]
            begin, end = end, end + sum(p.nbytes for p in pieces)
            shape = [sum(len(p) for p in pieces), *first.shape[1:]]
            header[key] = {"dtype": DTYPES[first.dtype], "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file = DirectFile(self.folder / name)
        try:
            file.write(np.frombuffer(struct.pack("<Q", len(text)) + text, dtype=np.uint8))
            for key in held[0]:
                for piece in (h[key] for h in held):
                    file.write(piece.contiguous().view(torch.uint8).flatten().numpy())
        finally:
            file.close()
