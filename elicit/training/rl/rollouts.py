"""Rollouts: answers sampled by the one decoding loop, their answers found and graded as an evaluation would."""

from __future__ import annotations

from elicit.decoding.answering import read
from elicit.decoding.decoders import Sampling
from elicit.decoding.loop import StopRule, decode
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items
from elicit.training.rl.rewards import Rollout


def sample(model: Model, items: Items, prompt: Prompt, decoder: Sampling) -> list[list[Rollout]]:
    """For each item its rollouts. A prompt is computed once, and sample s of an item is the same in any batch."""
    tokenizer = model.tokenizer
    generations = decode(
        model.lm,
        [prompt.ids(item.question, tokenizer) for item in items],
        decoder.policy([item.id for item in items], model.vocab_size),
        max_new_tokens=decoder.max_new_tokens,
        stop=StopRule(model.eos_ids, prompt.stop, tokenizer),
    )
    return [
        [
            judged(
                model, items, item, prompt, number, g.tokens.tolist(), end=g.end, finish=g.finish,
                logprob=g.logprob.tolist(),
            )
            for number, g in zip(decoder.sample_ids, branches, strict=True)
        ]
        for item, branches in zip(items, generations, strict=True)
    ]  # fmt: skip


def judged(
    model: Model,
    items: Items,
    item: Item,
    prompt: Prompt,
    number: int,
    tokens: list[int],
    *,
    end: int | None,
    finish: str,
    logprob: list[float],
) -> Rollout:
    """A rollout from its tokens, the end token apart: its answer is looked for and graded."""
    said = read(model.tokenizer, tokens, prompt.stop, items.task.kind_of(item))
    grade = items.task.grader.grade(item, said.answer)
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
    )
