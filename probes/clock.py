"""Which positions a forward computes: prompt or generated, of which row, at which step.

A *step* numbers positions by what they decide: step t is the position whose logits choose generated token t.
So the last prompt token is step 0, the prompt's tokens before it are steps -1, -2, …, and generated token t
is read at step t + 1. The number is the same whether the tokens come in one forward or one at a time from a cache,
which is what lets one intervention mean one thing in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.errors import UserError
from probes.sites import decoder


@dataclass(frozen=True)
class Frame:
    """One forward.

    Args:
        steps: of each position, [rows, pos] or [1, 1] where all rows compute one position of the same step.
        lengths: of each row's prompt, [rows]; None after the prompts' own forward.
        valid: false where a position is padding; None where nothing is.
        step: the one step of all rows, where there is one.
        rows: the row of the first forward that each row continues; None where none was forked or dropped.
    """

    steps: Int[Tensor, "one_or_rows pos"]
    lengths: Int[Tensor, " prompts"] | None
    valid: Bool[Tensor, "rows pos"] | None
    step: int | None
    rows: Int[Tensor, " rows"] | None


class Count:
    """Keeps the `Frame` of the forward that runs, given each by `begin` and `advance`.

    Args:
        lengths: prompt tokens of each row, where a forward holds prompts and their continuations. Without it
            all that the first forward holds is prompt.
    """

    def __init__(self, lengths: Sequence[int] | None = None) -> None:
        self.given = None if lengths is None else torch.tensor(list(lengths))
        self.frame: Frame | None = None
        self.rows: Tensor | None = None
        self.last: int | Tensor = 0

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        """Row r continues row `question[r]` of the forward before."""
        self._select(question)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows continue."""
        self._select(rows)

    def _select(self, index: Tensor) -> None:
        self.rows = index if self.rows is None else self.rows[index]
        if isinstance(self.last, Tensor):
            self.last = self.last[index]

    def begin(self, rows: int, count: int, mask: Tensor | None, device: torch.device) -> None:
        """The prompts' own forward: `count` positions of each row, where the mask is true."""
        valid = None
        if mask is not None and mask.ndim == 4:
            mask = mask[:, 0, -1, :] if mask.dtype == torch.bool else mask[:, 0, -1, :] >= 0
        if mask is not None and not bool(mask.all()):
            valid = mask.bool().expand(rows, count)
        place = torch.arange(count, device=device).expand(rows, count) if valid is None else valid.long().cumsum(-1) - 1
        held = place[:, -1] + 1 if valid is None else valid.sum(-1)
        lengths = held if self.given is None else self.given.to(device)
        if len(lengths) != rows or bool((lengths > held).any()):
            raise UserError(
                f"prompt lengths {lengths.tolist()} were given for {rows} rows of {held.tolist()} tokens; "
                "give one length a row, at most its tokens"
            )
        steps = place - lengths[:, None] + 1
        self.rows = None
        self.last = 0 if self.given is None else held - lengths
        self.frame = Frame(steps, lengths, valid, None, None)

    def advance(self, count: int, device: torch.device) -> None:
        """A forward of `count` more positions of each row."""
        if isinstance(self.last, int):
            steps = torch.arange(self.last + 1, self.last + 1 + count, device=device)[None]
            step = self.last + 1 if count == 1 else None
        else:
            steps, step = self.last[:, None] + torch.arange(1, 1 + count, device=device), None
        self.last = self.last + count
        self.frame = Frame(steps, None, None, step, self.rows)


class Clock(Count):
    """Follows the forwards of a model by itself.

    A forward without a filled cache begins anew; each that follows continues from the last. It reads what the
    decoder is given, so it serves `generate`, a plain forward and a loop of one's own alike. A loop that copies,
    drops or reorders rows says so with `fork` and `keep`.

    Args:
        lm: a causal LM of `transformers`.
        lengths: see `Count`.
    """

    def __init__(self, lm: nn.Module, lengths: Sequence[int] | None = None) -> None:
        super().__init__(lengths)
        self.seen = 0  # positions that the cache should hold
        self._handle: RemovableHandle = decoder(lm).register_forward_pre_hook(self._before, with_kwargs=True)

    def remove(self) -> None:
        self._handle.remove()

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        given: Tensor = ids if ids is not None else kwargs["inputs_embeds"]
        count, device = given.shape[1], given.device
        if kwargs.get("cache_params") is not None:
            raise UserError("this model keeps a recurrent state; positions cannot be followed in it")
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        mask = kwargs.get("attention_mask")
        if past == 0:
            if mask is not None and mask.shape[-1] > count:
                raise UserError("the model was given a mask longer than its input and no cache; give both or neither")
            self.begin(given.shape[0], count, mask, device)
        elif past != self.seen:
            raise UserError(
                f"the cache holds {past} positions and {self.seen} were followed; open the context before the prompt's "
                "own forward, and do not take tokens back (assisted decoding does)"
            )
        else:
            self.advance(count, device)
        self.seen = past + count
