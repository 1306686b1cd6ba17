"""The chains of thought that vectors and gates are fitted on, and activations at the positions that predict
their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.progress import Progress
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.tasks.base import Item, Items
from probes.capture import capture
from probes.errors import UserError
from probes.sites import Site
from steering.categories.segments import Span, segment

TOGETHER = 32  # texts whose activations are held at once


@dataclass(frozen=True, eq=False)
class ReasoningTraces:
    """Answers of a model as token ids with their prompts, and the sentences of each; `items` are the questions'."""

    texts: list[list[int]]
    lengths: list[int]
    spans: list[list[Span]]
    items: list[Item] = field(default_factory=list)

    @property
    def sentences(self) -> int:
        return sum(map(len, self.spans))


def reasoning_traces_of(thinker: Elicited, items: Items, progress: Progress | None = None) -> ReasoningTraces:
    """The answers of a thinking model, split into sentences; empty ones are left out.

    Raises:
        UserError: no answer at all.
    """
    answers = [
        (item, trace) for item, (trace,) in zip(items, thinker.answers(items, progress), strict=True) if trace.tokens
    ]
    if not answers:
        raise UserError(f"the thinking model answered none of {len(items)} questions; give one that does")
    asked, traces = zip(*answers, strict=True)
    prompts = [thinker.prompt_ids(item) for item in asked]
    return replace(reasoning_traces_from(prompts, traces, thinker.model.tokenizer), items=list(asked))


def reasoning_traces_from(
    prompts: Sequence[list[int]], traces: Sequence[Trace], tokenizer: PreTrainedTokenizerBase
) -> ReasoningTraces:
    """Answers that are there already, split into sentences; none is empty."""
    texts = [head + trace.tokens for head, trace in zip(prompts, traces, strict=True)]
    lengths = [len(head) for head in prompts]
    return ReasoningTraces(texts, lengths, [segment(tokenizer, t, n) for t, n in zip(texts, lengths, strict=True)])


def read_by_both(
    thoughts: ReasoningTraces, prompts: Sequence[list[int]], spelled: Callable[[Sequence[int]], list[list[int]]]
) -> tuple[ReasoningTraces, ReasoningTraces]:
    """The same thoughts as their own model reads them and as another does: after its own prompts, in its own tokens.

    Sentences that hold a token which the other has not, or only in pieces (`</think>`), are left out of both, so that
    positions of both stand beside each other.

    Args:
        thoughts: of a model.
        prompts: of the other, one a text.
        spelled: each of some tokens as the other says it.
    """
    own, others = [], []
    texts = []
    for text, length, spans, prompt in zip(thoughts.texts, thoughts.lengths, thoughts.spans, prompts, strict=True):
        pieces = spelled(text[length:])
        at = [len(prompt), *(len(prompt) + n for n in accumulate(map(len, pieces)))]
        kept = [(a, b) for a, b in spans if all(len(p) == 1 for p in pieces[a - length : b - length])]
        own.append(kept)
        others.append([(at[a - length], at[a - length] + b - a) for a, b in kept])
        texts.append([*prompt, *(token for some in pieces for token in some)])
    return replace(thoughts, spans=own), ReasoningTraces(texts, [len(prompt) for prompt in prompts], others)


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
