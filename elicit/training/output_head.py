"""Losses of tokens, their log-probabilities and entropies at a model's output head, whose logits exist for `CHUNK`
positions at a time.

Hidden states of the positions that count meet the head alone, so that memory does not grow with positions. z stands for
the logits after scale and soft cap, over the temperature, less the largest of its position. A loss is a function of
each token's log-probability and entropy, so that its gradient is made while the logits are there: with g and e its
derivatives by the two and log p = z − log Σ exp z,

    ∂ loss / ∂z = g (1_t − p) − e p (log p + H)

Of a chunk's logits what is made of them is made for `TILE` numbers at a time on a CPU: they stay in its cache from the
first pass over them to the last, which takes a fraction of what the same passes over a whole chunk do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from probes.errors import UserError
from probes.likelihood import output_head

CHUNK = 256  # positions whose logits exist at one time
TILE = 1 << 20  # logits that a CPU works on at one time
Loss = Callable[[Tensor, Tensor, slice], Tensor]
"""Of log-probabilities and entropies of the positions in the slice, the sum of their losses."""


def summed_cross_entropy(
    lm: PreTrainedModel, hidden: Float[Tensor, "n d_model"], target: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Σ cross-entropy (nats) of the targets, each after its hidden state; fp32.

    Args:
        lm: whose output head is applied; inside autocast in its precision.
        hidden: what the final norm returned.
        target: token ids.

    Raises:
        UserError: an output head with a bias.
    """
    out: Tensor = _Summed.apply(*_prepared(lm, hidden), target, 1.0, None)[0]
    return out


def summed_loss(
    lm: PreTrainedModel, hidden: Float[Tensor, "n d_model"], target: Int[Tensor, " n"], temperature: float, loss: Loss
) -> tuple[Float[Tensor, ""], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """A loss that is a sum over tokens, with its gradient; and without one each target's log-probability and the
    entropy of its distribution (nats), fp32.

    Args:
        lm: whose output head is applied; inside autocast in its precision.
        hidden: what the final norm returned.
        target: token ids.
        temperature: that logits are divided by.
        loss: called for a few positions at a time.

    Raises:
        UserError: an output head with a bias.
    """
    out: tuple[Tensor, Tensor, Tensor] = _Summed.apply(*_prepared(lm, hidden), target, temperature, loss)
    return out


@torch.no_grad()
def logprobs_and_entropy(
    lm: PreTrainedModel, hidden: Float[Tensor, "n d_model"], target: Int[Tensor, " n"], temperature: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """What `summed_loss` says of each target beside the loss."""
    hidden, weight, cap = _prepared(lm, hidden)
    low = weight.to(hidden.dtype)
    out = torch.empty(2, len(hidden), device=hidden.device, dtype=torch.float32)
    for chunk in _slices(len(hidden), CHUNK):
        logits = _padded(hidden[chunk]) @ low.T
        for tile in _tiles(chunk, logits):
            z, _ = _scores(logits[_within(tile, chunk)], cap, temperature)
            out[:, tile] = torch.stack(_statistics(z, target[tile])[:2])
    return out[0], out[1]


def _prepared(lm: PreTrainedModel, hidden: Tensor) -> tuple[Tensor, Tensor, float | None]:
    """The scaled hidden states in autocast's precision, the head's matrix, and the soft cap."""
    if torch.is_autocast_enabled(lm.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(lm.device.type))
    head: Any = lm.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise UserError(
            f"{type(lm).__name__} has an output head with a bias, which is not trained here; use another base"
        )
    scale, cap, vocab = output_head(lm)
    return (hidden if scale == 1 else hidden * scale), head.weight[:vocab], cap


def _slices(end: int, step: int, start: int = 0) -> Iterator[slice]:
    return (slice(n, min(n + step, end)) for n in range(start, end, step))


def _tiles(chunk: slice, logits: Tensor) -> Iterator[slice]:
    """The chunk's positions in pieces; on a GPU one, where each operation has its price and no cache holds a piece."""
    rows = max(1, TILE // logits.shape[1]) if logits.device.type == "cpu" else CHUNK
    return _slices(chunk.stop, rows, chunk.start)


def _within(tile: slice, chunk: slice) -> slice:
    return slice(tile.start - chunk.start, tile.stop - chunk.start)


def _padded(x: Tensor) -> Tensor:
    """With rows of zeros up to a whole number of quarters of `CHUNK`: four shapes for all chunks."""
    return nn.functional.pad(x, (0, 0, 0, -len(x) % max(1, CHUNK // 4)))


def _scores(logits: Tensor, cap: float | None, temperature: float) -> tuple[Tensor, Tensor | None]:
    """z in fp32, in memory of its own, and the slope of the cap."""
    z = logits.to(torch.float32, copy=True)
    slope = None
    if cap is not None:
        z.div_(cap).tanh_()
        slope = 1 - z**2
        z *= cap
    if temperature != 1:
        z /= temperature
    return z.sub_(z.amax(-1, keepdim=True)), slope


def _statistics(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probability of the target, entropy, log Σ exp z, and exp z: with z ≤ 0 no sum cancels."""
    each = z.exp()
    total = each.sum(-1)
    log_z = total.log()
    return z.gather(1, target[:, None])[:, 0] - log_z, log_z - torch.linalg.vecdot(each, z) / total, log_z, each


class _Summed(torch.autograd.Function):
    """Σ loss(log p(target), H) of softmax(cap(h Wᵀ) / temperature): the forward makes the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        cap: float | None,
        target: Tensor,
        temperature: float,
        loss: Loss | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        low = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        summed = torch.zeros((), device=hidden.device, dtype=torch.float32)
        kept = torch.empty(2, len(hidden), device=hidden.device, dtype=torch.float32)
        for chunk in _slices(len(hidden), CHUNK):
            h = _padded(hidden[chunk])
            logits = h @ low.T
            for tile in _tiles(chunk, logits):
                z, slope = _scores(logits[_within(tile, chunk)], cap, temperature)
                t = target[tile]
                logprob, entropy, log_z, each = _statistics(z, t)
                kept[0, tile], kept[1, tile] = logprob, entropy
                total, g, e = _slopes(loss, logprob, entropy, tile)
                summed += total
                # exp z · (−g − e (log p + H)) / Σ exp z, and g at the target
                share = each.mul_((-log_z).exp()[:, None])
                if e is None:
                    grad = share.mul_(-g[:, None])
                else:
                    grad = torch.addcmul((e * (log_z - entropy) - g)[:, None], z, -e[:, None], out=z).mul_(share)
                grad.scatter_add_(1, t[:, None], g[:, None])
                if slope is not None:
                    grad *= slope
                if temperature != 1:
                    grad /= temperature
                logits[_within(tile, chunk)] = grad
            grad_hidden[chunk] = (logits @ low)[: chunk.stop - chunk.start]
            if grad_weight is not None:
                grad_weight += (logits.T @ h).float()
        ctx.save_for_backward(grad_hidden, grad_weight)
        logprobs, entropies = kept
        ctx.mark_non_differentiable(logprobs, entropies)
        return summed, logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        weight = None if grad_weight is None else grad_weight * grad
        return grad_hidden * grad, weight, None, None, None, None


def _slopes(loss: Loss | None, logprob: Tensor, entropy: Tensor, tile: slice) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss of a tile and its derivatives by log-probability and entropy; None where entropy has no part in it."""
    if loss is None:  # cross-entropy
        return -logprob.sum(), -torch.ones_like(logprob), None
    with torch.enable_grad():
        lp, h = logprob.detach().requires_grad_(), entropy.detach().requires_grad_()
        total = loss(lp, h, tile)
        g, e = torch.autograd.grad(total, (lp, h), allow_unused=True)
    return total.detach(), torch.zeros_like(lp) if g is None else g, e
