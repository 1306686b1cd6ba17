"""Manipulation check: what an intervention did to a model, and that it did anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probes.errors import UserError


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


def _logprobs(lm: PreTrainedModel, ids: Tensor) -> Float[Tensor, "pos vocab"]:
    logits = lm(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)
