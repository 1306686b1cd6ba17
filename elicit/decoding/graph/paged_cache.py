"""Prompts once a question and own tokens in pages, for rows that are at different places of their answers.

Queries go to the pages instead of pages to the queries: each page is one entry of a batch of small attentions, with
the query of the row that holds it, so that no key is copied and no shape depends on a length. What a row's pages and
its prompt said is merged by their log-sum-exp, as in `elicit.decoding.shared_prefix` (arXiv 2402.05099, eq. 4-6). All
that depends on a position is a mask made from positions on the device.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import sdpa_mask

from elicit.decoding.graph.pages import Pages
from elicit.decoding.shared_prefix import (
    SharedPrefixCache,
    from_grid,
    partial_attention,
    shared_prefix_attention,
    to_grid,
)

PAGED_ATTENTION = "elicit_paged"
ALIGNED = 8  # of what a fused kernel's bias must be a multiple


class PagedCache(DynamicCache):
    """The keys and values of the rows in flight.

    Args:
        rows: how many, those that stand empty included.
        questions: prompts that it has room for.
        branches: the most rows of a question.
        prompt: the longest prompt.
        pages: which row holds which page.
        device: of the model's inputs; all layers lie there.
        dtype: of the model.
    """

    def __init__(
        self, rows: int, questions: int, branches: int, prompt: int, pages: Pages, device: torch.device,
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        super().__init__()
        self.questions, self.branches, self.pages = questions, branches, pages
        self.prompt = -(-prompt // ALIGNED) * ALIGNED
        # Finite, so that what sees nothing at all is no NaN: it weighs nothing where it is merged.
        self.hidden = torch.finfo(dtype).min / 2
        self.dtype = dtype
        # Of each layer that attends; one that is left out without an image (mllama) holds nothing.
        self.own: dict[int, tuple[Tensor, Tensor]] = {}  # [pages * size, kv_heads, d]
        self.prompts: dict[int, tuple[Tensor, Tensor]] = {}  # [questions, kv_heads, prompt, d]
        self.length = torch.zeros(questions, dtype=torch.long, device=device)  # of each prompt
        self.slot = torch.zeros(rows, dtype=torch.long, device=device)  # of each row among questions x branches
        self.grid = torch.zeros(questions * branches, dtype=torch.long, device=device)  # and back
        self.table, self.owner, self.start = (torch.zeros(1, dtype=torch.long, device=device) for _ in range(3))
        self.layer = 0  # that was updated last
        self.place = torch.zeros(rows, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, dtype=torch.long, device=device)
        self._masks: dict[tuple[str, int | None, int], Tensor] = {}
        self.write_pages()

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.prompt

    @property
    def nbytes(self) -> int:
        """Of keys and values."""
        return sum(t.nbytes for pair in (*self.own.values(), *self.prompts.values()) for t in pair)

    # Between steps

    def put(
        self, cache: SharedPrefixCache, which: Int[Tensor, " some"], lengths: Int[Tensor, " some"],
        places: Int[Tensor, " some"],
    ) -> None:  # fmt: skip
        """Keep these prompts of a prefill, in these places."""
        self.length[places] = lengths
        count = self.pages.count * self.pages.size
        for index in cache.attending:
            given = cache.prefix(index)
            if index not in self.prompts:
                heads = [(t.shape[1], t.shape[3]) for t in given]
                keys, values = (given[0].new_zeros(self.questions, h, self.prompt, d) for h, d in heads)
                self.prompts[index] = keys, values
                keys, values = (given[0].new_zeros(count, h, d) for h, d in heads)
                self.own[index] = keys, values
            for kept, new in zip(self.prompts[index], given, strict=True):
                kept[places, :, self.prompt - new.shape[2] :] = new[which]

    def write_pages(self) -> bool:
        """Bring what the pages say to the device; whether a shape is another than it was."""
        shape = self.table.shape, self.owner.shape
        for name in ("table", "owner", "start"):
            given, kept = torch.from_numpy(getattr(self.pages, name)), getattr(self, name)
            if given.shape == kept.shape:
                kept.copy_(given)
            else:
                setattr(self, name, given.to(kept.device, copy=True))
        for index, pair in self.own.items():
            if (lacking := self.pages.count * self.pages.size - len(pair[0])) > 0:
                self.own[index] = tuple(torch.cat([t, t.new_zeros(lacking, *t.shape[1:])]) for t in pair)  # type: ignore[assignment]
        return shape != (self.table.shape, self.owner.shape)

    def close_up(self) -> None:
        """Give back the memory of pages that are free."""
        old = torch.from_numpy(self.pages.closed_up()).to(self.length.device)
        at = (old[:, None] * self.pages.size + torch.arange(self.pages.size, device=old.device)).flatten()
        for index, pair in self.own.items():
            self.own[index] = tuple(t[at] for t in pair)  # type: ignore[assignment]

    def place_rows(self, rows: int, slot_of_row: Int[Tensor, " some"], at: Int[Tensor, " some"]) -> None:
        """Say in which of questions x branches places the rows `at` stand; all others stand nowhere."""
        self.slot = self._again(self.slot, rows)
        self.grid = self._again(self.grid, self.questions * self.branches)
        self.slot[at] = slot_of_row
        self.grid[slot_of_row] = at

    @staticmethod
    def _again(kept: Tensor, count: int) -> Tensor:
        return kept.zero_() if len(kept) == count else kept.new_zeros(count)

    def keep_questions(self, kept: Int[Tensor, " kept"], count: int) -> None:
        """Only these prompts are still needed, as the first of `count`."""
        index = torch.nn.functional.pad(kept, (0, count - len(kept)))
        self.questions, self.length = count, self.length[index]
        for layer, pair in self.prompts.items():
            self.prompts[layer] = tuple(t[index] for t in pair)  # type: ignore[assignment]

    # A step

    def begin(self, position: Int[Tensor, " rows"], alive: Bool[Tensor, " rows"]) -> None:
        """Before a forward: the position of each row's token among its own; rows that are not alive write nowhere."""
        size = self.pages.size
        page = self.table.gather(1, (position // size)[:, None])[:, 0]
        self.place = torch.where(alive, page * size + position % size, 0)
        self.position = position
        self._masks.clear()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        for kept, new in zip(self.own[layer_idx], (key_states, value_states), strict=True):
            kept.index_copy_(0, self.place, new[:, :, 0])
        self.layer = layer_idx
        return key_states, value_states

    def attend(
        self, query: Float[Tensor, "rows heads 1 d"], scale: float, window: int | None, softcap: float | None
    ) -> Float[Tensor, "rows 1 heads dv"]:
        """Over each row's prompt and its own tokens, the newest included."""
        rows, heads, _, d = query.shape
        keys, values = (self._by_page(t) for t in self.own[self.layer])
        group = heads // keys.shape[1]
        per_head = query.reshape(rows, keys.shape[1], group, d)
        out, lse = _attention(per_head[self.owner], keys, values, self._own_mask(window), scale, softcap)

        prompt_keys, prompt_values = self.prompts[self.layer]
        gridded = to_grid(per_head, self.grid, self.questions)
        mask = self._prompt_mask(window, group)
        found, weight = _attention(gridded, prompt_keys, prompt_values, mask, scale, softcap)
        found = from_grid(found, self.slot, rows, group)
        weight = from_grid(weight[..., None], self.slot, rows, group)[..., 0]

        merged = _merged(out, lse, self.table, found, weight).to(query.dtype)
        return merged.reshape(rows, 1, heads, merged.shape[-1])

    def _by_page(self, own: Float[Tensor, "positions kv_heads d"]) -> Float[Tensor, "pages kv_heads size d"]:
        return own.view(-1, self.pages.size, *own.shape[1:]).transpose(1, 2)

    def _own_mask(self, window: int | None) -> Float[Tensor, "pages 1 1 size"]:
        """What the row of each page sees of it."""
        key = "own", window, 1
        if key not in self._masks:
            first = self.position[self.owner] - self.start
            far = first[:, None] - torch.arange(self.pages.size, device=first.device)
            self._masks[key] = self._mask((far >= 0) & (far < window) if window else far >= 0)[:, None, None]
        return self._masks[key]

    def _prompt_mask(self, window: int | None, group: int) -> Float[Tensor, "questions 1 one_or_q prompt"]:
        """What each question's rows see of its prompt; the prompt ends at the last column."""
        key = "prompt", window, group if window else 1
        if key not in self._masks:
            back = torch.arange(self.prompt, 0, -1, device=self.length.device)
            seen = (back <= self.length[:, None])[:, None]
            if window:
                position = self.position[self.grid].view(self.questions, self.branches, 1)
                seen = (seen & (position + back < window)).repeat_interleave(group, 1)
            self._masks[key] = self._mask(seen)[:, None]
        return self._masks[key]

    def _mask(self, seen: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.zeros(seen.shape, dtype=self.dtype, device=seen.device).masked_fill_(~seen, self.hidden)


def _merged(
    out: Float[Tensor, "pages kv_heads group dv"],
    lse: Float[Tensor, "pages kv_heads group"],
    table: Int[Tensor, "rows most"],
    found: Float[Tensor, "rows kv_heads group dv"],
    weight: Float[Tensor, "rows kv_heads group"],
) -> Float[Tensor, "rows kv_heads group dv"]:
    """What each row's pages (`out`) and its prompt (`found`) said, by their log-sum-exp; fp32."""
    every = torch.cat([out[table], found[:, None]], 1)
    share = torch.softmax(torch.cat([lse[table], weight[:, None]], 1), 1)
    return (every.float() * share[..., None]).sum(1)


def _attention(
    query: Float[Tensor, "batch kv_heads q d"],
    key: Float[Tensor, "batch kv_heads k d"],
    value: Float[Tensor, "batch kv_heads k dv"],
    mask: Float[Tensor, "batch 1 one_or_q k"],
    scale: float,
    softcap: float | None,
) -> tuple[Float[Tensor, "batch kv_heads q dv"], Float[Tensor, "batch kv_heads q"]]:
    """As `partial_attention`; on CUDA in half precision by the fused kernel that returns the log-sum-exp.

    On a CPU parts are in fp32, at no cost that was seen: each rounded by itself, they are 2% further from an fp32
    forward than one softmax over everything is.
    """
    half = query.dtype in (torch.bfloat16, torch.float16)
    if half and not query.is_cuda:
        query, key, value, mask = query.float(), key.float(), value.float(), mask.float()
    if not (query.is_cuda and half and softcap is None and query.shape[-1] == value.shape[-1]):
        return partial_attention(query, key, value, mask, scale, softcap)
    bias = mask.expand(*query.shape[:3], key.shape[2])
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, 0.0, False, scale=scale
    )
    return out, lse[..., : query.shape[2]]  # which is padded


def paged_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "rows heads q d"],
    key: Float[Tensor, "rows kv_heads k d"],
    value: Float[Tensor, "rows kv_heads k dv"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    paged: PagedCache | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows q heads dv"], None]:
    """The attention function registered with `transformers` as `elicit_paged`; without `paged` it is ordinary."""
    if paged is None:
        return shared_prefix_attention(
            module, query, key, value, attention_mask, scaling, sliding_window, softcap, **kwargs
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return paged.attend(query, scale, sliding_window, softcap), None


AttentionInterface.register(PAGED_ATTENTION, paged_attention)
AttentionMaskInterface.register(PAGED_ATTENTION, sdpa_mask)
