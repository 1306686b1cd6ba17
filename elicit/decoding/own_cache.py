"""States over what a model keeps itself, for architectures whose attention cannot be replaced.

`PerRowState` holds the model's own cache, whatever that is (keys and values, compressed latents, recurrent and
convolutional states), repeated for each branch. `UncachedState` holds token ids and computes whole rows at each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import Parameter, signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from elicit.decoding.state import Candidates, Peeked, adding
from probes.clock import cache_argument
from probes.errors import UserError

SOFTMAX_LAYERS = {"full_attention", "sliding_attention"}
PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)  # layers that hold keys and values and nothing else


def layer_kinds(model: PreTrainedModel) -> set[str]:
    config = model.config.get_text_config(decoder=True)
    return set(getattr(config, "layer_types", None) or ["full_attention"])


class PerRowState:
    """`KVState` over the model's own cache: each row carries its prompt.

    With `whole`, sliding-window layers keep all tokens, which `peek` needs: it goes back behind the newest ones. A
    candidate is then a row of its own, with a copy of the cache: what the model does with positions and masks stays
    its own. All compute the longest window, and add nothing outside of theirs.

    Unless `padded`, prompts are of one length, and the model is given token ids and its cache alone.
    """

    def __init__(self, model: PreTrainedModel, *, whole: bool = False, padded: bool = True) -> None:
        self.model, self.padded = model, padded
        others = layer_kinds(model) - SOFTMAX_LAYERS
        if whole and others:
            raise UserError(
                f"{type(model).__name__} has layers of {', '.join(sorted(others))}, whose state cannot go back; "
                "use a model with softmax attention"
            )
        self.name = cache_argument(model)
        # None: the model makes one of a class of its own.
        self.cache: Any = DynamicCache() if whole else DynamicCache(config=model.config) if self._plain() else None
        self.mask = torch.empty(0)
        self.next_position = torch.empty(0, dtype=torch.long)

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        self.mask = mask.long()
        logits = self._run(ids, positions, **_newest(self.model, ids))
        self.next_position = positions[:, -1] + 1
        if not _filled(self.cache):
            raise UserError(
                f"{type(self.model).__name__} leaves its cache empty: a step would see its newest token alone"
            )
        return logits

    def _plain(self) -> bool:
        """Whether the model takes the cache of `transformers`."""
        supported = getattr(self.model, "_supports_default_dynamic_cache", None)
        return self.name != "state" and (supported is None or bool(supported()))

    def _run(self, ids: Tensor, positions: Tensor, **more: Any) -> Float[Tensor, "rows vocab"]:
        """One forward of new tokens; where nothing is padded, mask and positions are the model's own."""
        if self.padded:
            more |= {"attention_mask": self.mask, "position_ids": positions}
        out = self.model(input_ids=ids, use_cache=True, **{self.name: self.cache}, **more)
        self.cache = getattr(out, self.name, None) if self.cache is None or self.name == "state" else self.cache
        logits: Tensor = out.logits[:, -1]
        return logits

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.keep(question)

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        logits = self._run(tokens[:, None], self.next_position[:, None])
        self.next_position = self.next_position + 1
        return logits

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        self.cache = _select(self.cache, rows, len(self.mask))
        self.mask, self.next_position = self.mask[rows], self.next_position[rows]

    def peek(self, candidates: Candidates) -> Peeked:
        if not all(type(layer) is DynamicLayer for layer in getattr(self.cache, "layers", [None])):
            raise UserError(f"{type(self.model).__name__} keeps a state that cannot go back; use another base")
        rows, versions, _ = candidates.delta.shape
        longest = min(max(candidates.windows), self.mask.shape[1])
        back = torch.arange(longest - 1, -1, -1, device=self.mask.device)
        row = candidates.rows.repeat_interleave(versions)
        past = DynamicCache()
        if longest < self.mask.shape[1]:
            for index, layer in enumerate(self.cache.layers):
                assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
                past.update(layer.keys[row, :, :-longest], layer.values[row, :, :-longest], index)
        inside = back < torch.tensor(candidates.windows, device=back.device)[:, None]
        delta = candidates.delta[:, :, None] * inside[..., None]
        with adding(self.model, candidates.site, delta.flatten(0, 1)) as moved:
            out = self.model(
                input_ids=candidates.tokens[:, -longest:].repeat_interleave(versions, 0),
                attention_mask=self.mask[row],
                position_ids=(self.next_position[row][:, None] - 1 - back).clamp(min=0),
                use_cache=True,
                logits_to_keep=torch.tensor([longest - 1], device=back.device),
                **{self.name: past},
            )
        return Peeked(out.logits.view(rows, versions, -1), moved[0][:, -1].view(rows, versions))


class UncachedState:
    """`KVState` without a cache: each step is a forward of whole rows, which must be of one length."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.ids = torch.empty(0, dtype=torch.long)

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        self.ids = ids
        return self._run()

    def _run(self) -> Float[Tensor, "rows vocab"]:
        last = _newest(self.model, self.ids)
        logits: Tensor = self.model(input_ids=self.ids, use_cache=False, **last).logits[:, -1]
        return logits

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.keep(question)

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        self.ids = torch.cat([self.ids, tokens[:, None]], dim=1)
        return self._run()

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        self.ids = self.ids[rows]

    def peek(self, candidates: Candidates) -> Peeked:
        raise UserError(
            f"{type(self.model).__name__} is decoded without a cache, where no look ahead is made; use another base"
        )


def _newest(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Ask for the newest token's logits alone, where a model can be asked.

    As an index: a slice is a strided view, for which the output layer would copy its weights per question.
    """
    found = signature(type(model).forward).parameters
    if "logits_to_keep" in found or any(one.kind is Parameter.VAR_KEYWORD for one in found.values()):
        return {"logits_to_keep": torch.tensor([ids.shape[1] - 1], device=ids.device)}
    return {}


def _filled(cache: Any) -> bool:
    """Whether a forward left anything in a cache."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return cache is not None
    return any(isinstance(value, Tensor) and value.numel() for layer in layers for value in _tensors(vars(layer)))


def _tensors(held: Any) -> list[Any]:
    if isinstance(held, dict):
        return [one for value in held.values() for one in _tensors(value)]
    return [held]


def _selected(held: Any, rows: Tensor, count: int) -> Any:
    """What is held of `count` rows, of those alone that are asked for: tensors whose first dimension is the rows'."""
    if isinstance(held, Tensor):
        return held.index_select(0, rows.to(held.device)) if held.ndim > 1 and len(held) == count else held
    if isinstance(held, dict):
        return {key: _selected(value, rows, count) for key, value in held.items()}
    if isinstance(held, list | tuple):
        return type(held)(_selected(value, rows, count) for value in held)
    return held


def _select(cache: Any, rows: Tensor, count: int) -> Any:
    """A cache of these rows alone; its own layers are changed in place."""
    if isinstance(cache, Sequence):
        return _selected(cache, rows, count)
    for part in (*getattr(cache, "layers", []), cache):
        if type(part) in PLAIN:
            part.batch_select_indices(rows)
            continue
        for name, value in vars(part).items():
            if name != "layers":
                setattr(part, name, _selected(value, rows, count))
    return cache
