"""Proof of delivery: what an intervention did to a model, and that it did anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probes.errors import UserError
from probes.finite import check_logits

if TYPE_CHECKING:
    from steering.interventions import Plan


@dataclass(frozen=True)
class Delivery:
    """What was moved.

    Args:
        positions: how many (a position moved at two sites counts twice).
        mean_move: mean ‖Δh‖ over them.
        mean_share: mean ‖Δh‖ / ‖h‖ over them.
        max_share: the largest ‖Δh‖ / ‖h‖.
        not_finite: positions that were made NaN or infinite.
        gate_fired, gate_asked: how often gates fired, of how often they were asked.
    """

    positions: int = 0
    mean_move: float = 0.0
    mean_share: float = 0.0
    max_share: float = 0.0
    not_finite: int = 0
    gate_fired: int = 0
    gate_asked: int = 0

    def check(self, what: str = "the intervention") -> None:
        """Refuse an intervention that did nothing, or broke the activations; `what` says which it was.

        Raises:
            UserError: no position moved, a gate that never fired, NaN.
        """
        if self.not_finite:
            raise UserError(f"{what} made {self.not_finite} positions NaN or infinite; lower its strength")
        if self.gate_asked and not self.gate_fired:
            raise UserError(
                f"the gate of {what} never fired at {self.gate_asked} positions, so nothing was steered; "
                "lower its threshold"
            )
        if not self.positions:
            raise UserError(
                f"{what} changed nothing: its positions were never computed, or its strength rounds to 0 "
                "in the model's dtype; check its when and its strength"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Effect:
    """How a steered model's next-token distributions part from the unsteered ones, on one text.

    Args:
        positions: positions compared: those at or after the first that was moved.
        max_logprob_change: the largest change of any token's log-probability.
        mean_kl: mean KL(steered ‖ unsteered) in nats.
        argmax_changed: share of positions whose likeliest token is another.
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


def _logprobs(lm: PreTrainedModel, ids: Tensor) -> Float[Tensor, "pos vocab"]:
    logits = lm(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)
