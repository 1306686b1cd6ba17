"""Key-value caches for one prompt answered many times.

`SharedPrefixCache` holds the keys and values of a prompt once, however many branches grow from it,
and each branch's own tokens in buffers that are written in place. At a decoding step the attention
over prompt and over own tokens are two partial softmaxes, merged by their log-sum-exp (the
decomposition of Hydragen, arXiv 2402.05099, eq. 4-6): the prompt is read once a question, not
once a branch. `PerRowState` holds the model's own cache, repeated for each branch: for architectures
whose attention cannot be replaced (linear attention, ALiBi, attention sinks, ...).

Both answer `prefill`, `fork`, `step` and `keep`, and both agree with `generate` token for token
(tests/test_decoding.py).

Layout: prompts are left-padded, so that all rows share one clock: the distance from a row's newest
token to any cached position is the same in every row, and a sliding window is one slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from elicit.errors import UserError

ATTENTION_NAME = "elicit_shared_prefix"
FIRST_CAPACITY = 64
# The kernel behind scaled_dot_product_attention on a CPU: the only form of it that returns the log-sum-exp.
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


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


@contextmanager
def open_state(model: PreTrainedModel, max_new_tokens: int, *, shared: bool = True) -> Iterator[KVState]:
    """The shared-prefix state where the architecture allows it and it is wanted, else the model's own cache.

    The model's attention implementation is exchanged inside the context and put back after it.
    """
    if not shared or not supports_shared_prefix(model):
        yield PerRowState(model)
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(ATTENTION_NAME)
    try:
        yield SharedPrefixState(model, max_new_tokens)
    finally:
        model.set_attn_implementation(before)


def supports_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether every layer is plain or sliding softmax attention behind the attention interface."""
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        getattr(model, "_supports_attention_backend", False)
        and not config.is_encoder_decoder
        and kinds <= {"full_attention", "sliding_attention"}
        and not getattr(config, "num_kv_shared_layers", 0)
        and not any(name.endswith("sinks") for name, _ in model.named_parameters())
    )


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

    def prefix(self, layer: int) -> tuple[Tensor, Tensor]:
        """The prompts' keys and values of one layer, [questions, kv_heads, pos, d]."""
        entry = self.layers[layer]
        assert isinstance(entry, DynamicLayer) and entry.keys is not None and entry.values is not None
        return entry.keys, entry.values

    @property
    def prefix_length(self) -> int:
        return int(self.prefix(0)[0].shape[-2])

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.forked = True
        self.suffix = [None] * len(self.layers)
        self._group(question)
        if len(question) == len(self.prefix(0)[0]):
            self._one_row_each()

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
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows q heads dv"], None]:
    """The attention function registered with `transformers` as `elicit_shared_prefix`.

    Before the fork it is ordinary masked attention. After it, `key` and `value` are the rows' own
    tokens and the prompt's are read from `shared_prefix`.
    """
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    if shared_prefix is None or not shared_prefix.forked:
        if softcap is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scale, **kwargs)
        return _softcapped(query, key, value, attention_mask, scale, softcap), None

    cache, (rows, heads, _, d) = shared_prefix, query.shape
    kv_heads = key.shape[1]
    per_head = query.view(rows, kv_heads, heads // kv_heads, d)
    suffix_from = max(0, cache.length - sliding_window) if sliding_window else 0
    own = None if cache.suffix_mask is None else cache.suffix_mask[..., suffix_from : cache.length]
    out, lse = _partial(per_head, key[:, :, suffix_from:], value[:, :, suffix_from:], own, scale, softcap)

    prefix_from = max(0, cache.prefix_length + cache.length - sliding_window) if sliding_window else 0
    if prefix_from < cache.prefix_length:
        keys, values = cache.prefix(cache.layer)
        mask = None if cache.prefix_mask is None else cache.prefix_mask[..., prefix_from:]
        grouped = _to_grid(per_head, cache.grid, len(keys))
        prefix_out, prefix_lse = _partial(
            grouped, keys[:, :, prefix_from:], values[:, :, prefix_from:], mask, scale, softcap
        )
        prefix_out = _from_grid(prefix_out, cache.slot, rows, per_head.shape[2])
        prefix_lse = _from_grid(prefix_lse[..., None], cache.slot, rows, per_head.shape[2])
        share = torch.sigmoid(prefix_lse - lse[..., None])
        out = torch.lerp(out, prefix_out, share.to(out.dtype))
    return out.reshape(rows, 1, heads, out.shape[-1]), None


def _to_grid(
    x: Float[Tensor, "rows kv_heads group d"], grid: Tensor | None, questions: int
) -> Float[Tensor, "questions kv_heads width d"]:
    x = x if grid is None else x[grid]
    _, kv_heads, group, d = x.shape
    return x.view(questions, -1, kv_heads, group, d).transpose(1, 2).reshape(questions, kv_heads, -1, d)


def _from_grid(
    x: Float[Tensor, "questions kv_heads width d"], slot: Tensor | None, rows: int, group: int
) -> Float[Tensor, "rows kv_heads group d"]:
    questions, kv_heads, _, d = x.shape
    x = x.view(questions, kv_heads, -1, group, d).transpose(1, 2).reshape(-1, kv_heads, group, d)
    return x if slot is None else x[slot]


def _partial(
    query: Float[Tensor, "batch kv_heads q d"],
    key: Float[Tensor, "batch kv_heads k d"],
    value: Float[Tensor, "batch kv_heads k dv"],
    mask: Float[Tensor, "batch 1 1 k"] | None,
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


class SharedPrefixState:
    """`KVState` over a `SharedPrefixCache`."""

    def __init__(self, model: PreTrainedModel, max_new_tokens: int) -> None:
        self.model = model
        self.cache = SharedPrefixCache(max_new_tokens)
        self.next_position = torch.empty(0, dtype=torch.long)
        # A mask that is already four-dimensional is passed through: no mask is built at each step.
        self.no_mask = torch.zeros(1, 1, 1, 1, device=model.device)

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        logits, self.next_position = _prefill(self.model, ids, mask, self.cache, shared_prefix=self.cache)
        if not mask.all():
            self.cache.prefix_mask = torch.zeros(mask.shape, dtype=self.model.dtype, device=ids.device)
            self.cache.prefix_mask.masked_fill_(~mask, float("-inf"))
            self.cache.prefix_mask = self.cache.prefix_mask[:, None, None, :]
        return logits

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.cache.fork(question)
        self.next_position = self.next_position[question]

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.no_mask,
            position_ids=self.next_position[:, None],
            past_key_values=self.cache,
            use_cache=True,
            shared_prefix=self.cache,
        )
        self.next_position = self.next_position + 1
        return out.logits[:, -1]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        self.cache.keep(rows)
        self.next_position = self.next_position[rows]


class PerRowState:
    """`KVState` over the model's own cache: each row carries its prompt."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.cache: Cache = DynamicCache(config=model.config)
        self.mask = torch.empty(0)
        self.next_position = torch.empty(0, dtype=torch.long)

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        self.mask = mask.long()
        logits, self.next_position = _prefill(self.model, ids, mask, self.cache)
        if not all(hasattr(layer, "batch_select_indices") for layer in self.cache.layers):
            raise UserError(
                f"{type(self.model).__name__} keeps a state that cannot be copied for a branch; "
                "use a model whose cache holds keys and values"
            )
        return logits

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.keep(question)

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.next_position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.next_position = self.next_position + 1
        return out.logits[:, -1]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        for layer in self.cache.layers:
            layer.batch_select_indices(rows)  # type: ignore[union-attr]
        self.mask, self.next_position = self.mask[rows], self.next_position[rows]


def _prefill(
    model: PreTrainedModel,
    ids: Int[Tensor, "questions pos"],
    mask: Bool[Tensor, "questions pos"],
    cache: Cache,
    **extra: Any,
) -> tuple[Float[Tensor, "questions vocab"], Int[Tensor, " questions"]]:
    """Logits after each prompt and the position of the token that comes next."""
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    out = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        # As an index: a slice is a strided view, for which the output layer would copy its weights per question.
        logits_to_keep=torch.tensor([ids.shape[1] - 1], device=ids.device),
        **extra,
    )
    return out.logits[:, -1], positions[:, -1] + 1
