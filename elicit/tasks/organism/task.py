"""The organisms' task: problems of the four families, mixed evenly, in three splits by the hash of their question.

Organisms are trained on questions of the fit split alone.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np

from elicit.tasks.base import SPLITS, Item, Split, Task, content_id, split_of
from elicit.tasks.grading import ExpressionGrader
from elicit.tasks.organism.problems import FAMILIES, draw
from probes.errors import UserError, unknown

NAME = "organism"
SUMMARY = "what the organisms are made for: sums, modular, countdown, graph (families=sums+graph, size=8)"
SEED = 20_260_102  # of every split: items are the same for everyone; training draws from other streams
FRUITLESS = 2000  # draws in a row without a new question, after which a family counts as exhausted


def load(limit: int, seed: int, params: dict[str, Any]) -> Task:
    """`limit` items of each split, the families in turn.

    Args:
        limit: items of each split.
        seed: another set of items.
        params: `families`, joined by +; `size`: of the problems (terms, numbers or chains) instead of the trained ones.

    Raises:
        UserError: another parameter, an unknown family, a size that a family does not have.
    """
    for key in params:
        if key not in ("families", "size"):
            raise unknown(f"parameter of task {NAME}", key, ["families", "size"])
    size = params.get("size")
    if size is not None and type(size) is not int:
        raise UserError(f"size = {size!r} was given to task {NAME}; give a whole number")
    chosen = str(params.get("families", "+".join(FAMILIES))).split("+")
    for family in chosen:
        if family not in FAMILIES:
            raise unknown("family", family, FAMILIES)
    drawn = [_items(family, len(range(n, limit, len(chosen))), seed, size) for n, family in enumerate(chosen)]
    # The families in turn, so that any number of first items holds all of them evenly.
    items = [
        item
        for split in SPLITS
        for turn in zip_longest(*(d[split] for d in drawn))
        for item in turn
        if item is not None
    ]
    source = {"family": NAME, "families": chosen, "seed": SEED + seed, "params": params}
    kinds = {FAMILIES[family].kind for family in chosen}
    return Task(NAME, tuple(items), ExpressionGrader(), kinds.pop() if len(kinds) == 1 else "number", source)


def _items(family: str, limit: int, seed: int, size: int | None) -> dict[Split, list[Item]]:
    """`limit` distinct questions of one family for each split."""
    rng = np.random.default_rng([SEED + seed, *family.encode()])
    out: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    fruitless = 0
    while any(len(some) < limit for some in out.values()):
        problem = draw(family, rng, size)
        split = split_of(problem.question)
        fruitless += 1
        if fruitless > FRUITLESS:
            raise UserError(
                f"{family} of size {size} has too few questions for {limit} of each split; give a smaller limit"
            )
        if problem.question in seen or len(out[split]) == limit:
            continue
        seen.add(problem.question)
        fruitless = 0
        name = f"{family}-{content_id(problem.question)}"
        facts = {"family": family, **problem.facts}
        out[split].append(Item(name, problem.question, problem.answer, split, facts, FAMILIES[family].kind))
    return out
