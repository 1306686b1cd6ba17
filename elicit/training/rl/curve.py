"""What is kept of every update, and what is read from it: the saturation step, and how much went unused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from elicit.decoding.progress import Progress, measure

SATURATED = 0.95  # of the reward on the example
WIDTH = 24  # updates in the line that a terminal shows
BARS = "▁▂▃▄▅▆▇█"


class Point(NamedTuple):
    """One update.

    `mixed` is the fraction of groups with variance, `constant` the fraction of rollouts that give the most frequent
    answer; `low` and `high` are the smallest and largest ratio of a token, `clipped` the fraction of tokens without
    gradient; `sampler` is the mean |Δ log p| between the decoding loop and the loss (these three None where TRL
    trains); `held_out` has the score of each held-out item, and is None where nothing was checked (states that were
    written before items were kept have the fraction of right ones). `bits` are those of its rewards
    (`probes.description.reward_bits`), or None in states from before they were counted.
    """

    update: int
    reward: float
    accuracy: float
    entropy: float
    kl: float
    mixed: float
    constant: float
    low: float | None
    high: float | None
    clipped: float
    sampler: float | None
    loss: float
    norm: float
    tokens: int
    seconds: float
    held_out: list[float] | float | None = None
    bits: float | None = None

    @property
    def right(self) -> float | None:
        """The fraction of held-out items that are right."""
        return None if self.held_out is None else float(np.mean(self.held_out))


@runtime_checkable
class OnStep(Protocol):
    """A callback, called after each update with the whole curve so far."""

    def __call__(self, curve: Sequence[Point]) -> None: ...


def saturation(rewards: Sequence[float], level: float = SATURATED) -> int | None:
    """The first update from which on the reward stays at `level` or above; None if it does not."""
    below = [n for n, reward in enumerate(rewards) if reward < level]
    first = below[-1] + 1 if below else 0
    return first if first < len(rewards) else None


def summary(curve: Sequence[Point]) -> dict[str, Any]:
    """What a report says of a training; fractions after saturation where there is one."""
    at = saturation([p.reward for p in curve])
    after = curve[at:] if at is not None else []
    out: dict[str, Any] = {
        "updates": len(curve),
        "saturation": at,
        "last reward": curve[-1].reward,
        "last accuracy": curve[-1].accuracy,
        "groups without variance": 1 - float(np.mean([p.mixed for p in curve])),
        "constant answers": curve[-1].constant,
        "clipped": float(np.mean([p.clipped for p in curve])),
        "seconds": round(sum(p.seconds for p in curve), 1),
        "tokens": sum(p.tokens for p in curve),
    }
    bits = [p.bits for p in curve if p.bits is not None]
    if len(bits) == len(curve):
        out["bits of reward"] = sum(bits)
    apart = [p.sampler for p in curve if p.sampler is not None]
    if apart:
        out["sampler"] = float(np.mean(apart))
    if after:
        out["groups without variance after saturation"] = 1 - float(np.mean([p.mixed for p in after]))
        out["constant answers after saturation"] = float(np.mean([p.constant for p in after]))
    return out


def columns(curve: Sequence[Point], most: int = 400) -> dict[str, list[Any]]:
    """The curve as a table of columns, thinned to at most so many updates; NaN-free, for a run's record.

    `held out items` has a list a check: the score of each item, in their order.
    """
    chosen = [curve[i] for i in np.unique(np.linspace(0, len(curve) - 1, min(most, len(curve))).astype(int))]
    out: dict[str, list[Any]] = {
        name: [round(float(getattr(p, name)), 5) for p in chosen]
        for name in ("update", "reward", "accuracy", "entropy", "kl", "mixed", "constant", "clipped")
    }
    checked = [p for p in curve if p.held_out is not None]
    if checked:
        out["checked at"] = [float(p.update) for p in checked]
        out["held out"] = [round(p.right or 0.0, 5) for p in checked]
        if all(isinstance(p.held_out, list) for p in checked):
            out["held out items"] = [p.held_out for p in checked]
    return out


def line(curve: Sequence[Point]) -> str:
    """One line on the newest update for a terminal, with the rewards of the last ones as bars."""
    p = curve[-1]
    rewards = [q.reward for q in curve[-WIDTH:]]
    low, high = min([*rewards, 0.0]), max([*rewards, 1.0])
    bars = "".join(BARS[min(7, int(8 * (r - low) / (high - low)))] for r in rewards)
    held = next((q.right for q in reversed(curve) if q.right is not None), None)
    return (
        f"{bars} reward {p.reward:.2f}  accuracy {p.accuracy:.2f}  entropy {p.entropy:.2f}  mixed {p.mixed:.0%}"
        f"{'' if held is None else f'  held out {held:.2f}'}  {p.tokens / p.seconds:.0f} tokens/s"
    )


def telling(progress: Progress | None, name: str, updates: int, *, graded: bool = True) -> OnStep | None:
    """What is called after each update with the curve so far, and tells it; None where nobody listens.

    Args:
        progress: who listens.
        name: of the training.
        updates: of the whole of it.
        graded: whether rollouts have answers, of which a share is right.
    """
    if progress is None:
        return None
    told: list[int] = []

    def on_step(curve: Sequence[Point]) -> None:
        progress.training(name, len(curve), updates, line(curve))
        for point in curve if not told else curve[-1:]:  # what was kept before comes first
            values = {key: getattr(point, key) for key in ("loss", "reward", "kl", "entropy", "norm")}
            values |= {"accuracy": point.accuracy if graded else None, "held_out": point.right}
            measure(progress, name, point.update, values | {"tokens_per_second": point.tokens / point.seconds})
        told.append(len(curve))

    return on_step


def figure(table: dict[str, list[Any]], at: int | None) -> Any:
    """The training in one figure, with the saturation step marked."""
    import plotly.graph_objects as go

    from probes.figures import BLUE, GREEN, MUTED, ORANGE, RED, styled

    shown = (("reward", BLUE), ("accuracy", GREEN), ("mixed", ORANGE), ("constant", MUTED))
    made = go.Figure()
    for name, colour in shown:
        made.add_scatter(x=table["update"], y=table[name], mode="lines", name=name, line={"color": colour})
    if "held out" in table:
        made.add_scatter(
            x=table["checked at"], y=table["held out"], mode="lines+markers", name="held out", line={"color": RED}
        )
    made.add_scatter(
        x=table["update"], y=table["entropy"], mode="lines", name="entropy (nats, right)", yaxis="y2",
        line={"color": MUTED, "dash": "dot"},
    )  # fmt: skip
    if at is not None:
        made.add_vline(x=at, line={"color": RED, "dash": "dash"}, annotation_text=f"saturated at update {at}")
    made.update_layout(
        xaxis_title="update", yaxis_title="fraction", yaxis2={"overlaying": "y", "side": "right", "rangemode": "tozero"}
    )
    return styled(made)
