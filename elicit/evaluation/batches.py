"""Which questions are decoded together: arms that may share batches, and the batches that they share.

A step of the decoding loop reads all weights once, however many rows it computes, so that arms decoded together take
little longer than one of them. Each row keeps the prompt and the plan of its own arm (`elicit.elicited`).
The batches are a pure function of handles, items and their size: a run that was stopped finds them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.tasks.base import Items

Batch = dict[str, list[int]]
"""For each name the indices of the items that it answers, in the order of the rows."""


def sharing(handles: Mapping[str, Elicited]) -> list[list[str]]:
    """The names of handles that may be decoded together, in the order of each group's first."""
    groups: dict[str, list[str]] = {}
    for name, handle in handles.items():
        groups.setdefault(handle.batch_key, []).append(name)
    return list(groups.values())


def batches(handles: Mapping[str, Elicited], items: Items, size: int, shares: int = 1) -> list[Batch]:
    """All items of all handles, in batches of at most `size` prompts, and at least `shares` of them if there can be.

    Longest prompts first: little padding, and what is largest comes early. Within a batch a handle's prompts stand
    together, in the order of the handles.
    """
    lengths = [[len(handle.prompt_ids(item)) for item in items] for handle in handles.values()]
    asked = [(n, i) for n, some in enumerate(lengths) for i in range(len(some))]
    asked.sort(key=lambda one: -lengths[one[0]][one[1]])
    size = min(size, math.ceil(len(asked) / shares))
    out: list[Batch] = []
    for start in range(0, len(asked), size):
        some = asked[start : start + size]
        batch = {name: [i for number, i in some if number == n] for n, name in enumerate(handles)}
        out.append({name: indices for name, indices in batch.items() if indices})
    return out


def models_of(handles: Iterable[Elicited]) -> list[Model]:
    """The models of handles and of their partners, each once."""
    used = [model for h in handles for model in (h.model, h.partner.model if h.partner else None)]
    return list({id(model): model for model in used if isinstance(model, Model)}.values())
