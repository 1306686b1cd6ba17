"""The process behind `elicit.tasks.grading.Worker`: one request a line, one reply a line, until its input ends.

Standard output carries replies alone: what the libraries print goes to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any


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
    return float(_dataset(dataset, seed, key).score_answer(answer, _entry(dataset, seed, key, index)))


def ready() -> bool:
    return True


def spin() -> None:
    """Hangs: what the deadline is tested with."""
    while True:
        pass


OPERATIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        ready,
        spin,
        verify_math,
        reasoning_gym_names,
        reasoning_gym_parameters,
        reasoning_gym_entries,
        reasoning_gym_score,
    )
}


def main() -> None:
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            operation, arguments = json.loads(line)
            reply = {"result": OPERATIONS[operation](**arguments)}
        except Exception as error:  # noqa: BLE001  told to the parent, which raises it there
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
