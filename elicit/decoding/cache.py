"""The state of a batch between two decoding steps: key-value caches for one prompt answered many times.

`SharedPrefixState` holds the keys and values of a prompt once, however many branches grow from it (see
`elicit.decoding.shared_prefix`), and each branch's own tokens in buffers that are written in place. `PerRowState` holds
the model's own cache, repeated for each branch: for architectures whose attention cannot be replaced (linear attention,
ALiBi, attention sinks, ...).

Both answer `prefill`, `fork`, `step` and `keep`, and both agree with `generate` token for token
(tests/decoding/test_decoding.py). `peek` computes the newest tokens again in several steered versions and leaves the
cache as it was (tests/decoding/test_hybrid.py).

Layout: prompts are left-padded, so that all rows share one clock: the distance from a row's newest
token to any cached position is the same in every row, and a sliding window is one slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from elicit.decoding.shared_prefix import ATTENTION_NAME, SharedPrefixCache, Tree
from probes.errors import UserError
from probes.sites import Site, on_site

SOFTMAX_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class Candidates:
    """Steered versions of the newest tokens of some rows.

    Args:
        rows: which rows.
        tokens: their last tokens, the newest last; anything before a row's first token.
        windows: how many of them each candidate computes again.
        delta: what each candidate adds, at each token of its window.
        site: where it is added.
    """

    rows: Int[Tensor, " rows"]
    tokens: Int[Tensor, "rows longest"]
    windows: tuple[int, ...]
    delta: Float[Tensor, "rows candidates d_model"]
    site: Site


class Peeked(NamedTuple):
    """What each candidate would say next, and how far its newest token was moved at the site (‖Δh‖ / ‖h‖)."""

    logits: Float[Tensor, "rows candidates vocab"]
    moved: Float[Tensor, "rows candidates"]


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

    def peek(self, candidates: Candidates) -> Peeked:
        """The next logits of steered versions of the newest tokens, in one forward; the state stays as it is."""
        ...


@contextmanager
def open_state(
    model: PreTrainedModel, max_new_tokens: int, *, shared: bool = True, peek: bool = False
) -> Iterator[KVState]:
    """The shared-prefix state where the architecture allows it and it is wanted, else the model's own cache.

    The model's attention implementation is exchanged inside the context and put back after it. `peek` says that
    `peek` will be asked for.

    Raises:
        UserError: a look ahead is wanted of a model that keeps a recurrent state.
    """
    if not shared or not supports_shared_prefix(model):
        yield PerRowState(model, whole=peek)
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
    return (
        getattr(model, "_supports_attention_backend", False)
        and not config.is_encoder_decoder
        and _layer_kinds(model) <= SOFTMAX_LAYERS
        and not getattr(config, "num_kv_shared_layers", 0)
        and not any(name.endswith("sinks") for name, _ in model.named_parameters())
    )


def _layer_kinds(model: PreTrainedModel) -> set[str]:
    config = model.config.get_text_config(decoder=True)
    return set(getattr(config, "layer_types", None) or ["full_attention"])


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

    def peek(self, candidates: Candidates) -> Peeked:
        held = self.next_position[candidates.rows]
        tree = Tree(self.cache, candidates.rows, candidates.windows, held)
        with _adding(self.model, candidates.site, candidates.delta[:, tree.candidate]) as moved:
            out = self.model(
                input_ids=candidates.tokens[:, -1 - tree.back],
                attention_mask=self.no_mask,
                position_ids=(held[:, None] - 1 - tree.back).clamp(min=0),
                past_key_values=tree,
                use_cache=True,
                logits_to_keep=tree.newest,
                tree=tree,
            )
        return Peeked(out.logits, moved[0][:, tree.newest])


class PerRowState:
    """`KVState` over the model's own cache: each row carries its prompt.

    With `whole`, sliding-window layers keep all tokens, which `peek` needs: it goes back behind the newest ones. A
    candidate is then a row of its own, with a copy of the cache: what the model does with positions and masks stays
    its own. All compute the longest window, and add nothing outside of theirs.
    """

    def __init__(self, model: PreTrainedModel, *, whole: bool = False) -> None:
        self.model = model
        others = _layer_kinds(model) - SOFTMAX_LAYERS
        if whole and others:
            raise UserError(
                f"{type(model).__name__} has layers of {', '.join(sorted(others))}, whose state cannot go back; "
                "use a model with softmax attention"
            )
        self.cache: Cache = DynamicCache() if whole else DynamicCache(config=model.config)
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

    def peek(self, candidates: Candidates) -> Peeked:
        if not all(type(layer) is DynamicLayer for layer in self.cache.layers):
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
        with _adding(self.model, candidates.site, delta.flatten(0, 1)) as moved:
            out = self.model(
                input_ids=candidates.tokens[:, -longest:].repeat_interleave(versions, 0),
                attention_mask=self.mask[row],
                position_ids=(self.next_position[row][:, None] - 1 - back).clamp(min=0),
                past_key_values=past,
                use_cache=True,
                logits_to_keep=torch.tensor([longest - 1], device=back.device),
            )
        return Peeked(out.logits.view(rows, versions, -1), moved[0][:, -1].view(rows, versions))


@contextmanager
def _adding(
    model: PreTrainedModel, site: Site, delta: Float[Tensor, "rows pos d_model"]
) -> Iterator[list[Float[Tensor, "rows pos"]]]:
    """Add to the activations of the forward inside; the list gets ‖Δh‖ / ‖h‖ of each position, as it was rounded."""
    moved: list[Tensor] = []

    def hook(h: Tensor) -> Tensor:
        new = h + delta.to(h)
        before = h.float()
        share = (new.float() - before).norm(dim=-1) / before.norm(dim=-1).clamp(min=1e-12)
        moved.append(share.to(delta.device))
        return new

    handle = on_site(model, site, hook)
    try:
        yield moved
    finally:
        handle.remove()


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
