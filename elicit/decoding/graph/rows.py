"""The rows in flight as tensors of fixed shape on the device, and one step of all of them, which never leaves it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.graph.fused import Fused
from elicit.decoding.graph.paged_cache import PagedCache
from elicit.decoding.parts import without
from elicit.decoding.record import measured
from probes.clock import Frame, cache_argument
from probes.confidence import Top2, top2
from steering.hooks import Session

Choose = Callable[[Float[Tensor, "rows vocab"], Top2, Float[Tensor, " rows"]], Int[Tensor, " rows"]]
"""The next tokens, from the logits and a number in [0, 1) a row."""
COLUMNS = 6  # of `measured`, what was moved included


@dataclass
class Rows:
    """What a step reads of each row, and writes.

    Attributes:
        token: the newest, which the next step is given.
        position: its place among the row's own tokens.
        length: tokens of its prompt.
        question: the number of its prompt in the batch.
        first: the step of interventions at which its prompt ended; 0 unless prompts hold the beginning of an answer.
        limit: the most tokens it may have.
        alive: false once it has ended, and where no row stands.
        uniform: its random numbers, [rows, most]; [rows, 0] where tokens are not drawn.
    """

    token: Int[Tensor, " rows"]
    position: Int[Tensor, " rows"]
    length: Int[Tensor, " rows"]
    question: Int[Tensor, " rows"]
    first: Int[Tensor, " rows"]
    limit: Int[Tensor, " rows"]
    alive: Bool[Tensor, " rows"]
    uniform: Float[Tensor, "rows most"]

    @staticmethod
    def empty(count: int, numbers: int, device: torch.device) -> Rows:
        """So many rows with so many random numbers each, of which none is alive."""

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(count, *shape, dtype=dtype, device=device)

        return Rows(
            zeros(), zeros(), zeros(), zeros(), zeros(), zeros(), zeros(dtype=torch.bool),
            zeros(numbers, dtype=torch.float64),
        )  # fmt: skip

    def write(self, at: Int[Tensor, " some"], values: Rows) -> None:
        """New rows in these places."""
        for one in fields(self):
            getattr(self, one.name)[at] = getattr(values, one.name)

    def kept(self, at: Int[Tensor, " kept"], count: int) -> Rows:
        """These rows as the first of `count`."""
        out = Rows.empty(count, self.uniform.shape[1], self.token.device)
        for one in fields(self):
            getattr(out, one.name)[: len(at)] = getattr(self, one.name)[at]
        return out


class Step:
    """One forward of all rows, the choice of their next tokens, and what is kept of it.

    Args:
        lm: whose attention is `PAGED_ATTENTION`.
        cache, rows: what is read and written.
        choose: the decoder's rule.
        ends: the end tokens.
        never: tokens that are never chosen and count for nothing.
        head: see `elicit.decoding.record.Record`.
        every: the most steps between two looks.
        steering: plans on the model, whose clock is told which positions a forward computes.
        fused: the model's compiled pieces, or None.

    Attributes:
        tokens, values: what the steps since the last look chose and measured, [every, rows] and
            [every, columns, rows].
    """

    def __init__(
        self, lm: PreTrainedModel, cache: PagedCache, rows: Rows, choose: Choose, ends: Int[Tensor, " ends"],
        never: Int[Tensor, " never"], head: Float[Tensor, ""], every: int, steering: Session | None,
        fused: Fused | None = None,
    ) -> None:  # fmt: skip
        self.lm, self.cache, self.rows, self.choose = lm, cache, rows, choose
        self.cache_name = cache_argument(lm)
        self.ends, self.never, self.head, self.steering = ends, never, head, steering
        self.pieces = nullcontext() if fused is None else fused
        device = rows.token.device
        self.every, self.now = every, torch.zeros(1, dtype=torch.long, device=device)  # steps since the last look
        self.tokens, self.values = self._kept()
        # A mask that is already four-dimensional is passed through: no mask is built at each step.
        self.no_mask = torch.zeros(1, 1, 1, 1, device=device)

    def _kept(self) -> tuple[Tensor, Tensor]:
        count, device = len(self.rows.token), self.rows.token.device
        tokens = torch.zeros(self.every, count, dtype=torch.long, device=device)
        return tokens, torch.zeros(self.every, COLUMNS, count, device=device)

    def go_on(self, rows: Rows) -> None:
        """With other rows, at a look."""
        self.rows = rows
        self.tokens, self.values = self._kept()

    def __call__(self) -> None:
        rows = self.rows
        self.cache.begin(rows.position, rows.alive)
        number = rows.position + 1  # of the token that is chosen
        if self.steering is not None:
            steps = (rows.first + number)[:, None]
            self.steering.clock.frame = Frame(steps, None, rows.alive[:, None], None, rows.question)
        with self.pieces:
            logits = self.lm(
                input_ids=rows.token[:, None],
                attention_mask=self.no_mask,
                position_ids=(rows.length + rows.position)[:, None],
                use_cache=True,
                paged=self.cache,
                **{self.cache_name: self.cache},
            ).logits[:, -1]
        logits = without(logits, self.never)
        top = top2(logits)
        uniform = rows.uniform.gather(1, number[:, None])[:, 0] if rows.uniform.shape[1] else rows.uniform.new_empty(0)
        chosen = self.choose(logits, top, uniform)
        moved = None if self.steering is None else self.steering.moved()
        if moved is None:
            moved = torch.zeros_like(self.values[0, 0])[:, None]
        self.tokens.index_copy_(0, self.now, chosen[None])
        self.values.index_copy_(0, self.now, measured(logits, top, chosen, self.head, moved)[None])
        ended = (chosen[:, None] == self.ends).any(-1) | (number + 1 >= rows.limit)
        rows.token.copy_(torch.where(rows.alive, chosen, rows.token))
        rows.alive.logical_and_(~ended)
        rows.position.add_(rows.alive)
        self.now.add_(1)
