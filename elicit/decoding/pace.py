"""How fast a model is decoded here and now: a few steps, timed, by each number of threads.

Two threads that other work disturbs may be slower than one, so the number is tried instead of believed. Beside the
seconds stands the share of its cores that the process was given: other work explains a slow step as well as a slow
machine does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from elicit.decoding.decoders import Greedy
from elicit.decoding.loop import StopRule, decode
from elicit.models.model import Model

ROWS, STEPS, PROMPT, ROUNDS = 32, 5, 2, 3
# Of a model that is tried with `ROWS` rows; a larger one is with fewer, so that it takes no longer.
PARAMETERS = 135_000_000


@dataclass(frozen=True)
class Pace:
    """Args: threads that it was measured with, seconds of a step of `ROWS` rows (the median of a few), and the share of
    the threads' time that the process got."""

    threads: int
    seconds: float
    share: float


def measure_pace(model: Model, threads: Sequence[int] = ()) -> Pace:
    """The fastest of these numbers of threads, each tried a few times in turn, since a moment's other work would count
    for all of the job; how many torch uses is the same afterwards.

    Args:
        model: on any device; it is decoded by the reference loop.
        threads: numbers to try; torch's own unless given.

    Raises:
        UserError: as `decode`.
    """
    before = torch.get_num_threads()
    _steps(model, 1)  # what is done once: the trial of the model's cache, packed weights
    try:
        tried = (_with(model, number) for _ in range(ROUNDS) for number in threads or (before,))
        return min(tried, key=lambda pace: pace.seconds)
    finally:
        torch.set_num_threads(before)


def threads_to_try() -> tuple[int, ...]:
    """All of torch's threads, and one."""
    return tuple(dict.fromkeys((torch.get_num_threads(), 1)))


def _with(model: Model, threads: int) -> Pace:
    torch.set_num_threads(threads)
    rows = max(1, min(ROWS, ROWS * PARAMETERS // max(1, model.lm.num_parameters())))
    seconds, share = _steps(model, rows)
    return Pace(threads, seconds * ROWS / rows, min(1.0, share / threads))


def _steps(model: Model, rows: int) -> tuple[float, float]:
    """The median seconds of a step, and processor seconds a second."""
    times, worked = [time.perf_counter()], time.process_time()
    policy = Greedy(STEPS).policy([""] * rows, model.choices)
    decode(
        model.lm,
        [[0] * PROMPT] * rows,
        policy,
        max_new_tokens=STEPS,
        stop=StopRule(frozenset()),
        on_step=lambda step, open_rows: times.append(time.perf_counter()),
    )
    times.append(time.perf_counter())
    whole = times[-1] - times[0]
    steps = sorted(b - a for a, b in pairwise(times[1:]))
    return steps[len(steps) // 2], (time.process_time() - worked) / whole
