"""What an intervention did to log-probabilities along a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from probes.errors import UserError
from probes.finite import check_logits

if TYPE_CHECKING:
    from steering.interventions import Plan
from steering.delivery import _logprobs


@dataclass(frozen=True)
class Effect:
    """How a steered model's next-token distributions differ from the unsteered ones, on one text.

    Args:
        positions: positions compared: those at or after the first that was moved.
        max_logprob_change: the largest change of any token's log-probability.
        mean_kl: mean KL(steered ‖ unsteered) in nats.
        argmax_changed: fraction of positions whose likeliest token is another.
    """

    positions: int
    max_logprob_change: float
    mean_kl: float
    argmax_changed: float


@torch.no_grad()
def effect(lm: PreTrainedModel, plan: Plan, ids: Sequence[int], prompt_length: int) -> Effect:
    """Compare steered and unsteered log-probabilities of a prompt with its continuation.

    Raises:
        UserError: nothing was moved, or no log-probability changed.
    """
    from steering.hooks import attached

    given = torch.tensor([list(ids)], device=lm.device)
    plain = _logprobs(lm, given)
    check_logits(plain, lm.dtype, "the logits without interventions")
    with attached(lm, [plan], lengths=[prompt_length]) as session:
        steered = _logprobs(lm, given)
        moved = session.moved()
    session.editor.delivery().check()
    check_logits(steered, lm.dtype, "the logits with interventions")
    assert moved is not None
    first = int((moved[0] > 0).nonzero()[0])
    plain, steered = plain[first:], steered[first:]
    change = float((steered - plain).abs().max())
    if change == 0.0:
        raise UserError(
            "the intervention moved activations and not one log-probability; it acts where nothing reads it"
        )
    kl = (steered.exp() * (steered - plain)).sum(-1).mean()
    flipped = (steered.argmax(-1) != plain.argmax(-1)).float().mean()
    return Effect(len(plain), change, float(kl), float(flipped))
