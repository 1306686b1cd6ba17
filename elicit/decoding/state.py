"""What is the same for every state of a batch: the questions it answers, and what a look ahead is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.sites import Site, on_site


@dataclass(frozen=True)
class Candidates:
    """Steered versions of the newest tokens of some rows.

    Args:
        rows: which rows.
        tokens: their last tokens, the newest last; anything before a row's first token.
        windows: how many of them each candidate computes again.
        delta: what each candidate adds, at each token of its window.
        site: where it is added.
    """

    rows: Int[Tensor, " rows"]
    tokens: Int[Tensor, "rows longest"]
    windows: tuple[int, ...]
    delta: Float[Tensor, "rows candidates d_model"]
    site: Site


class Peeked(NamedTuple):
    """What each candidate would say next, and how far its newest token was moved at the site (‖Δh‖ / ‖h‖)."""

    logits: Float[Tensor, "rows candidates vocab"]
    moved: Float[Tensor, "rows candidates"]


@runtime_checkable
class KVState(Protocol):
    """The state of a batch of rows between two decoding steps."""

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        """Run the left-padded prompts; return the logits after each one's last token."""
        ...

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        """Make one row for each entry: row r continues prompt `question[r]` (grouped, ascending)."""
        ...

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Append one token to each row; return the next logits."""
        ...

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Forget all rows but these (ascending)."""
        ...

    def peek(self, candidates: Candidates) -> Peeked:
        """The next logits of steered versions of the newest tokens, in one forward; the state stays as it is."""
        ...


@contextmanager
def adding(
    model: PreTrainedModel, site: Site, delta: Float[Tensor, "rows pos d_model"]
) -> Iterator[list[Float[Tensor, "rows pos"]]]:
    """Add to the activations of the forward inside; the list gets ‖Δh‖ / ‖h‖ of each position, as it was rounded."""
    moved: list[Tensor] = []
    handle = on_site(model, site, partial(_add, delta, moved))
    try:
        yield moved
    finally:
        handle.remove()


def _add(delta: Float[Tensor, "rows pos d_model"], moved: list[Tensor], h: Tensor) -> Tensor:
    new = h + delta.to(h)
    before = h.float()
    share = (new.float() - before).norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-12)
    moved.append(share.to(delta.device))
    return new
