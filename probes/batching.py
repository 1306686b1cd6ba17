"""Ragged token ids as padded batches; at the left, the newest token of every row stands in the last column."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from probes.errors import UserError
from probes.sites import decoder, paused, width

BATCH_TOKENS = 2048
# Elsewhere than on a CPU, where the kernels of a small batch take longer to start than to run,
DEVICE_BATCH_TOKENS = 1 << 14
DEVICE_BATCH_BYTES = 256 << 20  # unless more than this is read of a batch.
LONG, SHORT = 9, 4  # tokens of the texts with which padding is tried
# How far activations may be off beside a longer text, by rounding; those that see padding are off by a tenth and more.
SAME_FULL, SAME_HALF = 1e-3, 0.08


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


def right_pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Int[Tensor, "rows pos"]:
    """Ids of rows, padded at their right, where no token of a causal model sees what follows it."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(list(tokens))
    return ids.to(device)


def check_embedded(
    lm: PreTrainedModel, texts: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Refuse a token that the model has no row for: a tokenizer may have got tokens that the weights lack, and −1 or
    −100 stands for none.

    Raises:
        UserError: the token is named.
    """
    embedding: Any = lm.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None) or len(embedding.weight)
    if (least := min(map(min, texts))) < 0:
        raise UserError(f"a text holds the token id {least}; give ids from 0 to {rows - 1}")
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


def by_length(rows: Sequence[Sequence[int]], batch_tokens: int, *, ragged: bool = True) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, the longest first, of at most so many tokens (but at least a row);
    unless `ragged`, of one length."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    start = 0
    while start < len(order):
        longest = len(rows[order[start]])
        count = max(1, batch_tokens // longest)
        batch = order[start : start + count]
        yield batch if ragged else [i for i in batch if len(rows[i]) == longest]
        start += len(batch) if ragged else sum(len(rows[i]) == longest for i in batch)


def tokens_together(lm: PreTrainedModel, sites: int) -> int:
    """How many tokens of a batch go well on a model's device, where so many sites are read."""
    if lm.device.type == "cpu":
        return BATCH_TOKENS
    read = DEVICE_BATCH_BYTES // (sites * width(lm) * lm.dtype.itemsize)
    return max(BATCH_TOKENS, min(DEVICE_BATCH_TOKENS, read))


def inputs(lm: PreTrainedModel, rows: Sequence[Sequence[int]] | Padded) -> dict[str, Tensor]:
    """What a model is given of these rows: ids alone where nothing is padded, else mask and positions as well.

    Where nothing is padded, mask and positions are left to a model that is not known to read them as given.
    """
    ids, mask, positions = rows if isinstance(rows, Padded) else left_pad(rows, lm.device)
    if _UNSEEN.get(lm) is False:
        return {"input_ids": ids}
    return {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}


def may_be_ragged(lm: PreTrainedModel, rows: Sequence[Sequence[int]]) -> bool:
    """Whether rows of several lengths give in one batch what each gives alone; not tried where there is one length."""
    return len(set(map(len, rows))) > 1 and padding_is_unseen(lm)


def batchable(lm: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Row numbers that one forward may take together: all, or those of each length where padding is seen."""
    if may_be_ragged(lm, rows):
        return [list(range(len(rows)))]
    return [[i for i, row in enumerate(rows) if len(row) == length] for length in dict.fromkeys(map(len, rows))]


def trial_vocab(lm: PreTrainedModel) -> int:
    """The ids below this are in every model's embedding: at most 64."""
    embedding: Any = lm.get_input_embeddings()
    return max(2, min(64, len(embedding.weight)))


def trial_texts(lm: PreTrainedModel, shorter: int = SHORT) -> list[list[int]]:
    """Two texts with which a model is tried, of `LONG` and of `shorter` tokens."""
    few = trial_vocab(lm)
    return [[(7 * i + 3) % few for i in range(LONG)], [(5 * i + 2) % few for i in range(shorter)]]


_UNSEEN: weakref.WeakKeyDictionary[PreTrainedModel, bool] = weakref.WeakKeyDictionary()


@torch.no_grad()
def padding_is_unseen(lm: PreTrainedModel) -> bool:
    """Whether a text's activations are the same beside a longer one, left-padded: tried once with the model itself.

    Padding is seen where it enters a recurrent state or a convolution, where positions are counted by the model
    itself, and where a mask is made from tokens alone.
    """
    if lm not in _UNSEEN:
        texts = trial_texts(lm)
        run = decoder(lm)
        ids, mask, positions = left_pad(texts, lm.device)
        with paused(lm):
            beside = run(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False)[0][1]
            beside, alone = beside[-SHORT:], run(input_ids=ids[1:, -SHORT:], use_cache=False)[0][0]
        if not (beside.isfinite().all() and alone.isfinite().all()):
            return True  # whoever asks will meet it
        off = (beside.float() - alone.float()).norm(dim=-1) / alone.float().norm(dim=-1).clamp(min=1e-6)
        fine = torch.finfo(beside.dtype).bits > 16
        _UNSEEN[lm] = bool(off.max() < (SAME_FULL if fine else SAME_HALF))
    return _UNSEEN[lm]
