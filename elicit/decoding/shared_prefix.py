"""A key-value cache that holds each prompt once, and the attention that reads it.

At a decoding step the attention over prompt and over own tokens are two partial softmaxes, merged by their
log-sum-exp (the decomposition of Hydragen, arXiv 2402.05099, eq. 4-6): the prompt is read once a question, not
once a branch.

`Tree` looks one token ahead in several versions of a row at once, as the token trees of speculative decoding do
(arXiv 2305.09781): the versions stand side by side in one forward, kept apart by the attention mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "elicit_shared_prefix"
FIRST_CAPACITY = 64
# The kernel behind scaled_dot_product_attention on a CPU: the only form of it that returns the log-sum-exp.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


class SharedPrefixCache(DynamicCache):
    """A `transformers` cache whose layers become (prefix, suffix) pairs once `fork` was called.

    Until then it is a plain `DynamicCache` and keeps whole prompts even in sliding-window layers. Where each prompt
    has one row there is nothing to share: the prompt becomes the head of the suffix, and attention is one softmax.
    """

    def __init__(self, max_new_tokens: int) -> None:
        super().__init__()
        self.max_new_tokens = max_new_tokens
        self.forked = False
        self.length = 0  # positions of each row's suffix, the one of the step in progress included
        self.head = 0  # positions of the prompt among them
        self.suffix_mask: Tensor | None = None
        self.layer = 0  # the layer that was updated last
        self.suffix: list[tuple[Tensor, Tensor] | None] = []
        self.prefix_mask: Tensor | None = None
        self.question = torch.empty(0, dtype=torch.long)
        self.grid: Tensor | None = None
        self.slot: Tensor | None = None
        # Of each row the positions of its prompt that it sees, where rows leave a text at places of their own.
        self.cut: Tensor | None = None
        self.cut_masks: dict[int, Tensor] = {}

    def prefix(self, layer: int) -> tuple[Tensor, Tensor]:
        """The prompts' keys and values of one layer, [questions, kv_heads, pos, d]."""
        entry = self.layers[layer]
        assert isinstance(entry, DynamicLayer) and entry.keys is not None and entry.values is not None
        return entry.keys, entry.values

    @property
    def attending(self) -> list[int]:
        """The layers that have kept anything of the prompts; one that was left out has not."""
        left_out = [isinstance(layer, DynamicLayer) and layer.keys is None for layer in self.layers]
        return [index for index, out in enumerate(left_out) if not out]

    @property
    def columns(self) -> int:
        """Positions of each row, where each prompt has one row."""
        return self.length if self.forked else self.prefix_length

    def past(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of each row, [rows, kv_heads, columns, d], where each prompt has one row."""
        pair = self.suffix[layer] if self.forked else self.prefix(layer)
        if pair is None or (self.forked and not self.head):
            raise ValueError("branches share a prompt here; a look ahead needs one row for each prompt")
        return pair[0][:, :, : self.columns], pair[1][:, :, : self.columns]

    @property
    def padding(self) -> Tensor | None:
        """-inf at each row's padding, [rows, 1, 1, columns]; None where nothing is padded."""
        mask = self.suffix_mask if self.forked else self.prefix_mask
        return None if mask is None else mask[..., : self.columns]

    @property
    def prefix_length(self) -> int:
        return int(self.prefix(0)[0].shape[-2])

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.forked = True
        self.suffix = [None] * len(self.layers)
        self._group(question)
        if self.cut is None and len(question) == len(self.prefix(0)[0]):
            self._one_row_each()

    def leave(self, question: Int[Tensor, " rows"], cut: Int[Tensor, " rows"]) -> None:
        """Fork so that row r sees the first `cut[r]` positions of its prompt, at least one, and no others."""
        self.cut = cut
        self.fork(question)

    def again(self, rows: Int[Tensor, " more"]) -> None:
        """Make a row of its own of each entry, which goes on from that row of now (grouped, ascending)."""
        assert self.cut is not None
        for i, pair in enumerate(self.suffix):
            if pair is not None:
                self.suffix[i] = pair[0][rows], pair[1][rows]
        self.cut = self.cut[rows]
        self._group(self.question[rows])

    def cut_mask(self, group: int, dtype: torch.dtype) -> Float[Tensor, "questions 1 width keys"]:
        """-inf where a row does not see its prompt, for the queries of a group of heads; made once for the rows."""
        if group not in self.cut_masks:
            assert self.cut is not None
            cut = self.cut if self.grid is None else self.cut[self.grid]
            columns = torch.arange(self.prefix_length, device=cut.device)
            unseen = columns >= cut.view(len(self.prefix(0)[0]), -1)[..., None].repeat_interleave(group, 1)
            mask = torch.zeros(unseen.shape, dtype=dtype, device=cut.device)
            self.cut_masks[group] = mask.masked_fill_(unseen, float("-inf"))[:, None]
        return self.cut_masks[group]

    def _one_row_each(self) -> None:
        """Make each prompt the head of its row's suffix."""
        self.head = self.length = self.prefix_length
        for index, layer in enumerate(self.layers):
            keys, values = self.prefix(index)
            self.suffix[index] = (_resize(keys, self._capacity()), _resize(values, self._capacity()))
            layer.keys, layer.values = keys[:, :, :0], values[:, :, :0]  # type: ignore[union-attr]
        if self.prefix_mask is not None:
            self.suffix_mask = torch.nn.functional.pad(self.prefix_mask, (0, self.max_new_tokens))
            self.prefix_mask = None

    def _capacity(self) -> int:
        """Positions to make room for: twice what is there, up to the limit."""
        return self.head + min(self.max_new_tokens, max(FIRST_CAPACITY, 2 * (self.length - self.head)))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        if not self.forked:
            return super().get_seq_length(layer_idx)
        return self.prefix_length + self.length

    def _group(self, question: Tensor) -> None:
        """Lay the rows out as a [questions, widest] grid; `None` where the grid is exactly full."""
        self.cut_masks.clear()
        self.question = question
        counts = torch.bincount(question)
        widest = int(counts.max())
        if len(counts) * widest == len(question):
            self.grid = self.slot = None
            return
        offset = torch.arange(len(question), device=question.device) - (counts.cumsum(0) - counts)[question]
        self.slot = question * widest + offset
        self.grid = torch.zeros(len(counts) * widest, dtype=torch.long, device=question.device)
        self.grid[self.slot] = torch.arange(len(question), device=question.device)

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        for i, pair in enumerate(self.suffix):
            if pair is not None:
                keys, values = (_resize(t[rows, :, : self.length], t.shape[2]) for t in pair)
                self.suffix[i] = keys, values
        left, question = torch.unique(self.question[rows], return_inverse=True)
        if len(left) < len(torch.unique(self.question)):
            for index, layer in enumerate(self.layers):
                keys, values = self.prefix(index)
                layer.keys, layer.values = keys[left], values[left]  # type: ignore[union-attr]
            if self.prefix_mask is not None:
                self.prefix_mask = self.prefix_mask[left]
        if self.suffix_mask is not None:
            self.suffix_mask = self.suffix_mask[rows]
        if self.cut is not None:
            self.cut = self.cut[rows]
        self._group(question)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.forked:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == 0:
            self.length += 1
        self.layer = layer_idx
        pair, end = self.suffix[layer_idx], self.length
        if pair is None or end > pair[0].shape[2]:
            capacity = self._capacity()
            old = pair or (key_states[:, :, :0], value_states[:, :, :0])
            pair = (_resize(old[0], capacity), _resize(old[1], capacity))
            self.suffix[layer_idx] = pair
        pair[0][:, :, end - 1 : end] = key_states
        pair[1][:, :, end - 1 : end] = value_states
        return pair[0][:, :, :end], pair[1][:, :, :end]


class Tree(DynamicCache):
    """A look ahead from a `SharedPrefixCache` in which each prompt has one row; nothing is written to that.

    Candidate c of a row computes the row's last `windows[c]` tokens again. All candidates' tokens stand side by side
    in one forward as *nodes*: a node sees the row's cached tokens before its candidate's window, the earlier nodes of
    its candidate, and itself.

    Args:
        cache: the rows so far.
        rows: which of them are looked at.
        windows: tokens of each candidate.
        held: tokens that each looked-at row holds, padding not counted: a node before a row's first token is nobody's.
    """

    def __init__(
        self, cache: SharedPrefixCache, rows: Int[Tensor, " rows"], windows: Sequence[int], held: Int[Tensor, " rows"]
    ) -> None:
        super().__init__()
        self.cache, self.rows, self.held = cache, rows, held
        self.candidate = torch.tensor([c for c, w in enumerate(windows) for _ in range(w)], device=rows.device)
        self.back = torch.tensor([b for w in windows for b in reversed(range(w))], device=rows.device)
        self.window = torch.tensor(list(windows), device=rows.device)[self.candidate]
        self.masks: dict[tuple[int | None, int], Tensor] = {}

    @property
    def newest(self) -> Int[Tensor, " candidates"]:
        """The node of each candidate that chooses the next token."""
        return (self.back == 0).nonzero()[:, 0]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.cache.columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.past(layer_idx)
        return torch.cat([keys[self.rows], key_states], 2), torch.cat([values[self.rows], value_states], 2)

    def seen(self, sliding_window: int | None) -> Bool[Tensor, "rows nodes keys"]:
        """Which keys each node attends to: cached columns, then nodes."""
        far = torch.arange(self.cache.columns - 1, -1, -1, device=self.back.device)  # counted as `back` is
        back = self.back[:, None]
        cached = far >= self.window[:, None]
        own = (self.candidate == self.candidate[:, None]) & (self.back >= back)
        if sliding_window:
            cached = cached & (far - back < sliding_window)
            own = own & (self.back - back < sliding_window)
        # Every node sees itself, also one that is nobody's: a softmax over nothing is not defined.
        somebody = self.back < self.held[:, None, None]
        own = (own & somebody) | torch.eye(len(self.back), dtype=torch.bool, device=self.back.device)
        return torch.cat([cached.expand(len(self.rows), -1, -1), own], -1)

    def mask(self, sliding_window: int | None, group: int, dtype: torch.dtype) -> Float[Tensor, "rows 1 q keys"]:
        """`seen` for the queries of a group of heads, group by group; made once a forward."""
        key = sliding_window, group
        if key not in self.masks:
            seen = self.seen(sliding_window)
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
            if self.cache.padding is not None:
                mask[..., : self.cache.columns] += self.cache.padding[self.rows, 0].to(mask)
            self.masks[key] = mask.repeat(1, group, 1)[:, None]
        return self.masks[key]

    def attend(
        self,
        query: Float[Tensor, "rows heads nodes d"],
        key: Float[Tensor, "rows kv_heads k d"],
        value: Float[Tensor, "rows kv_heads k dv"],
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "rows nodes heads dv"]:
        rows, heads, nodes, d = query.shape
        group = heads // key.shape[1]
        grouped = query.reshape(rows, key.shape[1], group * nodes, d)
        mask = self.mask(sliding_window, group, query.dtype).to(query.device)
        out, _ = partial_attention(grouped, key, value, mask, scale, softcap)
        return out.reshape(rows, heads, nodes, -1).transpose(1, 2).contiguous()


def _resize(x: Float[Tensor, "rows heads pos d"], capacity: int) -> Float[Tensor, "rows heads capacity d"]:
    out = x.new_empty(x.shape[0], x.shape[1], capacity, x.shape[3])
    out[:, :, : x.shape[2]] = x
    return out


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "rows heads q d"],
    key: Float[Tensor, "rows kv_heads k d"],
    value: Float[Tensor, "rows kv_heads k dv"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    shared_prefix: SharedPrefixCache | None = None,
    tree: Tree | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows q heads dv"], None]:
    """The attention function registered with `transformers` as `elicit_shared_prefix`.

    Before the fork it is ordinary masked attention. After it, `key` and `value` are the rows' own
    tokens and the prompt's are read from `shared_prefix`. With a `tree` they are all that its nodes may see.
    """
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if tree is not None:
        return tree.attend(query, key, value, scale, sliding_window, softcap), None
    if shared_prefix is None or not shared_prefix.forked:
        if softcap is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scale, **kwargs)
        return _softcapped(query, key, value, attention_mask, scale, softcap), None

    cache, (rows, heads, _, d) = shared_prefix, query.shape
    kv_heads = key.shape[1]
    per_head = query.view(rows, kv_heads, heads // kv_heads, d)
    suffix_from = max(0, cache.length - sliding_window) if sliding_window else 0
    own = None if cache.suffix_mask is None else cache.suffix_mask[..., suffix_from : cache.length]
    out, lse = partial_attention(per_head, key[:, :, suffix_from:], value[:, :, suffix_from:], own, scale, softcap)

    prefix_from = max(0, cache.prefix_length + cache.length - sliding_window) if sliding_window else 0
    if prefix_from < cache.prefix_length:
        keys, values = cache.prefix(cache.layer)
        mask = None if cache.prefix_mask is None else cache.prefix_mask[..., prefix_from:]
        if cache.cut is not None:
            mask = cache.cut_mask(per_head.shape[2], query.dtype)
        grouped = to_grid(per_head, cache.grid, len(keys))
        prefix_out, prefix_lse = partial_attention(
            grouped, keys[:, :, prefix_from:], values[:, :, prefix_from:], mask, scale, softcap
        )
        prefix_out = from_grid(prefix_out, cache.slot, rows, per_head.shape[2])
        prefix_lse = from_grid(prefix_lse[..., None], cache.slot, rows, per_head.shape[2])
        share = torch.sigmoid(prefix_lse - lse[..., None])
        out = torch.lerp(out, prefix_out, share.to(out.dtype))
    return out.reshape(rows, 1, heads, out.shape[-1]), None


def to_grid(
    x: Float[Tensor, "rows kv_heads group d"], grid: Tensor | None, questions: int
) -> Float[Tensor, "questions kv_heads width d"]:
    x = x if grid is None else x[grid]
    _, kv_heads, group, d = x.shape
    return x.view(questions, -1, kv_heads, group, d).transpose(1, 2).reshape(questions, kv_heads, -1, d)


def from_grid(
    x: Float[Tensor, "questions kv_heads width d"], slot: Tensor | None, rows: int, group: int
) -> Float[Tensor, "rows kv_heads group d"]:
    questions, kv_heads, _, d = x.shape
    x = x.view(questions, kv_heads, -1, group, d).transpose(1, 2).reshape(-1, kv_heads, group, d)
    return x if slot is None else x[slot]


def partial_attention(
    query: Float[Tensor, "batch kv_heads q d"],
    key: Float[Tensor, "batch kv_heads k d"],
    value: Float[Tensor, "batch kv_heads k dv"],
    mask: Float[Tensor, "batch 1 one_or_q k"] | None,
    scale: float,
    softcap: float | None,
) -> tuple[Float[Tensor, "batch kv_heads q dv"], Float[Tensor, "batch kv_heads q"]]:
    """Attention over a part of the keys, with the log-sum-exp (fp32) that merges it with other parts."""
    if softcap is None and query.device.type == "cpu" and key.shape[-1] == value.shape[-1]:
        return _FLASH(query, key, value, attn_mask=mask, scale=scale)
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask.float()
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse[..., None]).to(value.dtype)
    return torch.matmul(weights, value), lse


def _softcapped(
    query: Float[Tensor, "batch heads q d"],
    key: Float[Tensor, "batch kv_heads k d"],
    value: Float[Tensor, "batch kv_heads k dv"],
    mask: Bool[Tensor, "batch one q k"] | None,
    scale: float,
    softcap: float,
) -> Float[Tensor, "batch q heads dv"]:
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = torch.tanh(torch.matmul(query, key.transpose(-1, -2)) * scale / softcap) * softcap
    if mask is None:
        q, k = scores.shape[-2:]
        mask = torch.ones(q, k, dtype=torch.bool, device=query.device).tril(k - q)[None, None]
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous()


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
