"""Items that a handle was fitted on or chosen on, said where they are evaluated.

A method keeps their ids in its handle's options. To evaluate them is no error (one may ask whether a trained example is
solved), but what comes of it is no test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from elicit.elicited import Elicited
from elicit.tasks.base import Item, Items

SEEN = "seen"  # where a handle's options, and a run's metrics, have them
FITTED, CHOSEN = "fitted", "chosen"


def seen(fitted: Iterable[Item | str], chosen: Iterable[Item | str] = ()) -> dict[str, list[str]]:
    """What a handle keeps in `options["seen"]`: ids of the items that it was fitted on, and of those by which it was
    chosen among others."""
    both = ((FITTED, fitted), (CHOSEN, chosen))
    return {how: [one if isinstance(one, str) else one.id for one in some] for how, some in both}


def seen_among(handles: Mapping[str, Elicited], items: Items) -> dict[str, dict[str, int]]:
    """For each handle that saw some of these items how many it was fitted on and how many it was chosen on."""
    ids = {item.id for item in items}
    counts = {
        name: {how: len(ids & set(some)) for how, some in handle.options.get(SEEN, {}).items()}
        for name, handle in handles.items()
    }
    return {name: found for name, found in counts.items() if any(found.values())}


def seen_notes(metrics: Mapping[str, Any]) -> list[str]:
    """The same in a sentence for each arm."""
    return [
        f"Of these {metrics['items']} items {name} was "
        + " and ".join(f"{how} on {count}" for how, count in found.items() if count)
        + ": its accuracy on them is no test."
        for name, found in metrics.get(SEEN, {}).items()
    ]
