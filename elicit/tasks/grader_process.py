"""The process behind `elicit.tasks.grading.Worker`: one request a line, one reply a line, until its input ends.

Standard output carries replies alone: what the libraries print goes to standard error.

What it judges is written by a model and may be anything, so it is bounded, by the system and not by its own code, which
a long computation in C keeps from running: each request by processor time, all of it by memory, and it ends with the
process that started it. `ready` says which of these bounds hold on this platform.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space: ten times what the dearest expression that was tried took
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def bound_processor_time(seconds: float) -> bool:
    """End this process once it has computed for so long from now on; 0 lifts that. Whether the platform can."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends it, whatever is computed
    signal.setitimer(signal.ITIMER_PROF, seconds)
    return True


def bound_memory(most: int) -> bool:
    """Let allocations beyond `most` bytes fail. Whether the platform does; macOS knows the limit and ignores it."""
    if sys.platform != "linux":
        return False
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    return True


def end_with_parent() -> bool:
    """End this process when the one that started it does, however that ends. Whether the platform can."""
    if sys.platform == "linux" and not ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        return True
    return watch_parent()


def watch_parent() -> bool:
    """The same by looking every second, where an orphan gets another parent."""
    if os.name != "posix":
        return False
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return True


def verify_math(gold: str, answer: str) -> float:
    """Whether math-verify holds the two expressions equal. Not symmetric: gold first."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    configs = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]

    def parsed(text: str) -> Any:
        return parse(f"\\boxed{{{text}}}", configs, parsing_timeout=None)  # type: ignore[arg-type]

    # 0.33 is not 1/3: the numbers are compared to fifteen digits instead of six decimals.
    return float(verify(parsed(gold), parsed(answer), float_rounding=15, timeout_seconds=None))


def reasoning_gym_names() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def reasoning_gym_parameters(dataset: str) -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(f.name for f in dataclasses.fields(DATASETS[dataset][1]) if f.name not in ("seed", "size"))


@cache
def _dataset(dataset: str, seed: int, params: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(dataset, seed=seed, **json.loads(params))


@lru_cache(maxsize=4096)
def _entry(dataset: str, seed: int, params: str, index: int) -> Any:
    return _dataset(dataset, seed, params)[index]


def reasoning_gym_entries(
    dataset: str, seed: int, params: dict[str, Any], start: int, stop: int
) -> list[tuple[str, str | None]]:
    key = json.dumps(params, sort_keys=True)
    entries = [_entry(dataset, seed, key, index) for index in range(start, stop)]
    return [(e["question"], None if e["answer"] is None else str(e["answer"])) for e in entries]


def reasoning_gym_score(dataset: str, seed: int, params: dict[str, Any], index: int, answer: str) -> float:
    key = json.dumps(params, sort_keys=True)
    score = float(_dataset(dataset, seed, key).score_answer(answer, _entry(dataset, seed, key, index)))
    if not math.isfinite(score):
        raise ValueError(f"the scorer said {score}")
    return score


def ready() -> dict[str, bool]:
    """Which bounds hold."""
    return {
        "processor time": hasattr(signal, "setitimer"),
        "memory": bound_memory(MEMORY),
        "life after the run": end_with_parent(),
    }


def spin() -> None:
    """Computes for ever: what the deadline is tested with."""
    while True:
        pass


def swell(size: int) -> int:
    """Takes so many bytes: what the bound of memory is tested with."""
    return len(bytearray(size))


OPERATIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        ready,
        spin,
        swell,
        verify_math,
        reasoning_gym_names,
        reasoning_gym_parameters,
        reasoning_gym_entries,
        reasoning_gym_score,
    )
}


def _load_math_verify(**_: Any) -> None:
    import math_verify  # noqa: F401


def _load_entry(dataset: str, seed: int, params: dict[str, Any], index: int, **_: Any) -> None:
    _entry(dataset, seed, json.dumps(params, sort_keys=True), index)


# What an operation needs is made before its time counts: it is not the fault of the answer that happens to come first.
PREPARED: dict[str, Callable[..., None]] = {"verify_math": _load_math_verify, "reasoning_gym_score": _load_entry}


def _reply(operation: str, arguments: dict[str, Any], seconds: float) -> dict[str, Any]:
    try:
        if operation in PREPARED:
            PREPARED[operation](**arguments)
    except Exception as error:  # noqa: BLE001  told to the parent, which raises it there
        return {"unready": f"{type(error).__name__}: {error}"}
    bound_processor_time(seconds)
    try:
        return {"result": OPERATIONS[operation](**arguments)}
    except MemoryError:
        return {"memory": f"{operation} needs more than the {MEMORY / 2**30:g} GiB that it is given"}
    except Exception as error:  # noqa: BLE001  as above
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        bound_processor_time(0)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library in C prints there without asking `sys`
    for line in sys.stdin:
        replies.write(json.dumps(_reply(*json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
