"""Baselines that get, question by question, the tokens that the evaluated handle spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Sampling
from elicit.decoding.progress import Progress, Silent
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.tasks.base import Items

MATCHED = "@budget"
"""Suffix of a baseline that gets, question by question, the tokens that the mechanism spent."""


MAX_SAMPLES = 512  # for one question, where its budget would allow more


def draw_to_budget(
    handle: Elicited, batch: Items, budget: Mapping[str, int], rows: int, progress: Progress | None = None
) -> dict[str, list[Trace]]:
    """Sample each question until its budget of tokens is used up.

    Sample s of a question is the same in whatever round it is drawn. At least one is kept, the one that
    would exceed the budget is not, and no question gets more than 512. So after the first round none is drawn further
    than one token beyond the largest budget that is left: a longer one is kept by no question.
    """
    decoder = handle.decoder
    assert isinstance(decoder, Sampling)
    progress = progress or Silent()
    drawn: dict[str, list[Trace]] = {item.id: [] for item in batch}
    left = list(batch.items)
    while left:
        need = max(_wanted(drawn[item.id], budget[item.id]) for item in left)
        samples = max(1, min(need, rows // len(left), MAX_SAMPLES))
        most = decoder.max_new_tokens
        if all(drawn[item.id] for item in left):
            most = min(most, 1 + max(budget[item.id] - sum(t.spent for t in drawn[item.id]) for item in left))
        groups: dict[int, list[Any]] = {}
        for item in left:
            groups.setdefault(len(drawn[item.id]), []).append(item)
        for first, some in groups.items():
            one = replace(handle, decoder=replace(decoder, samples=samples, first_sample=first, max_new_tokens=most))
            for item, traces in zip(some, one.answer(Items(batch.task, tuple(some)), progress.step), strict=True):
                drawn[item.id] += traces
        left = [
            item
            for item in left
            if sum(t.spent for t in drawn[item.id]) < budget[item.id] and len(drawn[item.id]) < MAX_SAMPLES
        ]
    return {item.id: _within(drawn[item.id], budget[item.id]) for item in batch}


def _wanted(traces: Sequence[Trace], budget: int) -> int:
    """How many more samples the rest of the budget will pay for, judging by those drawn."""
    if not traces:
        return 1
    spent = sum(t.spent for t in traces)
    return math.ceil((budget - spent) / max(1.0, spent / len(traces)))


def _within(traces: Sequence[Trace], budget: int) -> list[Trace]:
    kept: list[Trace] = []
    total = 0
    for trace in traces[:MAX_SAMPLES]:
        total += trace.spent
        if kept and total > budget:
            break
        kept.append(trace)
    return kept
