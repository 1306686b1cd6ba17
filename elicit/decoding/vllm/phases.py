"""Requests of one phase of the vllm engine, what comes back of them, and how it becomes generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from elicit.decoding.decoders import RngStream, Sampling
from elicit.decoding.engine import Batch
from elicit.decoding.loop import Record


@dataclass
class Asked:
    """Requests of one phase: a row each.

    Args:
        texts, arm_of, lengths: token ids, the number of its arm, and how much of it is question, of each.
        streams: of its random numbers, of each; none where nothing is drawn.
        sizes: tokens of its prompt, of each: what follows them was chosen by an earlier phase.
        record, target: where tokens are written, and in which of its rows.
        first: the step of the record that the first new token is.
    """

    texts: list[list[int]]
    arm_of: list[int]
    lengths: list[int]
    streams: list[tuple[Any, ...]]
    sizes: list[int]
    record: Record | None = None
    target: Sequence[int] = ()
    first: int = 0


@dataclass
class Answered:
    """What came back of a phase: tokens [kept, width] and values [5, kept, width] of each row and step, and how far
    each row's positions were moved."""

    rows: Int[np.ndarray, " kept"]
    steps: Int[np.ndarray, " kept"]
    tokens: Int[np.ndarray, "kept width"]
    values: Float[np.ndarray, "5 kept width"]
    moved: list[Float[np.ndarray, " _"]]

    def once(self) -> Answered:
        """Each row and step once, as it was last computed: a prompt that comes in chunks is asked at each."""
        last = {pair: place for place, pair in enumerate(zip(self.rows.tolist(), self.steps.tolist(), strict=True))}
        kept = np.array(sorted(last.values()), dtype=np.int64)
        return Answered(self.rows[kept], self.steps[kept], self.tokens[kept], self.values[:, kept], self.moved)


def rows_of(batch: Batch, question: Sequence[int], streams: list[tuple[Any, ...]]) -> Asked:
    """Requests for the prompts of these numbers."""
    arms = repeat(0, len(batch.prompts)) if batch.arm_of is None else batch.arm_of
    arm_of, lengths = list(arms), batch.lengths or [len(prompt) for prompt in batch.prompts]
    return Asked(
        [[int(token) for token in batch.prompts[n]] for n in question],
        [arm_of[n] for n in question],
        [int(lengths[n]) for n in question],
        streams,
        [len(batch.prompts[n]) for n in question],
    )


def streams_of(batch: Batch, decoder: Any) -> list[tuple[Any, ...]]:
    """Of each branch: the numbers of its random stream."""
    if not isinstance(decoder, Sampling):
        return [()] * len(batch.prompts)
    first = [RngStream.of(given, decoder.seed, decoder.first_sample) for given in batch.rng_streams]
    return [tuple(one._replace(choice=one.choice + n)) for one in first for n in range(decoder.samples)]


def emitted(asked: Asked, row: int, written: Sequence[int], new: Sequence[int]) -> bool:
    """Write a row's new tokens down; whether it ends by them, or since nobody waits for it."""
    assert asked.record is not None
    target = np.array([asked.target[row]])
    for step in range(len(written) - len(new), len(written)):
        if asked.record.emit(target, np.array([asked.first + step]), np.array([written[step]]))[0]:
            return True
    return False


def columns(record: Record, values: Float[np.ndarray, "5 some"], moved: Float[np.ndarray, " some"]) -> np.ndarray:
    """What `Record.measure` takes."""
    values = values.copy()
    values[0] += record.head.item()
    return np.concatenate([values, moved[None]])


def write(record: Record, asked: Asked, kept: Answered) -> None:
    """The statistics of a phase, where they belong: its tokens are `emitted` already.

    Raises:
        RuntimeError: the workers measured other tokens than vLLM's stream brought.
    """
    target = np.array(asked.target)[kept.rows]
    lengths = np.array([len(text) for text in asked.texts])
    moved = np.array(
        [
            kept.moved[row][place] if place < len(kept.moved[row]) else 0.0
            for row, place in zip(kept.rows, lengths[kept.rows] - 1 + kept.steps, strict=True)
        ],
        dtype=np.float32,
    )
    steps = asked.first + kept.steps
    said = steps < record.length[target]  # vLLM may have gone on after a stop string
    wanted = np.maximum(record.length[list(asked.target)] - asked.first, 0).sum()
    alike = kept.tokens[said, 0] == record.tokens[target[said], steps[said]]
    if said.sum() != wanted or not alike.all():
        raise RuntimeError(
            f"vLLM's stream brought {wanted} tokens, its workers measured {said.sum()}, and {alike.sum()} are the same"
        )
    values = columns(record, kept.values[:, :, 0], moved)
    record.measure(target[said], steps[said], values[:, said])
    if asked.first == 0:
        for row, at in enumerate(asked.target):
            record.prompt_moved[at] = int((kept.moved[row][: lengths[row] - 1] > 0).sum())
