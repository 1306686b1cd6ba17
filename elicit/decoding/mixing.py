"""What mixes the prediction after a thought with that without one (Quiet-STaR, arXiv 2403.09629, sections 4.3, 4.4.1).

    without  x_1 … x_t                     h    final state at x_t
    with     x_1 … x_t S c_1 … c_n E       h'   final state at E
    w        a network of three layers with ReLU, of [h; h']
    law      softmax of the output head of (1 − w) h + w h'

S and E are two rows that are learned, behind the last row of the embeddings: no id that a tokenizer has is taken, and
the output head has no row for them, so that neither is ever chosen. The network's last layer begins at 0, and with it
w: what is not trained has the base's law, to the bit.

Departures: the paper writes of interpolated log-probabilities; here, as in the authors' program, it is states that are
mixed, which before a soft cap is the same for logits. w is not bounded, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from probes.description import FLOAT_BITS, Base, Part
from probes.errors import UserError
from probes.finite import check_tensors
from probes.sites import width
from steering.storage import digest, register


class MixingHead(nn.Module):
    """w of each pair of states, and the states that it mixes them to.

    Args:
        d_model: of the model.
        seed: of the first two layers.
    """

    def __init__(self, d_model: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Linear(2 * d_model, d_model),
                nn.ReLU(),
                nn.Linear(d_model, d_model),
                nn.ReLU(),
                nn.Linear(d_model, 1, bias=False),
            )
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def weight(
        self, without: Float[Tensor, "*rows d_model"], having: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows 1"]:
        """w, in the head's own precision."""
        kind = self.layers[0].weight.dtype
        out: Tensor = self.layers(torch.cat([without, having], -1).to(kind))  # type: ignore[arg-type]
        return out

    def forward(
        self, without: Float[Tensor, "*rows d_model"], having: Float[Tensor, "*rows d_model"]
    ) -> Float[Tensor, "*rows d_model"]:
        w = self.weight(without, having).to(without.dtype)
        return (1 - w) * without + w * having


class TokenRows(nn.Module):
    """An embedding layer with more rows behind its own, as its forward returns them.

    Args:
        base: the layer.
        rows: [tokens, d_model], with a gradient or without.
    """

    def __init__(self, base: Any, rows: Float[Tensor, "tokens d_model"]) -> None:
        super().__init__()
        self.base, self.rows = base, rows
        self.first = len(base.weight)
        self.num_embeddings = self.first + len(rows)

    @property
    def weight(self) -> Tensor:
        """The base's own."""
        weight: Tensor = self.base.weight
        return weight

    def forward(self, ids: Int[Tensor, "rows pos"]) -> Float[Tensor, "rows pos d_model"]:
        own = ids >= self.first
        out: Tensor = self.base(ids.masked_fill(own, 0))
        learned = nn.functional.embedding((ids - self.first).clamp(min=0), self.rows)
        return torch.where(own[..., None], learned.to(out.dtype), out)


@contextmanager
def with_rows(lm: PreTrainedModel, rows: Float[Tensor, "tokens d_model"]) -> Iterator[int]:
    """The model knows more tokens inside the context; the id of the first one."""
    base: Any = lm.get_input_embeddings()
    known = TokenRows(base, rows)
    lm.set_input_embeddings(known)
    try:
        yield known.first
    finally:
        lm.set_input_embeddings(base)


@register
@dataclass(frozen=True, eq=False)
class Mixing:
    """The learned tokens and the weights of the head, as a handle holds them.

    Args:
        tokens: of the beginning and the end of a thought.
        head: of `MixingHead`, by name.

    Raises:
        UserError: tensors that are not those of a mixing head, NaN or infinity.
    """

    tokens: Float[Tensor, "2 d_model"]
    head: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        d = self.tokens.shape[-1]
        shapes = {f"layers.{n}.weight": (rows, columns) for n, rows, columns in ((0, d, 2 * d), (2, d, d), (4, 1, d))}
        biases = {f"layers.{n}.bias": (d,) for n in (0, 2)}
        found = {name: tuple(t.shape) for name, t in self.head.items()}
        if tuple(self.tokens.shape) != (2, d) or found != shapes | biases:
            raise UserError("a mixing head was given whose tensors are of other shapes; give one that was trained here")
        check_tensors({"tokens": self.tokens, **self.head}, "the mixing head", "train it again")

    @cached_property
    def digest(self) -> str:
        """Over all tensors."""
        return digest(self)

    def description(self, base: Base) -> list[Part]:
        """Its numbers in single precision."""
        count = self.tokens.numel() + sum(t.numel() for t in self.head.values())
        return [Part("a mixing head and its marks", float(FLOAT_BITS * count))]

    def check(self, lm: PreTrainedModel) -> None:
        """Refuse a model of another width.

        Raises:
            UserError: it is.
        """
        if width(lm) != self.tokens.shape[1]:
            raise UserError(
                f"a mixing head of d_model {self.tokens.shape[1]} was given to {type(lm).__name__} with {width(lm)}; "
                "give the model that it was trained on"
            )

    def on(self, lm: PreTrainedModel) -> tuple[MixingHead, Tensor]:
        """The head, ready to compute, and the tokens, where the model is."""
        head = MixingHead(self.tokens.shape[1])
        head.load_state_dict(dict(self.head))
        return head.to(lm.device).requires_grad_(False), self.tokens.to(lm.device)
