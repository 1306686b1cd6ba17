"""The logits processor that leaves each of the suite's requests the token that its decoder chooses."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor, MoveDirectionality

from elicit.decoding.vllm.calls import CALLS, MARK


class Chooser(LogitsProcessor):
    """Requests without a mark are left alone."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.places: dict[int, tuple[int, int, list[int]]] = {}  # place in the batch → call, row, its output so far

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        if batch_update is None:
            return
        for place in batch_update.removed:
            self.places.pop(place, None)
        for place, params, _, output in batch_update.added:
            self.places.pop(place, None)
            marked = (params.extra_args or {}).get(MARK)
            if marked is not None:
                call, row, *stream = marked
                CALLS[call].add(row, stream)
                self.places[place] = (call, row, output)
        for one, other, direction in batch_update.moved:
            moved, there = self.places.pop(one, None), self.places.pop(other, None)
            if moved is not None:
                self.places[other] = moved
            if there is not None and direction == MoveDirectionality.SWAP:
                self.places[one] = there

    def apply(self, logits: Float[Tensor, "requests vocab"]) -> Float[Tensor, "requests vocab"]:
        for call in {call for call, _, _ in self.places.values()}:
            mine = sorted(place for place, one in self.places.items() if one[0] == call and place < len(logits))
            # Where a prompt comes in chunks this is asked before its end; what is kept then is kept again at its end.
            rows, outputs = [self.places[p][1] for p in mine], [self.places[p][2] for p in mine]
            whole = mine == list(range(len(logits)))
            tokens = CALLS[call].choose(logits if whole else logits[mine], rows, outputs)
            places = torch.tensor(mine, device=logits.device)
            logits[places] = float("-inf")
            logits[places, tokens] = 0.0
        return logits
