"""The chains of thought that vectors and gates are fitted on, and activations at the positions that predict
their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.progress import Progress
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.tasks.base import Items
from probes.capture import capture
from probes.errors import UserError
from probes.sites import Site
from steering.categories.segments import Span, segment

TOGETHER = 32  # texts whose activations are held at once


@dataclass(frozen=True, eq=False)
class ReasoningTraces:
    """Answers of a model as token ids with their prompts, and the sentences of each."""

    texts: list[list[int]]
    lengths: list[int]
    spans: list[list[Span]]

    @property
    def sentences(self) -> int:
        return sum(map(len, self.spans))


def reasoning_traces_of(thinker: Elicited, items: Items, progress: Progress | None = None) -> ReasoningTraces:
    """The answers of a thinking model, split into sentences; empty ones are left out.

    Raises:
        UserError: no answer at all.
    """
    answers = [
        (thinker.prompt_ids(item), trace)
        for item, (trace,) in zip(items, thinker.answers(items, progress), strict=True)
        if trace.tokens
    ]
    if not answers:
        raise UserError(f"the thinking model answered none of {len(items)} questions; give one that does")
    prompts, traces = zip(*answers, strict=True)
    return reasoning_traces_from(prompts, traces, thinker.model.tokenizer)


def reasoning_traces_from(
    prompts: Sequence[list[int]], traces: Sequence[Trace], tokenizer: PreTrainedTokenizerBase
) -> ReasoningTraces:
    """Answers that are there already, split into sentences; none is empty."""
    texts = [head + trace.tokens for head, trace in zip(prompts, traces, strict=True)]
    lengths = [len(head) for head in prompts]
    return ReasoningTraces(texts, lengths, [segment(tokenizer, t, n) for t, n in zip(texts, lengths, strict=True)])


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """Activations at every position that predicts a token of a sentence: of which text, and in which sentence."""

    x: Float[Tensor, "positions d"]
    text: Int[np.ndarray, " positions"]
    sentence: Int[np.ndarray, " positions"]


def token_activations(lm: PreTrainedModel, thoughts: ReasoningTraces, site: Site) -> TokenActivations:
    """A model's activations along some texts, from any model."""
    values, text, sentence, before = [], [], [], 0
    for start in range(0, len(thoughts.texts), TOGETHER):
        rows = range(start, min(start + TOGETHER, len(thoughts.texts)))
        some, lengths = [thoughts.texts[r] for r in rows], [thoughts.lengths[r] for r in rows]
        acts = capture(lm, some, [site], lengths=lengths, steps=(0, None), dtype=torch.float32)
        assert acts is not None
        for r in rows:
            h = acts.at(site, row=r - start)
            for first, last in thoughts.spans[r]:
                values.append(h[first - thoughts.lengths[r] : last - thoughts.lengths[r]])
                text += [r] * (last - first)
                sentence += [before] * (last - first)
                before += 1
    return TokenActivations(torch.cat(values), np.array(text), np.array(sentence))
