"""Candidate solutions: different answers to one problem, sampled from the base through the one decoding loop.

The papers ask their generators to reason step by step (arXiv 2506.03295: ten models, ten solutions each; one
generator alone costs four points) or take what stands in a data set (2501.17703). Here the base alone answers, so
variety comes from sampling and from two prompts: the bare one, whose answers are what the model does by default, and
the one that asks for thoughts, as in the papers. `ask` chooses; equal texts count once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from elicit.decoding.decoders import Sampling
from elicit.decoding.progress import Progress, Silent
from elicit.elicited import Elicited
from elicit.methods.taught import ASKS
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items
from probes.errors import UserError, unknown

ROUNDS = 4  # of as many draws as are still wanted: then the model repeats itself


class Candidate(NamedTuple):
    """A solution, its extracted answer's grade, and whether the model was asked to think."""

    text: str
    correct: bool
    asked: bool


def sample(
    model: Model,
    items: Items,
    item: Item,
    prompt: Prompt,
    *,
    ask: str = "both",
    count: int = 100,
    temperature: float = 1.0,
    max_new_tokens: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Up to `count` different candidates of one item; fewer where the model has no more to say.

    Raises:
        UserError: an unknown way to ask, a count below 1; as `Sampling`.
    """
    if ask not in ASKS:
        raise unknown("way to ask", ask, ASKS)
    if count < 1:
        raise UserError(f"{count} candidates were asked for; give at least 1")
    asks = {"both": (False, True), "plain": (False,), "think": (True,)}[ask]
    out: dict[str, Candidate] = {}
    for n, asked in enumerate(asks):
        wanted = count if n + 1 == len(asks) else count // 2  # what the bare prompt lacks the other gives
        shape = prompt.thinking() if asked else prompt
        first = 0
        for _ in range(ROUNDS):
            if len(out) >= wanted:
                break
            decoder = Sampling(
                wanted - len(out), temperature, seed=seed, max_new_tokens=max_new_tokens, first_sample=first
            )
            first += decoder.samples
            handle = Elicited(model, "candidates", shape, decoder, select="vote")
            (traces,) = handle.answer(replace(items, items=(item,)), (progress or Silent()).step)
            for trace in traces:
                text = trace.text.strip()
                if text and text not in out and len(out) < wanted:
                    out[text] = Candidate(text, trace.correct, asked)
    return list(out.values())
