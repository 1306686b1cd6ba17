"""Manipulation check for a run: what its interventions moved, and that the answers' distributions changed.

The moves come from the samples, so they survive a resume; the change of log-probabilities is measured once, on the
first answer that was steered, by two forwards over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.tasks.base import Items
from probes.errors import UserError
from steering.adapters import applied
from steering.effect import effect


def manipulation_check(handle: Elicited, traces: Mapping[str, Sequence[Trace]], items: Items) -> dict[str, Any]:
    """What was delivered by a steered handle.

    Returns:
        Counts of moved tokens and prompt positions, the mean and largest ‖Δh‖ / ‖h‖, and `effect`: how the
        log-probabilities along one steered answer differ from the unsteered ones.

    Raises:
        UserError: nothing was moved in the whole run, or no log-probability changed.
    """
    every = [t for item in items for t in traces[item.id]]
    moved = np.concatenate([np.array(t.moved) for t in every]) if every else np.empty(0)
    prompt = sum(max((t.prompt_moved for t in traces[item.id]), default=0) for item in items)
    if not (moved > 0).any() and not prompt:
        gated = any(one.when.gate is not None for one in handle.interventions)
        raise UserError(
            f"the interventions of {handle.method} moved nothing in {len(items)} questions; "
            + ("the gate never fired, lower its threshold" if gated else "check their when and their strength")
        )
    item = next(i for i in items if any(t.prompt_moved or any(t.moved) for t in traces[i.id]))
    trace = next(t for t in traces[item.id] if t.prompt_moved or any(t.moved))
    ids = handle.prompt_ids(item)
    with applied(handle.model.lm, handle.adapter):
        change = effect(handle.model.lm, handle.interventions, [*ids, *trace.tokens], len(ids))
    return {
        "tokens": len(moved),
        "tokens_moved": int((moved > 0).sum()),
        "prompt_positions_moved": int(prompt),
        "mean_share": float(moved[moved > 0].mean()) if (moved > 0).any() else 0.0,
        "max_share": float(moved.max(initial=0.0)),
        "item": item.id,
        "effect": asdict(change),
    }
