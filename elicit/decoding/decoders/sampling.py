"""Sampling with random numbers keyed by (seed, sample id, epoch, choice, step).

One uniform number decides one token, by inversion of the cumulative distribution. Each answer draws from its own
Philox stream, whose key is a hash of its seed, its sample's id (the item's), its epoch and its number among the
choices; step t takes the stream's t-th number. So an answer does not depend on which items share its batch, on a
resume, on a shard, on how many others are drawn beside it, or on the limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from elicit.decoding.loop import Policy, Rows
from probes.confidence import Top2
from probes.description import Base, Part, stated
from probes.errors import UserError


def rng_stream(seed: int, item_id: str, sample: int, steps: int) -> Float[np.ndarray, " steps"]:
    """The first `steps` uniform numbers in [0, 1) of one sample."""
    digest = hashlib.blake2b(f"{seed}\x00{item_id}\x00{sample}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little"))).random(steps)


class RngStream(NamedTuple):
    """Where an answer's random numbers come from.

    Attributes:
        seed: of all of them.
        sample: the id of what is answered, like an item's.
        epoch: which time it is answered.
        choice: the answer's number among those of one time.
    """

    seed: int
    sample: str
    epoch: int = 0
    choice: int = 0

    @staticmethod
    def of(given: RngStream | str, seed: int, choice: int = 0) -> RngStream:
        """A stream as it is; for an item's id the one that a decoder's own seed and first choice make of it."""
        return given if isinstance(given, RngStream) else RngStream(seed, given, 0, choice)

    def uniform(self, steps: int) -> Float[np.ndarray, " steps"]:
        """Its first numbers in [0, 1)."""
        name = self.sample if self.epoch == 0 else f"{self.sample}\x00epoch {self.epoch}"
        return rng_stream(self.seed, name, self.choice, steps)


class SamplingPolicy:
    def __init__(self, settings: Sampling, rng_streams: Sequence[RngStream | str]) -> None:
        self.settings = settings
        first = [RngStream.of(given, settings.seed, settings.first_sample) for given in rng_streams]
        self.uniform = np.stack(
            [
                [one._replace(choice=one.choice + n).uniform(settings.max_new_tokens) for n in range(settings.samples)]
                for one in first
            ]
        )
        self._rows: Rows | None = None  # whose numbers lie on the logits' device, so that a step copies none there
        self._numbers = torch.empty(0, 0, dtype=torch.float64)

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        cumulative, ids = self._cumulative(logits)
        uniform = torch.from_numpy(self.uniform[:, :, 0]).to(logits.device)
        return _invert(cumulative, ids, uniform)

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Rows, step: int) -> Int[Tensor, " rows"]:
        cumulative, ids = self._cumulative(logits)
        if rows is not self._rows:  # a loop that drops rows makes new ones
            self._rows = rows
            self._numbers = torch.from_numpy(self.uniform[rows.question, rows.branch]).to(logits.device)
        return _invert(cumulative, ids, self._numbers[:, step, None])[:, 0]

    def chosen(self, logits: Float[Tensor, "rows vocab"], uniform: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """The token that each row's number in [0, 1) stands for."""
        cumulative, ids = self._cumulative(logits)
        return _invert(cumulative, ids, uniform[:, None])[:, 0]

    def _cumulative(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """The cumulative distribution after temperature and filters, and the ids where they were sorted."""
        settings = self.settings
        scaled = logits.float() / settings.temperature
        if settings.top_p == 1.0 and settings.top_k == 0 and settings.min_p == 0.0:
            return torch.softmax(scaled, -1).double().cumsum(-1), None
        values, ids = scaled.sort(dim=-1, descending=True, stable=True)
        p = torch.softmax(values, -1).double()
        cut = torch.zeros_like(p, dtype=torch.bool)
        mass: float | Tensor = settings.top_p
        if settings.top_k:
            cut[:, settings.top_k :] = True
            mass = mass * p[:, : settings.top_k].sum(-1, keepdim=True)
        if settings.top_p < 1.0:
            cut |= (p.cumsum(-1) - p) >= mass
        if settings.min_p:
            cut |= p < settings.min_p * p[:, :1]
        cut[:, 0] = False
        return p.masked_fill(cut, 0.0).cumsum(-1), ids


def _invert(
    cumulative: Float[Tensor, "rows vocab"], ids: Int[Tensor, "rows vocab"] | None, uniform: Float[Tensor, "rows n"]
) -> Int[Tensor, "rows n"]:
    # `right=True` steps over ids of probability 0, whose cumulative value equals their left neighbour's.
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    index = index.clamp(max=cumulative.shape[-1] - 1)
    return index if ids is None else ids.gather(1, index)


@dataclass(frozen=True)
class Sampling:
    """Args: samples a question, temperature, nucleus mass, number of tokens, fraction of the top probability
    below which a token is cut, seed, limit, and the number of the first sample (to continue a series).

    The nucleus is of what `top_k` leaves, as transformers and vLLM have it."""

    samples: int = 10
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    max_new_tokens: int = 256
    first_sample: int = 0

    def __post_init__(self) -> None:
        for name, ok, expected in (
            ("samples", self.samples >= 1, "at least 1"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 < self.temperature < float("inf"), "above 0 (for 0 use greedy decoding)"),
            ("top_p", 0 < self.top_p <= 1, "in (0, 1]"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("min_p", 0 <= self.min_p < 1, "in [0, 1)"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)} was given; give a value {expected}")

    @property
    def branches(self) -> int:
        return self.samples

    @property
    def sample_ids(self) -> range:
        return range(self.first_sample, self.first_sample + self.samples)

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        return SamplingPolicy(self, rng_streams)

    def description(self, base: Base) -> list[Part]:
        cuts = (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0))
        return stated(self, "samples", "temperature", *(name for name, off in cuts if getattr(self, name) != off))
