"""Log-probabilities of completions with their gradient: a question's prompt is computed once for all of its rollouts.

The prompt's keys and values are made in one forward with gradient. Completions, a part of the rows at a time, see
copies of them, whose gradients add up; one backward through the prompt then takes them on. All completions are padded
at the right to one length, so that no update brings another shape to a CPU's kernels; causality keeps padding from
mattering.

Hidden states meet the output head at real tokens alone, 256 at a time, and no logits are kept: the backward makes them
again, since the gradients of log-probability and entropy,

    ∂ log p_t / ∂z = 1_t − p      and      ∂H / ∂z = − p (log p + H),

are multiplied by what only the loss knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from elicit.training.sft import CHUNK
from probes.batching import Padded
from probes.errors import UserError
from probes.likelihood import output_head
from probes.sites import decoder


class _Head(torch.autograd.Function):
    """log p(target) and the entropy of softmax(cap(h Wᵀ) / temperature), a chunk of positions at a time."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, temperature: float, cap: float | None
    ) -> tuple[Tensor, Tensor]:
        low = weight.to(hidden.dtype)
        out = torch.empty(3, len(hidden), device=hidden.device, dtype=torch.float32)
        for start in range(0, len(hidden), CHUNK):
            z, _ = _logits(hidden[start : start + CHUNK], low, temperature, cap)
            real = len(hidden[start : start + CHUNK])
            log_z = z.logsumexp(-1)
            score = z[:real].gather(1, target[start : start + CHUNK, None])[:, 0]
            z -= log_z[:, None]  # log p: its products with p do not cancel, as those of large logits would
            entropy = -torch.linalg.vecdot(z.exp(), z)
            out[:, start : start + CHUNK] = torch.stack([score - log_z[:real], entropy[:real], log_z[:real]])
        ctx.save_for_backward(hidden, weight, target, out)
        ctx.settings = temperature, cap
        return out[0].clone(), out[1].clone()

    @staticmethod
    def backward(ctx: Any, grad_logprob: Tensor, grad_entropy: Tensor) -> Any:  # type: ignore[override]
        hidden, weight, target, kept = ctx.saved_tensors
        _, entropy, log_z = kept
        temperature, cap = ctx.settings
        low = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), CHUNK):
            chunk = slice(start, start + CHUNK)
            h, t = hidden[chunk], target[chunk, None]
            z, slope = _logits(h, low, temperature, cap)
            z, real = z[: len(h)], len(h)
            g, e = grad_logprob[chunk, None], grad_entropy[chunk, None]
            logp = z - log_z[chunk, None]
            grad = -torch.exp(logp) * (g + e * (logp + entropy[chunk, None]))
            grad.scatter_add_(1, t, g)
            grad = (grad / temperature if slope is None else grad * slope[:real] / temperature).to(h.dtype)
            grad = nn.functional.pad(grad, (0, 0, 0, CHUNK - real))
            grad_hidden[chunk] = (grad @ low)[:real]
            if grad_weight is not None:
                grad_weight += (grad[:real].T @ h).float()
        return grad_hidden, grad_weight, None, None, None


def _logits(h: Tensor, weight: Tensor, temperature: float, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """[CHUNK, vocab] in fp32, whatever the number of positions, and the slope of the cap."""
    z = (nn.functional.pad(h, (0, 0, 0, CHUNK - len(h))) @ weight.T).float()
    slope = None
    if cap is not None:
        z = torch.tanh(z / cap)
        slope = 1 - z**2
        z = z * cap
    return (z if temperature == 1 else z / temperature), slope


def head(
    lm: PreTrainedModel, hidden: Float[Tensor, "n d_model"], target: Int[Tensor, " n"], temperature: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Log-probability of each target and entropy of its distribution, fp32.

    Raises:
        UserError: an output head with a bias.
    """
    if torch.is_autocast_enabled(lm.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(lm.device.type))
    module: Any = lm.get_output_embeddings()
    if getattr(module, "bias", None) is not None:
        raise UserError(f"{type(lm).__name__} has an output head with a bias, which is not trained here; use another")
    scale, cap = output_head(lm)
    out: tuple[Tensor, Tensor] = _Head.apply(
        hidden if scale == 1 else hidden * scale, module.weight, target, temperature, cap
    )
    return out


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
        """Copies in which gradients add up."""
        return Prefix([t.detach().requires_grad_(t.requires_grad) for t in self.tensors])

    def backward(self, leaves: Prefix) -> None:
        """Take what has added up in the leaves on, through the prompts' forward."""
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


def hidden_states(lm: PreTrainedModel, prefix: Prefix, batch: Batch, rows: slice) -> Float[Tensor, "n d_model"]:
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
        found, _ = head(lm, hidden_states(lm, prefix, batch, rows), batch.tokens[rows][mask], temperature)
        out[rows] = torch.zeros_like(out[rows]).masked_scatter_(mask, found)
    return out
