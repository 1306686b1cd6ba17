"""Log-probabilities of completions with their gradient: a question's prompt is computed once for all of its rollouts.

The prompt's keys and values are made in one forward with gradient. Completions, a part of the rows at a time, see
copies of them, whose gradients add up; one backward through the prompt then takes them on. All completions are padded
at the right to one length, so that no update brings another shape to a CPU's kernels; causality keeps padding from
mattering.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from elicit.training.output_head import logprobs_and_entropy
from probes.batching import Padded
from probes.errors import UserError
from probes.sites import blocks, decoder


@dataclass(frozen=True)
class Batch:
    """Rollouts as tensors: row r answers prompt `question[r]`; every row has the same number of positions."""

    prompts: Padded
    question: Int[Tensor, " rows"]
    tokens: Int[Tensor, "rows pos"]
    mask: Bool[Tensor, "rows pos"]

    @staticmethod
    def of(prompts: Padded, question: Sequence[int], completions: Sequence[Sequence[int]], limit: int) -> Batch:
        tokens = torch.zeros(len(completions), limit, dtype=torch.long)
        mask = torch.zeros(len(completions), limit, dtype=torch.bool)
        for row, ids in enumerate(completions):
            tokens[row, : len(ids)] = torch.tensor(list(ids), dtype=torch.long)
            mask[row, : len(ids)] = True
        where, device = torch.tensor(list(question), dtype=torch.long), prompts.ids.device
        return Batch(prompts, where.to(device), tokens.to(device), mask.to(device))


@dataclass(frozen=True)
class Prefix:
    """What completions need of their prompts: keys and values of each layer in turn, and the last hidden state."""

    tensors: list[Tensor]

    def leaves(self) -> Prefix:
        """Copies in which gradients accumulate."""
        return Prefix([t.detach().requires_grad_(t.requires_grad) for t in self.tensors])

    def backward(self, leaves: Prefix) -> None:
        """Backpropagate what has accumulated in the leaves through the prompts' forward."""
        pairs = [(t, leaf.grad) for t, leaf in zip(self.tensors, leaves.tensors, strict=True) if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [grad for _, grad in pairs])


def prefix_of(lm: PreTrainedModel, prompts: Padded) -> Prefix:
    """One forward of the prompts; without a configuration the cache keeps whole prompts in sliding layers too."""
    cache = DynamicCache()
    hidden = decoder(lm)(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        position_ids=prompts.positions,
        past_key_values=cache,
        use_cache=True,
    )[0]
    pairs: list[Tensor] = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            raise UserError(f"{type(lm).__name__} keeps a state that is not keys and values; use another base")
        pairs += [layer.keys, layer.values]
    return Prefix([*pairs, hidden[:, -1]])


@contextmanager
def checkpointed(lm: PreTrainedModel, cache: DynamicCache) -> Iterator[None]:
    """Inside the context each layer keeps its input alone and is computed again for its gradient.

    `transformers`' own checkpointing turns the cache off, which holds the prompts here: a layer that is computed again
    finds in it what it found the first time.
    """
    layers = list(blocks(lm))
    for number, layer in enumerate(layers):
        held: Any = cache.layers[number]
        layer.forward = partial(_again, layer.forward, held, held.keys, held.values)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _again(forward: Any, held: Any, keys: Tensor, values: Tensor, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
    def run(hidden: Tensor) -> Any:
        held.keys, held.values = keys, values
        return forward(hidden, *args, **kwargs)

    return checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)


def hidden_states(
    lm: PreTrainedModel, prefix: Prefix, batch: Batch, rows: slice, *, checkpointing: bool = False
) -> Float[Tensor, "n d_model"]:
    """The states that choose the real tokens of these rows, row by row."""
    question, tokens, mask = batch.question[rows], batch.tokens[rows], batch.mask[rows]
    *pairs, last = prefix.tensors
    cache = DynamicCache()
    for layer in range(len(pairs) // 2):
        # index_select: its gradient is summed in one order, that of indexing is not
        cache.update(pairs[2 * layer].index_select(0, question), pairs[2 * layer + 1].index_select(0, question), layer)
    start = batch.prompts.positions[:, -1] + 1
    steps = torch.arange(tokens.shape[1] - 1, device=tokens.device)
    seen = torch.cat([batch.prompts.mask[question], torch.ones_like(mask[:, 1:])], 1)
    with checkpointed(lm, cache) if checkpointing else nullcontext():
        after = decoder(lm)(
            input_ids=tokens[:, :-1],
            attention_mask=seen.long(),
            position_ids=start[question][:, None] + steps,
            past_key_values=cache,
            use_cache=True,
        )[0]
    chosen: Tensor = torch.cat([last.index_select(0, question)[:, None], after], 1)[mask]
    return chosen


@torch.no_grad()
def logprobs(lm: PreTrainedModel, batch: Batch, part: int, temperature: float) -> Float[Tensor, "rows pos"]:
    """Log-probabilities of all tokens without gradient, in the shapes of the loss; 0 where there is no token."""
    prefix = prefix_of(lm, batch.prompts)
    out = torch.zeros(batch.mask.shape, device=batch.mask.device)
    for start in range(0, len(out), part):
        rows = slice(start, start + part)
        mask = batch.mask[rows]
        hidden, target = hidden_states(lm, prefix, batch, rows), batch.tokens[rows][mask]
        found, _ = logprobs_and_entropy(lm, hidden, target, temperature)
        out[rows] = torch.zeros_like(out[rows]).masked_scatter_(mask, found)
    return out
