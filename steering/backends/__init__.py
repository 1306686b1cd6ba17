"""One specification, four backends: the same plans through other people's engines.

Every backend answers `score` (one forward over whole texts) and `generate` (greedy, with its own cache), names what it
can do in `claims`, and refuses the rest by name. tests/test_backends.py holds their log-probabilities together.

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

from probes.errors import UserError, unknown
from probes.sites import STREAM
from steering.delivery import Delivery
from steering.interventions import WHATS, WHENS, Plan


@dataclass(frozen=True)
class Claims:
    """What a backend can do: kinds of what and when, hook points, different plans in different rows of a batch."""

    whats: frozenset[str] = frozenset(WHATS)
    whens: frozenset[str] = frozenset(WHENS)
    points: frozenset[str] = frozenset(STREAM)
    per_row: bool = True

    def check(self, name: str, plans: Sequence[Plan], of_row: Sequence[int] | None) -> None:
        """Refuse by name what is not claimed.

        Raises:
            UserError: a kind of what, when or where, or plans by row, that the backend cannot do.
        """
        for one in (one for plan in plans for one in plan):
            points = {site.point for site in one.sites} | ({one.when.gate.site.point} if one.when.gate else set())
            for kind, given, known in (
                ("what", {one.kind}, self.whats),
                ("when", {one.when.kind}, self.whens),
                ("where", points, self.points),
            ):
                if not given <= known:
                    raise UserError(
                        f"the {name} backend cannot do {kind} = {', '.join(sorted(given - known))}; "
                        f"it does {', '.join(sorted(known))}; use the hf backend"
                    )
        if of_row is not None and len(set(of_row)) > 1 and not self.per_row:
            raise UserError(f"the {name} backend cannot follow different plans in one batch; use the hf backend")


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

    def score(
        self,
        texts: Sequence[Sequence[int]],
        lengths: Sequence[int],
        plans: Sequence[Plan],
        of_row: Sequence[int] | None = None,
    ) -> list[Float[Tensor, "pos vocab"]]:
        """Log-probabilities (fp32) after each position of each text, of which the first `lengths[i]` are prompt."""
        ...

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        plans: Sequence[Plan],
        of_row: Sequence[int] | None = None,
        *,
        max_new_tokens: int,
        eos_ids: Sequence[int] = (),
        keep_logprobs: bool = False,
    ) -> list[Completion]:
        """Greedy continuations with the engine's own cache; the end token, where one comes, is not among them."""
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


__all__ = ["BACKENDS", "Backend", "Claims", "Completion", "backend"]
