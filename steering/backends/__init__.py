"""One specification, four backends: the same plans through other people's engines.

Every backend answers `score` (one forward over whole texts), names what it can do in `claims`, and refuses the rest by
name. tests/steering/test_backends.py holds their log-probabilities together. Decoding is `elicit`'s: its engines carry
plans by what is here.

- `hf`: forward hooks on the Hugging Face model itself (`steering.hooks`), the reference;
- `transformer-lens`: hook points of a `TransformerBridge`, on a copy of the model;
- `nnsight`: a tracing context, local or remote;
- `vllm`: hooks inside vLLM's workers, eager.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probes.batching import padding_is_unseen
from probes.errors import UserError, unknown
from probes.sites import STREAM
from steering.delivery import Delivery
from steering.interventions import WHATS, WHENS, Plan


@dataclass(frozen=True)
class Rows:
    """The rows of one batch: what is asked of every backend alike.

    Args:
        texts: token ids of each row.
        plans: one for all rows, or the distinct ones.
        of_row: the number of each row's plan, where there are several.
        lengths: how many tokens of each text are prompt; None: all.

    Raises:
        UserError: no text or an empty one; no plan; numbers of plans, or lengths, that do not fit the texts.
    """

    texts: Sequence[Sequence[int]]
    plans: Sequence[Plan]
    of_row: Sequence[int] | None = None
    lengths: Sequence[int] | None = None

    def __post_init__(self) -> None:
        sizes = [len(text) for text in self.texts]
        if not min(sizes, default=0):
            raise UserError(f"rows of {sizes} tokens were given; give at least one row, each of at least one token")
        if not self.plans:
            raise UserError("no plan was given; give one, () where nothing is to be done")
        numbers, count = self.of_row, len(self.plans)
        if numbers is not None and (len(numbers) != len(sizes) or not all(0 <= n < count for n in numbers)):
            raise UserError(
                f"{len(sizes)} rows are to follow plans {list(numbers)}; give one of 0 to {count - 1} for each row"
            )
        given = self.lengths
        if given is not None and (
            len(given) != len(sizes) or not all(0 <= n <= size for n, size in zip(given, sizes, strict=True))
        ):
            raise UserError(
                f"prompt lengths {list(given)} were given for {len(sizes)} rows of {sizes} tokens; "
                "give one length a row, at most its tokens"
            )


@dataclass(frozen=True)
class Claims:
    """What a backend can do: kinds of what and when, hook points, different plans in different rows of a batch."""

    whats: frozenset[str] = frozenset(WHATS)
    whens: frozenset[str] = frozenset(WHENS)
    points: frozenset[str] = frozenset(STREAM)
    per_row: bool = True

    def check(self, name: str, rows: Rows) -> None:
        """Refuse by name what is not claimed.

        Raises:
            UserError: a kind of what, when or where, or plans by row, that the backend cannot do.
        """
        if lacks := self.lacking(rows):
            raise UserError(f"the {name} backend cannot {lacks}; use the hf backend")

    def lacking(self, rows: Rows) -> str:
        """What these rows ask for and is not claimed, or ""."""
        for one in (one for plan in rows.plans for one in plan):
            points = {site.point for site in one.sites} | ({one.when.gate.site.point} if one.when.gate else set())
            for kind, given, known in (
                ("what", {one.kind}, self.whats),
                ("when", {one.when.kind}, self.whens),
                ("where", points, self.points),
            ):
                if not given <= known:
                    return f"do {kind} = {', '.join(sorted(given - known))}; it does {', '.join(sorted(known))}"
        if rows.of_row is not None and len(set(rows.of_row)) > 1 and not self.per_row:
            return "follow different plans in one batch"
        return ""


def check_lengths(lm: PreTrainedModel, rows: Rows, name: str) -> None:
    """Refuse texts of several lengths in one forward of a model whose state sees padding.

    Raises:
        UserError: the backend's name is said.
    """
    if len(set(map(len, rows.texts))) > 1 and not padding_is_unseen(lm):
        raise UserError(
            f"texts of {sorted(set(map(len, rows.texts)))} tokens were given to the {name} backend and "
            f"{type(lm).__name__} sees the padding of the shorter ones; give texts of one length, or use the hf backend"
        )


@dataclass(frozen=True)
class Completion:
    """One greedy answer; `logprobs` are those of every token of the vocabulary at each step, where asked for."""

    tokens: list[int]
    logprobs: Float[Tensor, "tokens vocab"] | None


@runtime_checkable
class Backend(Protocol):
    """An engine that runs a model with plans in place."""

    name: str
    claims: Claims
    delivery: Delivery
    """What the last call did."""

    def score(self, rows: Rows) -> list[Float[Tensor, "pos vocab"]]:
        """Log-probabilities (fp32) after each position of each text."""
        ...


BACKENDS = {
    "hf": "steering.backends.huggingface:HuggingFace",
    "transformer-lens": "steering.backends.lens:TransformerLens",
    "nnsight": "steering.backends.nnsight:NNsight",
    "vllm": "steering.backends.vllm:VLLM",
}


def backend(name: str) -> type[Any]:
    """The class of a backend; its library is imported when one is made.

    Raises:
        UserError: an unknown name.
    """
    if name not in BACKENDS:
        raise unknown("backend", name, BACKENDS)
    module, _, cls = BACKENDS[name].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), cls)
    return found


__all__ = ["BACKENDS", "Backend", "Claims", "Completion", "Rows", "backend"]
