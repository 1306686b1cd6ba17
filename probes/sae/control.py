"""What explained variance and dead latents of a training are to be held against.

- *Components*: the variance that the first k principal components of the same activations hold. They are one set of k
  directions for all tokens; a sparse autoencoder chooses k of its d_sae for each.
- *Gaussian*: the same training on noise with the mean and the covariance of the activations. What it explains is owed
  to these two alone, and to the size of the dictionary. Noise is drawn anew in each epoch, so that none is memorised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.sae.cache import Cached

ROWS = 4096  # activations in fp32 at one time


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The covariance of cached activations: eigenvalues, the largest first, and their vectors as columns."""

    values: Float[Tensor, " d_model"]
    vectors: Float[Tensor, "d_model d_model"]

    def explained(self, rank: int) -> float:
        """The fraction of variance in the first `rank` components."""
        return float(self.values[:rank].sum() / self.values.sum())


def spectrum(cached: Cached) -> Spectrum:
    """Read the activations once, summed in fp64; memory is d_model² and a chunk."""
    total = torch.zeros(len(cached.mean), len(cached.mean), dtype=torch.float64)
    for index in torch.arange(len(cached)).split(ROWS):
        x = cached.rows(index) - cached.mean
        total += (x.T @ x).double()
    values, vectors = torch.linalg.eigh(total / len(cached))
    return Spectrum(values.flip(0).clamp(min=0), vectors.flip(1))


@dataclass(frozen=True, eq=False)
class Gaussian(Cached):
    """Noise in the place of activations: `root` is a square root of their covariance."""

    root: Float[Tensor, "d_model d_model"]
    seed: int
    drawn: ClassVar[bool] = True

    def rows(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n d_model"]:
        """Noise, a function of the seed and of the rows that are asked for."""
        random = np.random.default_rng([self.seed, *index[:8].tolist()])
        noise = random.standard_normal((len(index), len(self.mean)), dtype=np.float32)
        return torch.from_numpy(noise) @ self.root.T + self.mean


def gaussian(cached: Cached, of: Spectrum, seed: int) -> Gaussian:
    """Noise with the mean and the covariance of the activations, and as many rows."""
    root = (of.vectors * of.values.sqrt()).float()
    held = {name: getattr(cached, name) for name in ("pieces", "kept", "mean", "site", "facts")}
    return Gaussian(**held, digest=f"gaussian {seed} {cached.digest}", root=root, seed=seed)
