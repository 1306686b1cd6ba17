"""What an analysis returns, and what several of them need: tokens of a text, last-token activations of a task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from elicit.models.model import Model
from elicit.models.prompts import Prompt, named_prompt
from elicit.tasks import load_task
from elicit.tasks.base import Item
from probes.capture import capture
from probes.errors import UserError
from probes.offsets import decoded
from probes.sites import Site
from probes.statistics import Interval


@dataclass(frozen=True, eq=False)
class Analysis:
    """A result with its picture.

    Args:
        name: of the analysis.
        table: rows, each a dict of column to value.
        figure: the main figure.
        notes: what a reader must know, a sentence each.
        data: all numbers, as JSON can hold them.
        more: further figures: (heading, explanation, figure).
    """

    name: str
    table: list[dict[str, Any]]
    figure: go.Figure
    notes: list[str]
    data: dict[str, Any]
    more: list[tuple[str, str, go.Figure]] = field(default_factory=list)


def plain(value: Any) -> Any:
    """What JSON can hold of a result; NaN is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: float, interval: Interval | None = None) -> str:
    """A number with its interval, as a table's cell."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval is not None else "")


def with_left_out(rows: list[dict[str, Any]], left_out: Mapping[str, str]) -> list[dict[str, Any]]:
    """The rows of a table, and a row for each arm to which the analysis does not apply, with the reason.

    The first column names the arm, and the last is its reading.
    """
    first, *_, last = rows[0]
    empty = dict.fromkeys(rows[0], "–")
    return [*rows, *({**empty, first: name, last: f"does not apply: {why}"} for name, why in left_out.items())]


def token_ids(model: Model, text: str) -> list[int]:
    """A text's tokens, special ones as the tokenizer adds them.

    Raises:
        UserError: no text, or more than the model has positions.
    """
    if not text.strip():
        raise UserError("an empty prompt was given; give a prompt with text")
    ids = [int(i) for i in model.tokenizer(text)["input_ids"]]  # type: ignore[union-attr]
    _check_length(model, len(ids))
    return ids


def one_token(model: Model, text: str) -> int:
    """The token that a text is.

    Raises:
        UserError: it is none or several.
    """
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:  # type: ignore[arg-type]
        pieces = ", ".join(repr(model.tokenizer.decode([i])) for i in ids)  # type: ignore[union-attr]
        raise UserError(
            f"the answer {text!r} is {len(ids)} tokens ({pieces}); give one token, often a word with a space before it"  # type: ignore[arg-type]
        )
    return int(ids[0])  # type: ignore[index]


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


def halves(count: int, seed: int) -> np.ndarray:
    """Which of so many items are for fitting: a random half, [count] of bool."""
    fit = np.zeros(count, dtype=bool)
    fit[np.random.default_rng(seed).permutation(count)[: count // 2]] = True
    return fit


def last_activations(
    model: Model, prompts: Sequence[Sequence[int]], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "prompts d_model"]]:
    """Activations at each prompt's last token, fp32 on the CPU."""
    for ids in prompts:
        _check_length(model, len(ids))
    acts = capture(model.lm, prompts, sites, last=1, dtype=torch.float32)
    assert acts is not None
    order = acts.row.argsort()
    return {site: acts.values[site][order] for site in sites}
