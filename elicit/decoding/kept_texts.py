"""Keys and values of rows that are decoded again and again: what a row was decoded from before is not computed anew.

A chain of power sampling goes back to a place in its answer at each move, and a rollout looks ahead from each token:
what they are decoded from begins, nearly always, as what the row was decoded from last. The keys and values of that are
kept for each row, and a prefill computes what is new alone, the last token at least. Texts stand at the left of what is
kept, new tokens at the right of what is computed; the columns between are masked.

What is decoded is what whole prompts give (tests/decoding/test_kept_texts.py). It is for models that are decoded as
`shared-prefix` and see all of a text (`elicit.decoding.trunk.can_leave`); a window would count the columns between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from elicit.decoding.cache import SharedPrefixState
from probes.batching import left_pad

ROOM = 64  # positions by which what is kept grows


class KeptTexts:
    """Of each row the text that it was last decoded from.

    Args:
        model: that decodes.
        rows: how many there are.
    """

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        self.texts: list[list[int]] = [[] for _ in range(rows)]
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def known(self, row: int, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that need not be computed; the last one is, for its logits."""
        pairs = zip(self.texts[row], prompt[:-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def keep(self, layer: int, rows: Tensor, at: Tensor, new: tuple[Tensor, Tensor]) -> None:
        """Keep a layer's keys and values of single tokens: of each its row and its place in the row's text."""
        room = -(-(int(at.max()) + 1) // ROOM) * ROOM
        held = self.layers.get(layer)
        if held is None or held[0].shape[2] < room:
            # Zeros: a masked position is multiplied by 0, which leaves what is not a number as it is.
            grown = [x.new_zeros(len(self.texts), x.shape[1], room, x.shape[2]) for x in new]
            for old, wider in zip(held or (), grown, strict=False):
                wider[:, :, : old.shape[2]] = old
            held = self.layers[layer] = grown[0], grown[1]
        for whole, some in zip(held, new, strict=True):
            whole[rows, :, at] = some


class KeptState(SharedPrefixState):
    """`KVState` of some rows whose texts are kept, which are decoded from these prompts, one each."""

    def __init__(
        self, kept: KeptTexts, rows: Sequence[int], prompts: Sequence[Sequence[int]], max_new_tokens: int
    ) -> None:
        super().__init__(kept.model, max_new_tokens)
        self.kept, self.rows, self.prompts = kept, rows, prompts

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        known = [self.kept.known(row, prompt) for row, prompt in zip(self.rows, self.prompts, strict=True)]
        if any(known):
            logits, new = self._after(known, ids.device)
        else:
            logits, new = super().prefill(ids, mask), mask
        self._keep(known, new)
        return logits

    def _after(
        self, known: Sequence[int], device: torch.device
    ) -> tuple[Float[Tensor, "questions vocab"], Bool[Tensor, "questions new"]]:
        """Logits after each prompt, of which so many tokens are known, and where the others stand."""
        held, rows = max(known), torch.tensor(list(self.rows), device=device)
        for index, (keys, values) in sorted(self.kept.layers.items()):
            self.cache.update(keys[rows, :, :held], values[rows, :, :held], index)
        first = torch.tensor(list(known), device=device)[:, None]
        new = left_pad([prompt[n:] for n, prompt in zip(known, self.prompts, strict=True)], device)
        seen = torch.cat([torch.arange(held, device=device) < first, new.mask], 1)
        logits = self.computed(new.ids, seen)
        self.see(seen)
        return logits, new.mask

    def _keep(self, known: Sequence[int], new: Bool[Tensor, "questions new"]) -> None:
        """Keep what was computed, at the right of the cache."""
        number, column = new.nonzero(as_tuple=True)
        rows, first = (torch.tensor(list(x), device=new.device) for x in (self.rows, known))
        at = first[number] + (new.long().cumsum(-1) - 1)[number, column]
        for index, layer in enumerate(self.cache.layers):
            assert isinstance(layer, DynamicLayer)
            if layer.keys is None or layer.values is None:
                continue
            width = new.shape[1]
            some = [x[:, :, -width:][number, :, column] for x in (layer.keys, layer.values)]
            self.kept.keep(index, rows[number], at, (some[0], some[1]))
        for row, prompt in zip(self.rows, self.prompts, strict=True):
            self.kept.texts[row] = list(prompt)
