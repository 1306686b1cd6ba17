"""Log-probabilities of completions with their gradient: a question's prompt is computed once for all of its rollouts.

The prompt's keys and values are made in one forward with gradient. Completions, a part of the rows at a time, see
copies of them, whose gradients add up; one backward through the prompt then takes them on. Completions of like length
are a part, padded at the right to a multiple of a sixteenth of the limit: few positions are computed for nothing, and
few shapes come to a CPU's kernels. Causality keeps padding from mattering.

Completions may leave a text at places of their own, as thoughts at the positions of a document do (`Batch.leaving`):
the text is computed once for all of them, and a row sees its own beginning of it through a mask.

Long completions go by segments (`pieces`): their keys and values are made once without gradient; then each segment, the
last first, is computed again with it, and what it leaves in the keys and values before it waits for the segments that
made them. The gradient is that of the whole, and what lives at a time is one segment's activations beside keys and
values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionLayer

from elicit.decoding.trunk import Trunk
from elicit.training.output_head import logprobs_and_entropy
from probes.batching import Padded, right_pad
from probes.clock import KEYS_AND_VALUES, cache_argument
from probes.errors import UserError
from probes.sites import blocks, decoder

WIDTHS = 16  # of parts of a batch, at most
LEAST_STEP = 8  # positions between two of them, at least


@dataclass(frozen=True)
class Batch:
    """Rollouts as tensors: row r answers prompt `question[r]`; every row has the same number of positions.

    Where rows leave their prompts, row r sees the first `cut[r]` tokens of its own, and `lead` after them.
    """

    prompts: Padded
    question: Int[Tensor, " rows"]
    tokens: Int[Tensor, "rows pos"]
    mask: Bool[Tensor, "rows pos"]
    cut: Int[Tensor, " rows"] | None = None
    lead: tuple[int, ...] = ()

    @staticmethod
    def of(prompts: Padded, question: Sequence[int], completions: Sequence[Sequence[int]], limit: int) -> Batch:
        tokens = torch.zeros(len(completions), limit, dtype=torch.long)
        mask = torch.zeros(len(completions), limit, dtype=torch.bool)
        for row, ids in enumerate(completions):
            tokens[row, : len(ids)] = torch.tensor(list(ids), dtype=torch.long)
            mask[row, : len(ids)] = True
        where, device = torch.tensor(list(question), dtype=torch.long), prompts.ids.device
        return Batch(prompts, where.to(device), tokens.to(device), mask.to(device))

    @staticmethod
    def leaving(
        trunk: Trunk,
        lead: Sequence[int],
        question: Sequence[int],
        completions: Sequence[Sequence[int]],
        limit: int,
        device: torch.device,
    ) -> Batch:
        """Row r goes on from prompt `question[r]` of a trunk, which ends in `lead`, at least one token."""
        ids = right_pad(trunk.texts, device)
        places = torch.arange(ids.shape[1], device=device).expand_as(ids)
        ends = torch.tensor([len(text) for text in trunk.texts], device=device)
        texts = Padded(ids, places < ends[:, None], places)
        made = Batch.of(texts, [trunk.of[n] for n in question], completions, limit)
        return replace(made, cut=torch.tensor([trunk.cut[n] for n in question], device=device), lead=tuple(lead))

    @property
    def ends(self) -> Int[Tensor, " rows"]:
        """Of each row the positions up to its last real token."""
        return (self.mask * torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)).amax(1)

    def parts(self, size: int) -> Iterator[tuple[Int[Tensor, " n"], Batch]]:
        """So many rows at a time, the longest first, in as many columns as the first of them needs: their numbers, and
        they alone."""
        limit = self.mask.shape[1]
        step = max(LEAST_STEP, -(-limit // WIDTHS))
        ends = self.ends
        order = ends.argsort(descending=True, stable=True)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            width = min(limit, max(1, -(-int(ends[rows[0]]) // step)) * step)
            cut = None if self.cut is None else self.cut[rows]
            tokens, mask = self.tokens[rows, :width], self.mask[rows, :width]
            yield rows, replace(self, question=self.question[rows], tokens=tokens, mask=mask, cut=cut)


@dataclass(frozen=True)
class Prefix:
    """What completions need of their prompts: keys and values of each layer in turn, and hidden states."""

    tensors: list[Tensor]

    def leaves(self) -> Prefix:
        """Copies in which gradients accumulate."""
        return Prefix([t.detach().requires_grad_(t.requires_grad) for t in self.tensors])

    def backward(self, leaves: Prefix) -> None:
        """Backpropagate what has accumulated in the leaves through the prompts' forward."""
        pairs = [(t, leaf.grad) for t, leaf in zip(self.tensors, leaves.tensors, strict=True) if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [grad for _, grad in pairs])


def prefix_of(lm: PreTrainedModel, prompts: Padded, *, every: bool = False) -> Prefix:
    """One forward of the prompts; without a configuration the cache keeps whole prompts in sliding layers too.

    Its hidden state is that of the last column, or with `every` those of all columns.

    Raises:
        UserError: a layer that keeps another state, or one that attends and left no keys and values in the cache.
    """
    cache, inner = DynamicCache(), decoder(lm)
    name, kinds = cache_argument(inner), DynamicCache(config=lm.config).layers  # what is kept of each layer
    refused = f"{type(lm).__name__} keeps a state that is not keys and values; use another base"
    if name not in KEYS_AND_VALUES or any(isinstance(one, LinearAttentionLayer) for one in kinds):
        raise UserError(refused)
    hidden = inner(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        position_ids=prompts.positions,
        use_cache=True,
        **{name: cache},
    )[0]
    pairs: list[Tensor] = []
    for layer in cache.layers:
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            pairs += [layer.keys, layer.values]
    attending = sum(not getattr(one, "is_initialized", False) for one in kinds)
    if len(pairs) < 2 * max(1, attending, len(cache.layers)):  # one that ignores the cache leaves it empty
        raise UserError(refused)
    return Prefix([*pairs, hidden if every else hidden[:, -1]])


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
    lm: PreTrainedModel, prefix: Prefix, batch: Batch, *, checkpointing: bool = False
) -> Float[Tensor, "n d_model"]:
    """The states that choose the batch's real tokens, row by row."""
    fed = slice(0, batch.tokens.shape[1] - 1)
    return _chosen(prefix, batch, fed, _states(lm, _begun(prefix, batch), batch, fed, checkpointing))


def _begun(prefix: Prefix, batch: Batch) -> DynamicCache:
    """A cache that holds each row's prompt."""
    pairs = prefix.tensors[:-1]
    # index_select: its gradient is summed in one order, that of indexing is not
    return _cache([t.index_select(0, batch.question) for t in pairs])


def _cache(pairs: Sequence[Tensor]) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(len(pairs) // 2):
        cache.update(pairs[2 * layer], pairs[2 * layer + 1], layer)
    return cache


def _states(
    lm: PreTrainedModel, cache: DynamicCache, batch: Batch, fed: slice, checkpointing: bool
) -> Float[Tensor, "rows fed d_model"]:
    """After the tokens `fed` of each row, whose prompts and earlier tokens the cache holds; and after the lead."""
    ids, lead = batch.tokens[:, fed], len(batch.lead)
    seen, start = _seen(batch)
    first = fed.start + lead
    if lead and fed.start == 0:
        first, ids = 0, torch.cat([ids.new_tensor(batch.lead).expand(len(ids), -1), ids], 1)
    steps = torch.arange(first, fed.stop + lead, device=ids.device)
    inner = decoder(lm)
    with checkpointed(lm, cache) if checkpointing else nullcontext():
        out: Tensor = inner(
            input_ids=ids,
            attention_mask=nn.functional.pad(seen.long(), (0, fed.stop + lead), value=1),
            position_ids=start[:, None] + steps,
            use_cache=True,
            **{cache_argument(inner): cache},
        )[0]
    return out[:, lead - 1 :] if lead and fed.start == 0 else out


def _seen(batch: Batch) -> tuple[Bool[Tensor, "rows width"], Int[Tensor, " rows"]]:
    """Which columns of their prompts rows see, and the position of what follows them."""
    if batch.cut is None:
        return batch.prompts.mask[batch.question], batch.prompts.positions[batch.question, -1] + 1
    return batch.prompts.positions[batch.question] < batch.cut[:, None], batch.cut


def _columns(fed: slice) -> slice:
    """The positions that are chosen after these; the first of all by the prompt."""
    return slice(fed.start + (fed.start > 0), fed.stop + 1)


def _chosen(prefix: Prefix, batch: Batch, fed: slice, after: Tensor) -> Float[Tensor, "n d_model"]:
    """Of the states those that choose a real token."""
    if fed.start == 0 and not batch.lead:
        after = torch.cat([prefix.tensors[-1].index_select(0, batch.question)[:, None], after], 1)
    chosen: Tensor = after[batch.mask[:, _columns(fed)]]
    return chosen


@dataclass(frozen=True)
class Piece:
    """Some positions of a batch: the states that choose their real tokens, and how a loss of them goes back."""

    columns: slice
    hidden: Float[Tensor, "n d_model"]
    backward: Callable[[Tensor], None]


def pieces(
    lm: PreTrainedModel, leaves: Prefix, batch: Batch, segment: int, *, checkpointing: bool = False
) -> Iterator[Piece]:
    """A batch in segments of so many positions, the last first; 0: in one piece.

    A piece's backward is called before the next one is asked for.
    """
    segments = _segments(batch, segment)
    if len(segments) == 1:
        hidden = hidden_states(lm, leaves, batch, checkpointing=checkpointing)
        yield Piece(slice(0, batch.tokens.shape[1]), hidden, torch.autograd.backward)
        return
    before, lead = batch.prompts.ids.shape[1], len(batch.lead)
    with torch.no_grad():
        cache = _begun(leaves, batch)
        for fed in segments[:-1]:
            _states(lm, cache, batch, fed, False)
        held = _pairs(cache)
    waiting = [torch.zeros_like(t) for t in held]
    for fed in reversed(segments):
        end = before + fed.start + (lead if fed.start else 0)
        past = [t[:, :, :end].detach().requires_grad_() for t in held]
        cache = _cache(past)
        after = _states(lm, cache, batch, fed, checkpointing)
        own = [t[:, :, end:] for t in _pairs(cache)]

        def backward(loss: Tensor, fed: slice = fed, end: int = end, past: Any = past, own: Any = own) -> None:
            known = [] if fed is segments[-1] else [w[:, :, end : before + lead + fed.stop] for w in waiting]
            torch.autograd.backward([loss, *own[: len(known)]], [None, *known])
            for wait, leaf in zip(waiting, past, strict=True):
                wait[:, :, :end] += leaf.grad

        yield Piece(_columns(fed), _chosen(leaves, batch, fed, after), backward)
    for leaf, wait in zip(leaves.tensors[:-1], waiting, strict=True):
        if leaf.requires_grad:
            grad = torch.zeros_like(leaf).index_add_(0, batch.question, wait[:, :, :before])
            leaf.grad = grad if leaf.grad is None else leaf.grad + grad


def _pairs(cache: DynamicCache) -> list[Tensor]:
    layers: Any = cache.layers
    return [t for layer in layers for t in (layer.keys, layer.values) if t is not None]


def _segments(batch: Batch, segment: int) -> list[slice]:
    """The tokens that are fed to the model, cut; those after the longest answer's are left out where they are cut."""
    end = batch.tokens.shape[1] - 1
    if not 0 < segment < end:
        return [slice(0, end)]
    longest = max(int(batch.ends.max()) - 1, 1)
    return [slice(n, min(n + segment, end)) for n in range(0, longest, segment)]


@torch.no_grad()
def logprobs(
    lm: PreTrainedModel, batch: Batch, part: int, temperature: float, segment: int = 0
) -> Float[Tensor, "rows pos"]:
    """Log-probabilities of all tokens without gradient, in the shapes of the loss; 0 where there is no token."""
    prefix = prefix_of(lm, batch.prompts)
    out = torch.zeros(batch.mask.shape, device=batch.mask.device)
    for rows, some in batch.parts(part):
        cache = _begun(prefix, some)
        for fed in _segments(some, segment):
            columns = _columns(fed)
            hidden = _chosen(prefix, some, fed, _states(lm, cache, some, fed, False))
            mask = some.mask[:, columns]
            found, _ = logprobs_and_entropy(lm, hidden, some.tokens[:, columns][mask], temperature)
            out[rows, columns] = torch.zeros(mask.shape, device=out.device).masked_scatter_(mask, found)
    return out
