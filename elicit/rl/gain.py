"""Information gain: what a thought tells the model about the answer (the reward of RLP, arXiv 2510.01265, eq. 3).

    gain = [ log p(answer | question, thought, cue) − log p(answer | question, cue) ] / answer tokens

in nats, on the gold answer's tokens alone. The same cue ("So the answer is") stands before the answer in both, so
that the difference is the thought's. Departures: the answer is scored, not the next tokens of a text; both terms are
the base's (the reference), so that the measure does not move while a model is trained on it; the thought ends where
the answer that it gives begins, since a thought that says the answer would be rewarded for saying it.

A gain alone says little: any text may make an answer likelier. `measure` gives it beside its nulls, of equal length:
the thought of another question, the same thought with its tokens shuffled, and filler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from elicit.elicited import ANSWER_PROMPT
from elicit.errors import UserError
from elicit.models import Model
from elicit.prompts import Prompt
from elicit.statistics import Interval, bootstrap_mean
from elicit.tasks.base import Item, Items
from elicit.trace import Trace
from probes.likelihood import mean_losses

FILLER = " ..."
NULLS = ("another question's thought", "shuffled tokens", "filler")


@torch.no_grad()
def gains(
    lm: PreTrainedModel, tokenizer: Any, prompt: Prompt, items: Sequence[Item], thoughts: Sequence[Sequence[int]]
) -> list[float]:
    """The gain of each thought on its item, in nats a token of the gold answer.

    Raises:
        UserError: an item without an answer.
    """
    cue = list(tokenizer(ANSWER_PROMPT, add_special_tokens=False)["input_ids"])
    texts: list[list[int]] = []
    lengths: list[int] = []
    for item, thought in zip(items, thoughts, strict=True):
        if item.answer is None:
            raise UserError(f"{item.id} has no answer, which information gain scores; give items that have one")
        answer = list(tokenizer(f" {item.answer}", add_special_tokens=False)["input_ids"])
        question = prompt.ids(item.question, tokenizer)
        for said in (thought, ()):
            before = [*question, *said, *cue]
            texts.append([*before, *answer])
            lengths.append(len(before))
    losses = mean_losses(lm, texts, lengths)
    scored = [-loss for loss in losses if loss is not None]
    assert len(scored) == len(texts), "an answer has at least one token"
    return [having - without for having, without in zip(scored[::2], scored[1::2], strict=True)]


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
    some = [item for item in items if item.id in traces and _thought(traces[item.id][0])]
    if len(some) < 2:
        raise UserError(f"{len(some)} questions with a thought were given; give at least two, as nulls exchange them")
    thoughts = [_thought(traces[item.id][0]) for item in some]
    rng = np.random.default_rng(seed)
    filler = list(model.tokenizer(FILLER, add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
    read = {
        "": thoughts,
        NULLS[0]: [_as_long(thoughts[(n + 1) % len(thoughts)], len(thoughts[n])) for n in range(len(thoughts))],
        NULLS[1]: [[int(t) for t in rng.permutation(thought)] for thought in thoughts],
        NULLS[2]: [_as_long(filler, len(thought)) for thought in thoughts],
    }
    found = {name: np.array(gains(model.lm, model.tokenizer, prompt, some, said)) for name, said in read.items()}
    true = found.pop("")
    beyond = {
        name: (float((true - null).mean()), bootstrap_mean(true - null, seed=seed)) for name, null in found.items()
    }
    nulls = {name: float(null.mean()) for name, null in found.items()}
    return Gain(float(true.mean()), bootstrap_mean(true, seed=seed), nulls, beyond, len(some))


def _thought(trace: Trace) -> list[int]:
    return trace.tokens if trace.span is None else trace.tokens[: trace.span[0]]


def _as_long(tokens: Sequence[int], length: int) -> list[int]:
    """The tokens, cut or repeated to a length."""
    return (list(tokens) * (length // len(tokens) + 1))[:length]
