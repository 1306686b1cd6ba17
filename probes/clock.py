"""Which positions a forward computes: prompt or generated, of which row, at which step.

A *step* numbers positions by what they decide: step t is the position whose logits choose generated token t.
So the last prompt token is step 0, the prompt's tokens before it are steps -1, -2, …, and generated token t
is read at step t + 1. The number is the same whether the tokens come in one forward or one at a time from a cache,
which is what lets one intervention mean one thing in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from probes.errors import UserError
from probes.sites import decoder, is_paused

KEYS_AND_VALUES = ("past_key_values", "cache")
"""What models call the argument that carries keys and values from forward to forward: up to transformers 5.23, and
since."""

CACHES = (*KEYS_AND_VALUES, "cache_params", "state")
"""The same of a cache of any kind, a recurrent state too."""


def cache_argument(module: nn.Module) -> str:
    """What a model or its decoder calls the argument that carries its cache; of one that hands on whatever it is given,
    what the class that it is made from calls it.

    Raises:
        UserError: it takes none.
    """
    found = _cache_argument(tuple(vars(one)["forward"] for one in type(module).__mro__ if "forward" in vars(one)))
    if found is None:
        raise UserError(f"{type(module).__name__} takes no cache from step to step")
    return found


@lru_cache
def _cache_argument(forwards: tuple[Callable[..., Any], ...]) -> str | None:
    for forward in forwards:
        taken = signature(forward).parameters
        named = next((name for name in CACHES if name in taken), None)
        if named or all(one.kind is not Parameter.VAR_KEYWORD for one in taken.values()):
            return named
    return None


@dataclass(frozen=True)
class Frame:
    """One forward.

    Args:
        steps: of each position, [rows, pos] or [1, 1] where all rows compute one position of the same step.
        lengths: of each row's prompt, [rows]; None after the prompts' own forward.
        valid: false where a position is padding; None where nothing is.
        step: the one step of all rows, where there is one.
        rows: the row of the batch that each row is or continues; None where none was forked, dropped or left out.
        fresh: false at positions that an earlier forward has computed as well; None where none are.
    """

    steps: Int[Tensor, "one_or_rows pos"]
    lengths: Int[Tensor, " prompts"] | None
    valid: Bool[Tensor, "rows pos"] | None
    step: int | None
    rows: Int[Tensor, " rows"] | None
    fresh: Bool[Tensor, "rows pos"] | None = None

    @property
    def counted(self) -> Bool[Tensor, "rows pos"] | None:
        """Where a position is no padding and was not seen before; None where all are such."""
        if self.valid is None or self.fresh is None:
            return self.valid if self.fresh is None else self.fresh
        return self.valid & self.fresh

    def check(self, lm: nn.Module, h: Float[Tensor, "rows pos d_model"]) -> None:
        """Refuse activations of other positions than those that the model was given.

        Raises:
            UserError: the class is named.
        """
        given, held = self.steps.shape[1], h.shape[1]
        if held != given:
            raise UserError(
                f"{type(lm).__name__} computes {held} positions of {given} tokens (it adds some of its own); it can be "
                "decoded, and neither captured nor steered"
            )


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
        self.part: Tensor | None = None
        self.whole = False
        self.prompt = torch.empty(0, dtype=torch.long)  # tokens of each row's prompt

    def expect(self, rows: Sequence[int] | None = None, *, whole: bool = False) -> None:
        """Say what the next prompts' forward will be.

        Args:
            rows: of the batch, in this order; None: all.
            whole: the forwards that follow it hold whole rows again, without a cache.
        """
        self.part = None if rows is None else torch.tensor(list(rows))
        self.whole = whole
        self.frame = None

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
        if self.whole:
            self.prompt = self.prompt[index.to(self.prompt.device)]

    def begin(self, rows: int, count: int, mask: Tensor | None, device: torch.device) -> None:
        """The prompts' own forward: `count` positions of each row, where the mask is true."""
        valid = None
        if mask is not None and mask.ndim == 4:
            # A token sees itself, whatever its window; of a static cache keys are given that are still to come.
            mask = mask[:, 0].diagonal(dim1=-2, dim2=-1)
            mask = mask if mask.dtype == torch.bool else mask >= 0
        if mask is not None and not bool(mask.all()):
            valid = mask.bool().expand(rows, count)
        place = torch.arange(count, device=device).expand(rows, count) if valid is None else valid.long().cumsum(-1) - 1
        held = place[:, -1] + 1 if valid is None else valid.sum(-1)
        given = self.given if self.given is None or self.part is None else self.given[self.part]
        lengths = held if given is None else given.to(device)
        if len(lengths) != rows or bool((lengths > held).any()):
            raise UserError(
                f"prompt lengths {lengths.tolist()} were given for {rows} rows of {held.tolist()} tokens; "
                "give one length a row, at most its tokens"
            )
        steps = place - lengths[:, None] + 1
        self.rows = None if self.part is None else self.part.to(device)
        self.last = 0 if self.given is None else held - lengths
        self.prompt = lengths
        self.frame = Frame(steps, lengths, valid, None, self.rows)

    def again(self, count: int, device: torch.device) -> None:
        """A forward of whole rows of `count` positions, of which the last is new."""
        steps = torch.arange(count, device=device) - self.prompt[:, None] + 1
        fresh = torch.zeros(steps.shape, dtype=torch.bool, device=device)
        fresh[:, -1] = True
        self.frame = Frame(steps, self.prompt, None, None, self.rows, fresh)

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
        self.lm = lm
        self.seen = 0  # positions that the cache should hold
        self._mask: Tensor | None = None  # that the whole model was given
        inner = decoder(lm)
        self._handles: list[RemovableHandle] = [inner.register_forward_pre_hook(self._before, with_kwargs=True)]
        if inner is not lm:
            self._handles.append(lm.register_forward_pre_hook(self._outer, with_kwargs=True))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _outer(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._mask = _plain(kwargs.get("attention_mask"))

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_paused(self.lm):
            return
        ids = kwargs.get("input_ids", args[0] if args else None)
        given: Tensor = ids if ids is not None else kwargs["inputs_embeds"]
        count, device = given.shape[1], given.device
        past = self._held(kwargs)
        mask, self._mask = _plain(kwargs.get("attention_mask"), self._mask), None
        if past == 0 and self.whole and self.frame is not None:
            self.again(count, device)
            return
        if past == 0:
            if mask is not None and mask.ndim == 2 and mask.shape[-1] > count:
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

    def _held(self, kwargs: dict[str, Any]) -> int:
        """Positions that the cache holds; of a recurrent state, which does not say, those that were followed."""
        cache = next((c for c in map(kwargs.get, CACHES) if c is not None), None)
        if cache is None:
            return 0
        layers = getattr(cache, "layers", [])
        if not layers or any(hasattr(layer, "get_seq_length") for layer in layers):
            length = getattr(cache, "get_seq_length", None)
            return self.seen if length is None else int(length())
        return self.seen if cache.has_previous_state() else 0


def _plain(mask: Any, outer: Tensor | None = None) -> Tensor | None:
    """Where a forward's positions are no padding: a mask [rows, pos] or [rows, 1, pos, keys].

    Where a decoder is given masks of its own, one a kind of layer, that is the mask that the whole model was given, or
    else the one of full attention.
    """
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return mask
    if outer is not None and outer.ndim == 2:
        return outer
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    return mask if isinstance(mask, Tensor) else outer
