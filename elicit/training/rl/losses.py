"""Advantages, the clipped surrogate, KL and how token losses are put together: pure functions.

Advantages of a group of G rewards r (one question, one rollout each):

    GRPO      (r − mean r) / (std r + ε)        arXiv 2402.03300, section 4.1
    Dr. GRPO  r − mean r                        arXiv 2503.20783, section 3.1
    RLOO      r − mean of the other G − 1       arXiv 2402.14740, eq. 8 (Dr. GRPO's times G / (G − 1))

A token's loss, with ρ = exp(log π − log π_old) and A the advantage of its rollout:

    − min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A) + β k3 − c H

DeGRPO (arXiv 2505.13379, section 3.2) weighs the surrogate of a rollout's first token, which chooses how it answers,
apart from that of its T others: Σ (α L_0 + 1/T Σ_t L_t) over rollouts, where GRPO has Σ 1/(T + 1) (L_0 + Σ_t L_t)
(`relative_weights`). What the first token learns by then depends on no length.

with k3 = exp(d) − d − 1, d = log π_ref − log π (the unbiased estimator of KL(π ‖ π_ref) that is never negative), and H
the entropy of the token's whole distribution. ε_high may be larger than ε_low (arXiv 2503.14476, section 3.1).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.errors import unknown

EPSILON = 1e-6  # of GRPO's division, as in verl
ADVANTAGES = {
    "grpo": "reward minus the group's mean, in the group's standard deviations",
    "dr-grpo": "reward minus the group's mean",
    "rloo": "reward minus the mean of the others",
}
AGGREGATES = {
    "token-mean": "all tokens of a batch weigh the same",
    "sequence-mean": "all rollouts weigh the same, whatever their length",
    "constant": "the sum over tokens, divided by rollouts × limit: no reward for length (Dr. GRPO)",
}


def advantages(rewards: Float[Tensor, "groups group"], how: str) -> Float[Tensor, "groups group"]:
    """How much better each rollout is than its group; 0 in a group without variance."""
    if how not in ADVANTAGES:
        raise unknown("advantage", how, ADVANTAGES)
    centred = rewards - rewards.mean(1, keepdim=True)
    alike = (rewards == rewards[:, :1]).all(1, keepdim=True)
    centred = centred.masked_fill(alike, 0.0)  # a mean of equal numbers may round
    group = rewards.shape[1]
    if how == "grpo":
        return centred / (rewards.std(1, keepdim=True) + EPSILON)
    return centred * (group / (group - 1)) if how == "rloo" else centred


def token_weights(mask: Bool[Tensor, "rows pos"], how: str) -> Float[Tensor, "rows pos"]:
    """The weight of each token's loss in the batch's; 0 where there is no token."""
    if how not in AGGREGATES:
        raise unknown("aggregate", how, AGGREGATES)
    rows, limit = mask.shape
    if how == "token-mean":
        return mask / mask.sum().clamp(min=1)
    if how == "sequence-mean":
        return mask / (mask.sum(1, keepdim=True).clamp(min=1) * rows)
    return mask / float(rows * limit)


def relative_weights(mask: Bool[Tensor, "rows pos"], how: str, control: float) -> Float[Tensor, "rows pos"]:
    """What the surrogate of each token weighs in DeGRPO, by what it weighs in GRPO (`token_weights`).

    Args:
        mask: where there are tokens.
        how: how the losses of the answers' tokens are put together, as `token_weights`; "sequence-mean" is the paper's,
            "token-mean" that of its authors' code.
        control: α, the weight of each rollout's first token, averaged over rollouts.
    """
    apart = torch.cat([control * token_weights(mask[:, :1], how), token_weights(mask[:, 1:], how)], 1)
    together = token_weights(mask, how)
    return torch.where(mask, apart / together, torch.zeros_like(together))


def surrogate(
    logprob: Float[Tensor, "*shape"],
    old: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*shape"],
    low: float,
    high: float,
) -> Float[Tensor, "*shape"]:
    """The clipped loss of each token (arXiv 1707.06347, eq. 7, with a bound of its own on each side)."""
    ratio = torch.exp(logprob - old)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def clipped(
    ratio: Float[Tensor, "*shape"], advantage: Float[Tensor, "*shape"], low: float, high: float
) -> Bool[Tensor, "*shape"]:
    """Where the bound holds back: these tokens have no gradient."""
    return ((ratio > 1 + high) & (advantage > 0)) | ((ratio < 1 - low) & (advantage < 0))


def k3(logprob: Float[Tensor, "*shape"], reference: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """An estimate of KL(π ‖ π_ref) from the token that was drawn (arXiv 2402.03300, eq. 4)."""
    difference = reference - logprob
    return torch.exp(difference) - difference - 1
