"""The state of a batch between two decoding steps, in one of several ways, the first of which is fastest.

- `shared-prefix`: `SharedPrefixState` holds the keys and values of a prompt once, however many branches grow from it
  (see `elicit.decoding.shared_prefix`), and each branch's own tokens in buffers that are written in place.
- `per-row`: `PerRowState` holds the model's own cache, repeated for each branch: for architectures whose attention
  cannot be replaced (linear attention, ALiBi, attention sinks, keys that are changed after the cache, ...).
- `equal-lengths`: the same, with prompts of one length together and nothing padded: for those that see padding.
- `uncached`: `UncachedState` computes whole rows at each step: for those whose cache does not do.

Which of them is right for a model is tried (`elicit.decoding.trial`). All answer `prefill`, `fork`, `step` and `keep`,
and agree with the model's own forward without a cache (tests/decoding/test_decoding.py, test_trial.py). `peek` computes
the newest tokens again in several steered versions and leaves the cache as it was (tests/decoding/test_hybrid.py).

Layout: prompts are left-padded, so that all rows share one clock: the distance from a row's newest
token to any cached position is the same in every row, and a sliding window is one slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from elicit.decoding.own_cache import SOFTMAX_LAYERS, PerRowState, UncachedState, layer_kinds
from elicit.decoding.shared_prefix import ATTENTION_NAME, SharedPrefixCache, Tree
from elicit.decoding.state import Candidates, KVState, Peeked, adding
from probes.clock import cache_argument
from probes.errors import unknown

WAYS = ("shared-prefix", "per-row", "equal-lengths", "uncached")
PADDED = frozenset(WAYS[:2])
FORWARD_TOKENS = 64  # of padding, beyond which one more forward on a CPU costs less


def ways(model: PreTrainedModel) -> tuple[str, ...]:
    """Ways that may do for a model, by its configuration; in their order."""
    return WAYS if supports_shared_prefix(model) else WAYS[1:]


@contextmanager
def open_state(
    model: PreTrainedModel,
    max_new_tokens: int,
    *,
    way: str | None = None,
    peek: bool = False,
    made: KVState | None = None,
) -> Iterator[KVState]:
    """The state of a batch that is decoded in a way, the first of `ways` unless one is given.

    The model's attention implementation is exchanged for `shared-prefix` inside the context and put back after it.
    `peek` says that `peek` will be asked for; `made` is a state of the way `shared-prefix` that is opened instead.

    Raises:
        UserError: an unknown way; a look ahead is wanted of a model that keeps a recurrent state; no cache to hold.
    """
    way = way or ways(model)[0]
    if way not in WAYS:
        raise unknown("way of decoding", way, WAYS)
    if way == "uncached":
        yield UncachedState(model)
    elif way != "shared-prefix":
        yield PerRowState(model, whole=peek, padded=way in PADDED)
    else:
        before = model.config._attn_implementation
        model.set_attn_implementation(ATTENTION_NAME)
        try:
            yield made or SharedPrefixState(model, max_new_tokens)
        finally:
            model.set_attn_implementation(before)


def supports_shared_prefix(model: PreTrainedModel) -> bool:
    """Whether every layer is plain or sliding softmax attention behind the attention interface."""
    config = model.config.get_text_config(decoder=True)
    return (
        getattr(model, "_supports_attention_backend", False)
        and not config.is_encoder_decoder
        and layer_kinds(model) <= SOFTMAX_LAYERS
        and not getattr(config, "num_kv_shared_layers", 0)
        and not any(name.endswith("sinks") for name, _ in model.named_parameters())
    )


class SharedPrefixState:
    """`KVState` over a `SharedPrefixCache`."""

    def __init__(self, model: PreTrainedModel, max_new_tokens: int) -> None:
        self.model, self.name = model, cache_argument(model)
        self.cache = SharedPrefixCache(max_new_tokens)
        self.next_position = torch.empty(0, dtype=torch.long)
        # A mask that is already four-dimensional is passed through: no mask is built at each step.
        self.no_mask = torch.zeros(1, 1, 1, 1, device=model.device)

    def prefill(
        self, ids: Int[Tensor, "questions pos"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        """As `KVState`; on a CPU in several forwards of prompts of similar length, where nobody has put a hook on the
        model, which would see the parts."""
        parts = [list(range(len(ids)))]
        if ids.device.type == "cpu" and not _hooked(self.model):
            parts = similar_lengths(mask.sum(-1).tolist(), FORWARD_TOKENS)
        if len(parts) == 1:
            logits = self.computed(ids, mask)
        else:
            logits, self.next_position = _prefill_parts(self.model, ids, mask, self.cache, parts)
        self.see(mask)
        return logits

    def computed(
        self, ids: Int[Tensor, "questions new"], mask: Bool[Tensor, "questions pos"]
    ) -> Float[Tensor, "questions vocab"]:
        """Logits after each prompt, in one forward of what the cache does not hold: the last columns of `mask`."""
        logits, self.next_position = _prefill(self.model, ids, mask, self.cache, shared_prefix=self.cache)
        return logits

    def see(self, mask: Bool[Tensor, "questions pos"]) -> None:
        """Let rows see these positions of the prompts alone."""
        if not mask.all():
            unseen = torch.zeros(mask.shape, dtype=self.model.dtype, device=mask.device)
            self.cache.prefix_mask = unseen.masked_fill_(~mask, float("-inf"))[:, None, None, :]

    def fork(self, question: Int[Tensor, " rows"]) -> None:
        self.cache.fork(question)
        self.next_position = self.next_position[question]

    def step(self, tokens: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        out = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.no_mask,
            position_ids=self.next_position[:, None],
            use_cache=True,
            shared_prefix=self.cache,
            **{self.name: self.cache},
        )
        self.next_position = self.next_position + 1
        return out.logits[:, -1]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        self.cache.keep(rows)
        self.next_position = self.next_position[rows]

    def peek(self, candidates: Candidates) -> Peeked:
        held = self.next_position[candidates.rows]
        tree = Tree(self.cache, candidates.rows, candidates.windows, held)
        with adding(self.model, candidates.site, candidates.delta[:, tree.candidate]) as moved:
            out = self.model(
                input_ids=candidates.tokens[:, -1 - tree.back],
                attention_mask=self.no_mask,
                position_ids=(held[:, None] - 1 - tree.back).clamp(min=0),
                use_cache=True,
                logits_to_keep=tree.newest,
                tree=tree,
                **{self.name: tree},
            )
        return Peeked(out.logits, moved[0][:, tree.newest])


def _prefill(
    model: PreTrainedModel,
    ids: Int[Tensor, "questions new"],
    mask: Bool[Tensor, "questions pos"],
    cache: Cache,
    **extra: Any,
) -> tuple[Float[Tensor, "questions vocab"], Int[Tensor, " questions"]]:
    """Logits after each prompt and the position of the token that comes next; `ids` are those that the cache does not
    hold, in the last columns of `mask`."""
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=positions,
        use_cache=True,
        # As an index: a slice is a strided view, for which the output layer would copy its weights per question.
        logits_to_keep=torch.tensor([ids.shape[1] - 1], device=ids.device),
        **{cache_argument(model): cache},
        **extra,
    )
    return out.logits[:, -1], positions[:, -1] + 1


def _prefill_parts(
    model: PreTrainedModel,
    ids: Int[Tensor, "questions pos"],
    mask: Bool[Tensor, "questions pos"],
    cache: SharedPrefixCache,
    parts: list[list[int]],
) -> tuple[Float[Tensor, "questions vocab"], Int[Tensor, " questions"]]:
    """As `_prefill`, each part padded to its own longest prompt."""
    found: list[tuple[Tensor, Tensor]] = []
    whole: dict[int, tuple[Tensor, Tensor]] = {}
    for part in parts:
        start = ids.shape[1] - int(mask[part].sum(-1).max())
        own = DynamicCache()
        found.append(_prefill(model, ids[part, start:], mask[part, start:], own))
        for index, layer in enumerate(own.layers):
            assert isinstance(layer, DynamicLayer)
            if layer.keys is None or layer.values is None:
                continue
            if index not in whole:
                shapes = [(len(ids), x.shape[1], ids.shape[1], x.shape[3]) for x in (layer.keys, layer.values)]
                whole[index] = layer.keys.new_zeros(shapes[0]), layer.values.new_zeros(shapes[1])
            whole[index][0][part, :, start:], whole[index][1][part, :, start:] = layer.keys, layer.values
    for index in sorted(whole):
        cache.update(*whole[index], index)
    order = torch.tensor([number for part in parts for number in part]).argsort()
    return torch.cat([logits for logits, _ in found])[order], torch.cat([following for _, following in found])[order]


def similar_lengths(lengths: Sequence[int], forward: int) -> list[list[int]]:
    """Numbers of the rows in parts, each padded to its longest row, so that padding and forwards cost least.

    Args:
        lengths: of the rows, in tokens.
        forward: what one more part costs, in tokens.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    costs, starts = [0], [0]  # of the first rows in their best parts, and where the last of these begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        cost, start = min((costs[start] + forward + (end - start) * longest, start) for start in range(end))
        costs.append(cost)
        starts.append(start)
    parts: list[list[int]] = []
    end = len(order)
    while end:
        parts.insert(0, sorted(order[starts[end] : end]))
        end = starts[end]
    return parts


def _hooked(model: PreTrainedModel) -> bool:
    """Whether anybody looks at the model's forwards."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


__all__ = [
    "PADDED",
    "WAYS",
    "Candidates",
    "KVState",
    "Peeked",
    "PerRowState",
    "SharedPrefixState",
    "UncachedState",
    "open_state",
    "similar_lengths",
    "supports_shared_prefix",
    "ways",
]
