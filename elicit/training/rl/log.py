"""The rollout log: one line a rollout, cut back to the last whole update when a training is resumed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from elicit.training.rl.rewards import Graded, Rollout
from probes.description import reward_bits
from probes.errors import UserError, as_expected
from probes.files import no_link

LOG = "rollouts.jsonl"


def log_line(rollout: Rollout, graded: Graded, advantage: float) -> dict[str, Any]:
    """What the log keeps of a rollout."""
    return {
        "item": rollout.item.id, "sample": rollout.sample, "text": rollout.text, "answer": rollout.answer,
        "score": rollout.score, "finish": rollout.finish, "reward": graded.total, "parts": graded.parts,
        "read": graded.read, "advantage": advantage, "tokens": rollout.tokens,
        **({"unjudged": rollout.unjudged} if rollout.unjudged else {}),
        **({"written": rollout.written} if rollout.written else {}),
    }  # fmt: skip


def facts(rollouts: Sequence[Rollout], totals: Float[Tensor, "groups group"]) -> dict[str, float]:
    """What a curve keeps of all rollouts of an update."""
    answers = Counter(r.answer for r in rollouts if r.answer is not None)
    return {
        "reward": float(totals.mean()),
        "accuracy": float(np.mean([r.score >= 1 for r in rollouts])),
        "mixed": float((totals != totals[:, :1]).any(1).float().mean()),
        "constant": max(answers.values(), default=0) / len(rollouts),
        "bits": reward_bits(totals.tolist()),
    }


def of_update(facts: Mapping[str, float], update: int, per_rollout: int) -> dict[str, float]:
    """These facts as those of an update: a rollout's rewards tell their bits once, however many updates use them."""
    return {**facts, "bits": facts["bits"] if update % per_rollout == 0 else 0.0}


class RolloutLog:
    """`rollouts.jsonl` while a training writes it; `size` is what the state notes of it."""

    def __init__(self, file: FileIO) -> None:
        self.file = file

    @staticmethod
    @contextmanager
    def open(path: Path, whole: int) -> Iterator[RolloutLog]:
        """Open for appending after the first `whole` bytes; what follows them is of an update that was not finished.

        Raises:
            UserError: fewer bytes than the state knows of; a link in its place.
        """
        no_link(path)
        with path.open("a+b", buffering=0) as file:  # nothing is left to be written when it is closed
            if (found := file.seek(0, os.SEEK_END)) < whole:
                raise UserError(f"{str(path)!r} has {found} bytes and its training wrote {whole}; give another folder")
            file.truncate(whole)
            file.seek(whole)
            yield RolloutLog(file)

    @property
    def size(self) -> int:
        return self.file.tell()

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write whole lines.

        Raises:
            UserError: no room; the state before them is kept.
        """
        left = memoryview("".join(json.dumps(record) + "\n" for record in records).encode())
        try:
            while left:
                left = left[self.file.write(left) :]
        except OSError as error:
            raise UserError(
                f"{self.file.name!r} cannot be written ({error.strerror}); the state before it is kept: make room and "
                "run the same command again"
            ) from error


def read_log(folder: Path, start: int = 0, before: int = 0) -> Iterator[dict[str, Any]]:
    """The rollouts of a training, in order.

    Args:
        folder: of the training.
        start, before: bytes and lines that were read already.

    Raises:
        UserError: a line that is not as it was written (its number is given).
    """
    with (folder / LOG).open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, start=before + 1):
            with as_expected(f"line {number} of {str(folder / LOG)!r}", "train again into another folder"):
                found = dict(json.loads(line))
            yield found
