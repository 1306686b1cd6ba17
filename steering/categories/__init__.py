"""Categories of sentences found without labels, and a direction for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from steering.categories.taxonomy import Taxonomy as Taxonomy

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Taxonomy": "steering.categories.taxonomy",
    },
)
