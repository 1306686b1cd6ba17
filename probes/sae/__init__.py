"""Sparse autoencoders: load, train, score features, measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from probes.sae.autoencoder import SAE as SAE
    from probes.sae.autoencoder import Feature as Feature

__getattr__, __dir__ = lazily(
    __name__,
    {
        "SAE": "probes.sae.autoencoder",
        "Feature": "probes.sae.autoencoder",
    },
)
