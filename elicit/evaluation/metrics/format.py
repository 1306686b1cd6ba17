"""How numbers are written in tables: fractions in percent, differences with their sign, intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def with_interval(value: float, interval: Sequence[float], form: Callable[[float], str] = percent) -> str:
    return f"{form(value)} [{form(interval[0])}, {form(interval[1])}]"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
