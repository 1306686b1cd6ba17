"""Rollouts: answers that a model is asked for as an evaluation would, graded as an evaluation would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from elicit.decoding.answering import Response, respond
from elicit.decoding.decoders import Sampling
from elicit.decoding.engine import Batch
from elicit.decoding.loop import StopRule
from elicit.decoding.thought import written_in
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items
from elicit.training.rl.positions import Positions
from elicit.training.rl.rewards import Rollout
from elicit.training.rl.sampled import Sampled
from steering.adapters import Tuned


def sample(
    model: Model,
    items: Items,
    prompt: Prompt,
    decoder: Sampling,
    rows: int = 0,
    kept: Sampled | None = None,
    adapter: Tuned | None = None,
) -> list[list[Rollout]]:
    """For each item its rollouts. A prompt is computed once, and sample s of an item is the same in any batch.

    Args:
        model, items, prompt, decoder: what answers what, how it is asked and how it samples.
        rows: rollouts that are in memory together; 0: all of them.
        kept: where those that are finished are written, and found again.
        adapter: on the model meanwhile.
    """
    if 0 < rows < len(items) * decoder.samples:
        out: list[list[Rollout]] = []
        for start in range(0, len(items), rows):
            some = items[start : start + rows]
            each = in_parts(decoder, max(1, rows // len(some)))
            parts = [sample(model, some, prompt, part, kept=kept, adapter=adapter) for part in each]
            out += [[one for group in groups for one in group] for groups in zip(*parts, strict=True)]
        return out
    if kept is not None and (found := kept.find(items, decoder)) is not None:
        return found
    tokenizer = model.tokenizer
    batch = Batch(
        prompts=[prompt.ids(item.question, tokenizer) for item in items],
        rng_streams=[item.id for item in items],
        decoder=decoder,
        stop=StopRule(model.eos_ids, prompt.stop, tokenizer, thought_tokens=prompt.thought_tokens),
        needs=frozenset({"logprob"}),
        adapter=adapter,
        trunk=prompt.trunk(items) if isinstance(prompt, Positions) else None,
    )
    begun = [prompt.begun(item.question, tokenizer) for item in items]
    drafts = respond(model, batch, [items.task.kind_of(item) for item in items], begun=begun)
    made = [
        [
            graded_rollout(
                items, item, one.said, one.choice, one.generation.tokens.tolist(), end=one.generation.end,
                finish=one.generation.finish, logprob=one.generation.logprob.tolist(),
                written=written(prompt, tokenizer, ids, one.generation.tokens.tolist()),
            )
            for one in some
        ]
        for item, ids, some in zip(items, batch.prompts, drafts, strict=True)
    ]  # fmt: skip
    if kept is not None:
        kept.add(items, decoder, made)
    return made


def written(prompt: Prompt, tokenizer: Any, ids: Sequence[int], tokens: Sequence[int]) -> list[int]:
    """Places of an answer's tokens that a budget of thought wrote; `ids` are what was asked."""
    return [] if not prompt.thought_tokens else written_in(tokenizer, ids, tokens, prompt.thought_tokens)


def in_parts(decoder: Sampling, most: int) -> list[Sampling]:
    """The same samples by several decoders, each of at most so many."""
    first, end = decoder.first_sample, decoder.first_sample + decoder.samples
    return [replace(decoder, samples=min(most, end - start), first_sample=start) for start in range(first, end, most)]


def graded_rollout(
    items: Items,
    item: Item,
    said: Response,
    number: int,
    tokens: list[int],
    *,
    end: int | None,
    finish: str,
    logprob: list[float],
    written: list[int],
) -> Rollout:
    """A rollout from its tokens, the end token apart, and what they say."""
    grade = items.task.judge(item, said.answer, said.text)
    return Rollout(
        item=item,
        sample=number,
        tokens=[*tokens, *([] if end is None else [end])],
        text=said.text,
        answer=said.answer,
        span=said.span,
        score=grade.score,
        finish=finish,
        logprob=logprob,
        unjudged=grade.unjudged,
        written=written,
    )
