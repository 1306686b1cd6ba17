"""Rollouts of an update that has not been made, written as they are finished: a stopped training goes on with them.

`sampled.jsonl` has a line for each call of the sampler (`rollout_rows` answers, or all of an update). It is emptied
when a state is written, which is past them, and is gone when the training ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elicit.decoding.decoders import Sampling
from elicit.tasks.base import Items
from elicit.training.rl.log import RolloutLog
from elicit.training.rl.rewards import Rollout
from probes.errors import GARBLED
from probes.files import digest

SAMPLED = "sampled.jsonl"


class Sampled:
    """What was sampled since the last state; `of` stands for all that decides it."""

    def __init__(self, log: RolloutLog, of: str, known: dict[str, list[list[dict[str, Any]]]]) -> None:
        self.log, self.of, self.known = log, of, known

    @staticmethod
    @contextmanager
    def open(path: Path, of: str) -> Iterator[Sampled]:
        """Read what is there, up to a line that was not finished.

        Raises:
            UserError: a link in its place.
        """
        known: dict[str, list[list[dict[str, Any]]]] = {}
        whole = 0
        for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
            if not line.endswith(b"\n"):
                break
            try:
                found = json.loads(line)
                known |= {str(key): [[dict(row) for row in rows] for rows in groups] for key, groups in found.items()}
            except GARBLED:  # what was not written so is sampled again, as what was cut
                break
            whole += len(line)
        with RolloutLog.open(path, whole) as log:
            yield Sampled(log, of, known)
        if not path.stat().st_size:
            path.unlink()

    def find(self, items: Items, decoder: Sampling) -> list[list[Rollout]] | None:
        """For each item its rollouts, where they were sampled."""
        found = self.known.get(self._key(items, decoder))
        if found is None:
            return None
        return [
            [Rollout(**{**one, "item": item, "span": one["span"] and tuple(one["span"])}) for one in some]
            for item, some in zip(items, found, strict=True)
        ]

    def add(self, items: Items, decoder: Sampling, rollouts: Sequence[Sequence[Rollout]]) -> None:
        """Write them.

        Raises:
            UserError: no room.
        """
        plain = [[{k: v for k, v in vars(one).items() if k != "item"} for one in some] for some in rollouts]
        self.log.append([{self._key(items, decoder): plain}])

    def clear(self) -> None:
        """Forget them: a state has what they were needed for."""
        self.known.clear()
        self.log.file.truncate(0)

    def _key(self, items: Items, decoder: Sampling) -> str:
        return digest([self.of, [item.id for item in items], decoder.first_sample, decoder.samples])
