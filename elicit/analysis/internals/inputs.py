"""How texts become inputs of a model: token ids, contrasts, the last positions of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from elicit.decoding.continuing import continuing_ids
from elicit.models.model import Model
from elicit.models.prompts import Prompt, named_prompt
from elicit.tasks.base import Item
from elicit.tasks.registry import load_task
from probes.capture import capture
from probes.encoding import encoded
from probes.errors import UserError
from probes.offsets import decoded
from probes.sites import STREAM, Site


def token_ids(model: Model, text: str) -> list[int]:
    """A text's tokens, special ones as the tokenizer adds them.

    Raises:
        UserError: no text, or more than the model has positions.
    """
    if not text.strip():
        raise UserError("an empty prompt was given; give a prompt with text")
    ids = encoded(model.tokenizer, text)
    _check_length(model, len(ids))
    return ids


def one_token(model: Model, text: str) -> int:
    """The token that a text is behind others.

    Raises:
        UserError: it is none or several.
    """
    ids = continuing_ids(model.tokenizer, text)
    if len(ids) != 1:
        pieces = ", ".join(repr(model.tokenizer.decode([i])) for i in ids)
        raise UserError(
            f"the answer {text!r} is {len(ids)} tokens ({pieces}); give one token, often a word with a space before it"
        )
    return ids[0]


def piece(model: Model, token: int) -> str:
    """A token's text; a part of a character as the vocabulary spells it."""
    text = decoded(model.tokenizer, [token])
    return text if "\ufffd" not in text else str(model.tokenizer.convert_ids_to_tokens(token))


def _check_length(model: Model, count: int) -> None:
    config: Any = model.lm.config
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions is not None and count > positions:
        raise UserError(f"a prompt of {count} tokens was given; {model.name} has {positions} positions")


def contrast(model: Model, names: Sequence[str]) -> tuple[tuple[str, Prompt], tuple[str, Prompt]]:
    """Two prompts to compare, direct and with thoughts, by name.

    Args:
        names: both; or one, whose partner is the same with the trigger for thoughts; or none: the chat template's
            pair where the tokenizer has one, else qa and qa-cot.
    """
    if len(names) > 2:
        raise UserError(f"{len(names)} prompts were given; give the names of two to compare, or of one")
    if not names:
        names = ("chat-direct", "chat-cot") if model.tokenizer.chat_template else ("qa", "qa-cot")
    first = named_prompt(names[0], model.tokenizer)
    if len(names) == 1:
        return (names[0], first), (f"{names[0]} + thoughts", first.thinking())
    if names[0] == names[1]:
        raise UserError(f"prompt {names[0]!r} was given twice; give two that differ")
    return (names[0], first), (names[1], named_prompt(names[1], model.tokenizer))


def items_of(task: str, split: str, limit: int) -> Sequence[Item]:
    """The first items of a task's split."""
    if limit < 8:
        raise UserError(f"a limit of {limit} items was given; give at least 8, half to fit and half to test")
    items = load_task(task, limit=None if split == "all" else limit).split(split)[:limit]
    if len(items) < 8:
        raise UserError(f"task {task!r} has {len(items)} items in {split}; an analysis needs at least 8")
    found: Sequence[Item] = items
    return found


def last_activations(
    model: Model, prompts: Sequence[Sequence[int]], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "prompts d_model"]]:
    """Activations at each prompt's last token, fp32 on the CPU.

    Raises:
        UserError: a prompt longer than the model's positions, a site that has no vector a token.
    """
    if any(site.point not in STREAM for site in sites):
        raise UserError(f"point = 'pattern' was given, which has no vector a token; give one of {', '.join(STREAM)}")
    for ids in prompts:
        _check_length(model, len(ids))
    acts = capture(model.lm, prompts, sites, last=1, dtype=torch.float32)
    assert acts is not None
    order = acts.row.argsort()
    return {site: acts.values[site][order] for site in sites}
