"""Baselines that get, question by question, the tokens that the evaluated handle spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from elicit.decoding.decoders import RngStream, Sampling
from elicit.decoding.progress import Progress, Silent
from elicit.decoding.trace import Trace
from elicit.elicited import Asked, answer_together
from elicit.tasks.base import Items

MATCHED = "@budget"
"""Suffix of a baseline that gets, question by question, the tokens that the mechanism spent."""


MAX_SAMPLES = 512  # for one question, where its budget would allow more


def draw_to_budget(
    asked: Asked, budgets: Sequence[Mapping[str, int]], rows: int, progress: Progress | None = None
) -> list[dict[str, list[Trace]]]:
    """Sample what each question is asked until its budget of tokens is used up.

    Sample s of a question is the same in whatever round it is drawn. At least one is kept, the one that would exceed
    the budget is not, and no question gets more than 512. So after the first round a sample is ended as soon as it and
    those before it have spent more than the budget that is left: it is kept by no question.

    Args:
        asked: handles that share all but their prompts, each with its questions.
        budgets: for each handle the tokens by question.
        rows: samples decoded together.
        progress: what is reported to.

    Returns:
        For each handle the samples that are kept by question.
    """
    decoder = asked[0][0].decoder
    assert isinstance(decoder, Sampling)
    step = (progress or Silent()).step
    drawn: list[dict[str, list[Trace]]] = [{item.id: [] for item in items} for _, items in asked]
    left = [list(items) for _, items in asked]
    while count := sum(map(len, left)):
        open_now = [
            (n, Items(items.task, tuple(some)))
            for n, ((_, items), some) in enumerate(zip(asked, left, strict=True))
            if some
        ]
        so_far = [[drawn[n][item.id] for item in some] for n, some in open_now]
        rest = [
            budgets[n][item.id] - sum(t.spent for t in traces)
            for (n, some), each in zip(open_now, so_far, strict=True)
            for item, traces in zip(some, each, strict=True)
        ]
        known = [traces for each in so_far for traces in each]
        need = max(map(_wanted, known, rest))
        samples = max(1, min(need, rows // count, MAX_SAMPLES))
        one = replace(decoder, samples=samples)
        bounded = all(known)  # whose first sample is kept whatever it spends
        if bounded:
            one = replace(one, max_new_tokens=min(decoder.max_new_tokens, 1 + max(rest)))
        found = answer_together(
            [(replace(asked[n][0], decoder=one), some) for n, some in open_now],
            step,
            rng_streams=[
                [RngStream(one.seed, item.id, 0, len(traces)) for item, traces in zip(some, each, strict=True)]
                for (_, some), each in zip(open_now, so_far, strict=True)
            ],
            budgets=rest if bounded else None,
        )
        for (n, some), each in zip(open_now, found, strict=True):
            for item, traces in zip(some, each, strict=True):
                drawn[n][item.id] += traces
            left[n] = [item for item in some if _goes_on(drawn[n][item.id], budgets[n][item.id])]
    return [
        {item.id: _within(own[item.id], budget[item.id]) for item in items}
        for (_, items), own, budget in zip(asked, drawn, budgets, strict=True)
    ]


def _goes_on(traces: Sequence[Trace], budget: int) -> bool:
    return sum(t.spent for t in traces) < budget and len(traces) < MAX_SAMPLES


def _wanted(traces: Sequence[Trace], rest: int) -> int:
    """How many more samples the rest of the budget will pay for, judging by those drawn."""
    return math.ceil(rest * len(traces) / max(1, sum(t.spent for t in traces))) if traces else 1


def _within(traces: Sequence[Trace], budget: int) -> list[Trace]:
    kept: list[Trace] = []
    total = 0
    for trace in traces[:MAX_SAMPLES]:
        total += trace.spent
        if kept and total > budget:
            break
        kept.append(trace)
    return kept
