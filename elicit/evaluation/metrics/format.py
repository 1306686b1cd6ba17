"""How numbers are written in tables: fractions in percent, differences with their sign, intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

FORWARDS = "forward passes"  # the head of a column


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def not_stated_cell(least: float) -> str:
    """In place of an accuracy of an arm that lost too many verdicts (`elicit.evaluation.metrics.verdicts`)."""
    return f"not stated ({percent(least)} or more)"


def with_interval(value: float, interval: Sequence[float], form: Callable[[float], str] = percent) -> str:
    return f"{form(value)} [{form(interval[0])}, {form(interval[1])}]"


def count(value: float | None) -> str:
    """A mean number of tokens; – where it is not known."""
    return "–" if value is None else f"{value:.0f}"


def weights(model: Mapping[str, str]) -> str:
    """A model's weights and how they are computed with; what was read from a log of another program has none."""
    return f"weights {model['sha256'][:12]}…, {model['dtype']}" if model["sha256"] else "weights not known"


def forwards_column(arms: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """Forward passes a question, as a column beside the tokens; None where that would say the same of every arm.

    Args:
        arms: with `tokens_per_item` and, but in runs made before they were counted, `forwards_per_item`.
    """
    counted = [arm.get("forwards_per_item") for arm in arms]
    cells = ["" if one is None else f"{one:.0f}" for one in counted]
    tokens = [count(arm["tokens_per_item"]) for arm in arms]
    same = all(one in ("", other) for one, other in zip(cells, tokens, strict=True))
    return None if same else cells


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
