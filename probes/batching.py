"""Ragged token ids as left-padded batches: the newest token of every row stands in the last column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import UserError


class Padded(NamedTuple):
    """A left-padded batch; `mask` is false, and `positions` 0, where there is padding."""

    ids: Int[Tensor, "rows pos"]
    mask: Bool[Tensor, "rows pos"]
    positions: Int[Tensor, "rows pos"]


def left_pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Padded:
    """Pad rows of token ids at their left."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        ids[row, longest - len(tokens) :] = torch.tensor(list(tokens))
        mask[row, longest - len(tokens) :] = True
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    return Padded(ids.to(device), mask.to(device), positions.to(device))


def check_embedded(
    lm: PreTrainedModel, texts: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Refuse a token that the model has no row for: a tokenizer may have got tokens that the weights lack.

    Raises:
        UserError: the token is named.
    """
    embedding: Any = lm.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None) or len(embedding.weight)
    beyond = max(map(max, texts))
    if beyond >= rows:
        name, size = "a token", ""
        if tokenizer is not None:
            name, size = (
                repr(tokenizer.convert_ids_to_tokens(beyond)),
                f"its tokenizer has {len(tokenizer)} tokens and ",
            )
        raise UserError(
            f"a text holds {name} (id {beyond}), {size}the model has {rows} embeddings; leave the token out, or give "
            "the weights that belong to this tokenizer"
        )


def by_length(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, the longest first, of at most so many tokens (but at least a row)."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // len(rows[order[start]]))
        yield order[start : start + count]
        start += count
