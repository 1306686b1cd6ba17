"""Every data set of reasoning-gym by its name, with its own parameters and its own scorer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from elicit.tasks.answers import Kind
from elicit.tasks.base import SPLITS, Grader, Item, Task, content_id, is_found, split_of
from elicit.tasks.grading import WORKER, NumberGrader, ReasoningGymGrader, infer_kind
from probes.errors import UserError

FAMILY = "reasoning-gym"
SEED = 20_260_101  # the fixed seed of every split: items are the same for everyone
POOL = 10_000  # entries a data set is opened with; some compute all of them at once
LARGE_POOL = 1_000_000  # for more than a thousand items a split
CHUNK = 64
DEADLINE_S = 600.0
NUMBERS = ("gsm_symbolic",)  # whose scorer passes over signs, and whose answers are numbers
PROVED = 16  # items of which the gold answers must be found, for the kind that they seem to be of


@cache
def names() -> list[str]:
    return [name.replace("_", "-") for name in WORKER.ask("reasoning_gym_names", DEADLINE_S)]


def load(name: str, limit: int, seed: int, params: dict[str, Any]) -> Task:
    """The first `limit` distinct questions of each split. Which split a question is in depends on its text.

    Entries are generated in the grading worker, whose hash seed is fixed: the same items in every process.
    """
    dataset = name.replace("-", "_")
    known = WORKER.ask("reasoning_gym_parameters", DEADLINE_S, dataset=dataset)
    for key in params:
        if key not in known:
            raise UserError(f"task {name!r} has no parameter {key!r}; it has {', '.join(known) or 'none'}")
    start = SEED + seed * LARGE_POOL  # item i is drawn by the seed + i: of nearer seeds nearly all items are the same
    arguments = {**params, "size": POOL if limit <= POOL // 10 else LARGE_POOL}
    try:
        items = tuple(_items(name, dataset, limit, start, arguments))
    except RuntimeError as error:
        raise UserError(
            f"task {name!r} does not accept {params or 'its default parameters'} ({error}); change the parameters"
        ) from error
    inferred = infer_kind([item.answer for item in items[:32]])
    source = {
        "family": FAMILY, "dataset": dataset, "seed": start, "params": params, "size": arguments["size"]
    }  # fmt: skip
    grader = grader_of(source)
    kind: Kind = "text" if inferred == "math" else inferred
    gold = [item for item in items[:PROVED] if item.answer is not None]
    if not all(is_found(item, grader, kind) for item in gold):
        kind = "whole"  # grids, programs and sentences, of which no line is the answer
    return Task(name, items, grader, kind, source)


def grader_of(source: dict[str, Any]) -> Grader:
    """The grader of a task again, from the task's source."""
    if source["dataset"] in NUMBERS:
        return NumberGrader()
    return ReasoningGymGrader(source["dataset"], source["seed"], {**source["params"], "size": source["size"]})


def _items(name: str, dataset: str, limit: int, seed: int, params: dict[str, Any]) -> Iterator[Item]:
    left = dict.fromkeys(SPLITS, limit)
    seen: set[str] = set()
    fruitless = 0
    for start in range(0, params["size"], CHUNK):
        pairs = WORKER.ask(
            "reasoning_gym_entries",
            DEADLINE_S,
            dataset=dataset,
            seed=seed,
            params=params,
            start=start,
            stop=start + CHUNK,
        )
        before = len(seen)
        for index, (question, answer) in enumerate(pairs, start=start):
            key, split = content_id(question), split_of(question)
            if key in seen or not left[split]:
                continue
            seen.add(key)
            left[split] -= 1
            yield Item(f"{name}-{key}", question, answer, split, {"index": index})
        fruitless = 0 if len(seen) > before else fruitless + 1
        if not any(left.values()) or fruitless == 10:  # full, or a small data set that only repeats itself
            return
