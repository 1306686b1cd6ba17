"""Loss, log-probabilities and entropies at a model's output head, whose logits exist for `CHUNK` positions at a time.

Hidden states of the positions that count meet the head alone, so that memory does not grow with positions. z stands for
the logits after scale and soft cap, over the temperature. The gradients are written out:

- summed cross-entropy: ∂ −log p_t / ∂z = p − 1_t, made in the forward, while the logits are there;
- log-probability and entropy: ∂ log p_t / ∂z = 1_t − p and ∂H / ∂z = −p (log p + H), each multiplied by what only the
  loss knows: the backward makes the logits again.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from probes.errors import UserError
from probes.likelihood import output_head

CHUNK = 256  # positions whose logits exist at one time


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
    out: Tensor = _CrossEntropy.apply(*_prepared(lm, hidden), target)
    return out


def logprobs_and_entropy(
    lm: PreTrainedModel, hidden: Float[Tensor, "n d_model"], target: Int[Tensor, " n"], temperature: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Log-probability of each target and entropy of its distribution (nats), fp32.

    Args:
        lm: whose output head is applied; inside autocast in its precision.
        hidden: what the final norm returned.
        target: token ids.
        temperature: that logits are divided by.

    Raises:
        UserError: an output head with a bias.
    """
    out: tuple[Tensor, Tensor] = _LogProbsAndEntropy.apply(*_prepared(lm, hidden), target, temperature)
    return out


def _prepared(lm: PreTrainedModel, hidden: Tensor) -> tuple[Tensor, Tensor, float | None]:
    """The scaled hidden states in autocast's precision, the head's matrix, and the soft cap."""
    if torch.is_autocast_enabled(lm.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(lm.device.type))
    head: Any = lm.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise UserError(
            f"{type(lm).__name__} has an output head with a bias, which is not trained here; use another base"
        )
    scale, cap = output_head(lm)
    return (hidden if scale == 1 else hidden * scale), head.weight, cap


def _padded(x: Tensor) -> Tensor:
    """With rows of zeros up to `CHUNK`: one shape for all chunks."""
    return nn.functional.pad(x, (0, 0, 0, CHUNK - len(x)))


def _logits(
    hidden: Float[Tensor, "chunk d_model"], weight: Tensor, cap: float | None, temperature: float
) -> tuple[Float[Tensor, "chunk vocab"], Tensor | None]:
    """z of a padded chunk in fp32, and the slope of the cap."""
    z = (hidden @ weight.T).float()
    slope = None
    if cap is not None:
        z = torch.tanh(z / cap)
        slope = 1 - z**2
        z *= cap
    return (z if temperature == 1 else z / temperature), slope


class _CrossEntropy(torch.autograd.Function):
    """Σ cross-entropy of softmax(cap(h Wᵀ)): the forward makes the gradients."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, cap: float | None, target: Tensor) -> Tensor:
        low = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), device=hidden.device, dtype=torch.float32)
        for start in range(0, len(hidden), CHUNK):
            chunk = slice(start, start + CHUNK)
            real = len(hidden[chunk])
            h, t = _padded(hidden[chunk]), _padded(target[chunk, None])
            logits, slope = _logits(h, low, cap, 1.0)
            most, at = logits.max(-1, keepdim=True)
            score = logits.gather(1, t)
            logits = torch.softmax(logits, -1)
            # log Σ exp = the largest logit − the log of its probability: no second pass over the vocabulary
            total += (most - logits.gather(1, at).log() - score)[:real].sum()
            logits.scatter_add_(1, t, torch.full_like(score, -1))
            grad = (logits if slope is None else logits * slope).to(h.dtype)
            grad[real:] = 0
            grad_hidden[chunk] = (grad @ low)[:real]
            if grad_weight is not None:
                grad_weight += (grad.T @ h).float()
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, None if grad_weight is None else grad_weight * grad, None, None


class _LogProbsAndEntropy(torch.autograd.Function):
    """log p(target) and the entropy of softmax(cap(h Wᵀ) / temperature)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, cap: float | None, target: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        low = weight.to(hidden.dtype)
        out = torch.empty(3, len(hidden), device=hidden.device, dtype=torch.float32)
        for start in range(0, len(hidden), CHUNK):
            chunk = slice(start, start + CHUNK)
            real = len(hidden[chunk])
            z, _ = _logits(_padded(hidden[chunk]), low, cap, temperature)
            log_z = z.logsumexp(-1)
            score = z[:real].gather(1, target[chunk, None])[:, 0]
            z -= log_z[:, None]  # log p: its products with p do not cancel, as those of large logits would
            entropy = -torch.linalg.vecdot(z.exp(), z)
            out[:, chunk] = torch.stack([score - log_z[:real], entropy[:real], log_z[:real]])
        ctx.save_for_backward(hidden, weight, target, out)
        ctx.settings = cap, temperature
        return out[0].clone(), out[1].clone()

    @staticmethod
    def backward(ctx: Any, grad_logprob: Tensor, grad_entropy: Tensor) -> Any:  # type: ignore[override]
        hidden, weight, target, kept = ctx.saved_tensors
        _, entropy, log_z = kept
        cap, temperature = ctx.settings
        low = weight.to(hidden.dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), CHUNK):
            chunk = slice(start, start + CHUNK)
            h, t = hidden[chunk], target[chunk, None]
            real = len(h)
            z, slope = _logits(_padded(h), low, cap, temperature)
            g, e = grad_logprob[chunk, None], grad_entropy[chunk, None]
            logp = z[:real] - log_z[chunk, None]
            grad = -torch.exp(logp) * (g + e * (logp + entropy[chunk, None]))
            grad.scatter_add_(1, t, g)
            grad = _padded((grad / temperature if slope is None else grad * slope[:real] / temperature).to(h.dtype))
            grad_hidden[chunk] = (grad @ low)[:real]
            if grad_weight is not None:
                grad_weight += (grad[:real].T @ h).float()
        return grad_hidden, grad_weight, None, None, None
