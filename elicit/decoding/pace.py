"""How fast a model is decoded here and now: a few steps, timed, by each number of threads.

Two threads that other work disturbs may be slower than one, so the number is tried instead of believed. Beside the
seconds stands the share of its cores that the process was given: other work explains a slow step as well as a slow
machine does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch

from elicit.decoding.decoders import Greedy
from elicit.decoding.loop import StopRule, decode
from elicit.decoding.trial import trial_of
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


@dataclass(frozen=True)
class StepCost:
    """Seconds of a step: `fixed`, and `each` of its rows more."""

    fixed: float
    each: float

    def of(self, rows: int) -> float:
        return self.fixed + self.each * rows

    @staticmethod
    def measured(model: Model, rows: int) -> StepCost:
        """From steps of one row and of many, up to twice `ROWS`: fewer are no measure of what a row costs.

        Args:
            model: on any device.
            rows: how many will be decoded together.

        Raises:
            UserError: as `decode`.
        """
        trial_of(model.lm)  # what is done once must not be timed
        _steps(model, 1)
        many = max(2, min(rows, 2 * _rows(model)))
        one, all_of_them = (_steps(model, n)[0] for n in (1, many))
        each = max(0.0, (all_of_them - one) / (many - 1))
        return StepCost(max(1e-9, one - each), each)


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


@contextmanager
def without_pool() -> Iterator[None]:
    """Load a model in this thread so that another can decode with it at full speed.

    OpenMP keeps a pool of threads for each thread that computes with several. As soon as all pools together hold more
    than the machine has cores, those that wait go to sleep at once, and every small product pays for a wake-up: with
    two cores a step of 16 rows took 1.15 times as long as in the process's only pool.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_to_try() -> tuple[int, ...]:
    """All of torch's threads, and one."""
    return tuple(dict.fromkeys((torch.get_num_threads(), 1)))


def _with(model: Model, threads: int) -> Pace:
    torch.set_num_threads(threads)
    rows = _rows(model)
    seconds, share = _steps(model, rows)
    return Pace(threads, seconds * ROWS / rows, min(1.0, share / threads))


def _rows(model: Model) -> int:
    return max(1, min(ROWS, ROWS * PARAMETERS // max(1, model.lm.num_parameters())))


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
