"""Rollouts: answers sampled by the one decoding loop, their answers found and graded as an evaluation would."""

from __future__ import annotations

from elicit.answers import find_answer, token_span
from elicit.decoders import Sampling
from elicit.decoding import StopRule, decode
from elicit.models import Model
from elicit.prompts import Prompt
from elicit.rl.rewards import Rollout
from elicit.tasks.base import Items
from elicit.trace import response_text


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
    out: list[list[Rollout]] = []
    for item, branches in zip(items, generations, strict=True):
        kind = items.task.kind_of(item)
        out.append([])
        for number, g in zip(decoder.sample_ids, branches, strict=True):
            text, ends = response_text(tokenizer, g, prompt.stop)
            found = find_answer(text, kind)
            answer = found.text if found else None
            out[-1].append(
                Rollout(
                    item=item,
                    sample=number,
                    tokens=[*g.tokens.tolist(), *([] if g.end is None else [g.end])],
                    text=text,
                    answer=answer,
                    span=token_span(ends, found) if found else None,
                    score=items.task.grader.grade(item, answer).score,
                    finish=g.finish,
                    logprob=g.logprob.tolist(),
                )
            )
    return out
