"""Information gain: what a thought tells the model about the answer (the reward of RLP, arXiv 2510.01265, eq. 3).

    gain = [ log p(answer | question, thought, cue) − log p(answer | question, cue) ] / answer tokens

in nats, on the gold answer's tokens alone. The same cue ("So the answer is") stands before the answer in both, so
that the difference is the thought's. Departures: the answer is scored, not the next tokens of a text; both terms are
the base's (the reference), so that the measure does not move while a model is trained on it; the thought ends where
the answer that it gives begins, since a thought that says the answer would be rewarded for saying it.

A gain alone says little: any text may make an answer likelier. `measure` gives it beside null (placebo) traces of equal
length: the thought of another question, the same thought with its tokens shuffled, and filler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from elicit.decoding.answering import ANSWER_PROMPT
from elicit.decoding.continuing import continuing_ids
from elicit.decoding.trace import Trace
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items
from probes.errors import UserError
from probes.likelihood import mean_losses
from probes.statistics import Interval, bootstrap_mean

FILLER = " ..."
NULLS = ("another question's thought", "shuffled tokens", "filler")


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """The tokens of an answer after the cue."""
    return continuing_ids(tokenizer, f" {answer}")


def answer_logprobs(
    lm: PreTrainedModel,
    tokenizer: Any,
    questions: Sequence[Sequence[int]],
    thoughts: Sequence[Sequence[int]],
    answers: Sequence[str],
    before_forward: Callable[[Sequence[int]], None] | None = None,
) -> list[float]:
    """log p(answer | question, thought, cue), in nats a token of the answer.

    Args:
        lm, tokenizer: the scorer.
        questions: token ids of the prompts.
        thoughts, answers: what stands between prompt and cue, and what is scored after it.
        before_forward: called with the prompts' lengths before each forward, so that an intervention counts its steps
            from them.
    """
    cue = continuing_ids(tokenizer, ANSWER_PROMPT)
    heads = [[*question, *said, *cue] for question, said in zip(questions, thoughts, strict=True)]
    texts = [[*head, *answer_ids(tokenizer, answer)] for head, answer in zip(heads, answers, strict=True)]
    before = None if before_forward is None else lambda rows: before_forward([len(questions[i]) for i in rows])
    losses = mean_losses(lm, texts, [len(head) for head in heads], before=before)
    scored = [-loss for loss in losses if loss is not None]
    assert len(scored) == len(texts), "an answer has at least one token"
    return scored


@torch.no_grad()
def gains(
    lm: PreTrainedModel, tokenizer: Any, prompt: Prompt, items: Sequence[Item], thoughts: Sequence[Sequence[int]]
) -> list[float]:
    """The gain of each thought on its item, in nats a token of the gold answer.

    Raises:
        UserError: an item without an answer.
    """
    answers = [gold(item) for item in items]
    questions = [prompt.ids(item.question, tokenizer) for item in items]
    both = [*thoughts, *([()] * len(items))]
    scored = answer_logprobs(lm, tokenizer, questions * 2, both, answers * 2)
    return [having - without for having, without in zip(scored[: len(items)], scored[len(items) :], strict=True)]


def gold(item: Item) -> str:
    """The answer of an item.

    Raises:
        UserError: it has none.
    """
    if item.answer is None:
        raise UserError(f"{item.id} has no answer, which information gain scores; give items that have one")
    return item.answer


def null_traces(tokenizer: Any, thoughts: Sequence[Sequence[int]], seed: int = 0) -> dict[str, list[list[int]]]:
    """The null (placebo) traces of at least two thoughts: one of each null for each, as many tokens."""
    rng = np.random.default_rng(seed)
    filler = continuing_ids(tokenizer, FILLER)
    return {
        NULLS[0]: [as_long(thoughts[(n + 1) % len(thoughts)], len(thought)) for n, thought in enumerate(thoughts)],
        NULLS[1]: [[int(t) for t in rng.permutation(list(thought))] for thought in thoughts],
        NULLS[2]: [as_long(filler, len(thought)) for thought in thoughts],
    }


@dataclass(frozen=True)
class Gain:
    """Mean gain over questions with its 95% interval, and by how much it exceeds each null, paired by question."""

    mean: float
    interval: Interval
    nulls: dict[str, float]
    beyond: dict[str, tuple[float, Interval]]
    items: int


def measure(
    model: Model, items: Items, traces: Mapping[str, Sequence[Trace]], prompt: Prompt | None = None, *, seed: int = 0
) -> Gain:
    """The information gain of the thoughts that were given to these questions (the first trace of each).

    Raises:
        UserError: fewer than two questions with a thought, or one without an answer.
    """
    prompt = prompt or Prompt()
    some = [item for item in items if item.id in traces and traces[item.id][0].chain_of_thought]
    if len(some) < 2:
        raise UserError(f"{len(some)} questions with a thought were given; give at least two, as nulls exchange them")
    thoughts = [traces[item.id][0].chain_of_thought for item in some]
    read = {"": thoughts, **null_traces(model.tokenizer, thoughts, seed)}
    found = {name: np.array(gains(model.lm, model.tokenizer, prompt, some, said)) for name, said in read.items()}
    true = found.pop("")
    beyond = {
        name: (float((true - null).mean()), bootstrap_mean(true - null, seed=seed)) for name, null in found.items()
    }
    nulls = {name: float(null.mean()) for name, null in found.items()}
    return Gain(float(true.mean()), bootstrap_mean(true, seed=seed), nulls, beyond, len(some))


def as_long(tokens: Sequence[int], length: int) -> list[int]:
    """The tokens, cut or repeated to a length."""
    return (list(tokens) * (length // len(tokens) + 1))[:length]
