"""What a policy that chooses its mode is rewarded for, and how often it takes each mode, update by update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elicit.decoding.progress import Progress, measure
from elicit.methods.thinkless.control_tokens import ControlTokens
from elicit.training.rl.curve import OnStep, Point, telling
from elicit.training.rl.log import LOG, read_log
from elicit.training.rl.rewards import RewardContext, Rollout
from probes.errors import as_expected

ONE_MODE = 0.95  # of the rollouts, from which on a policy has one mode alone
LAST = 4  # the part of the updates, the last ones, in which that is asked: one in so many
SHORT, THINK, NEITHER = "short", "think", "neither"


@dataclass(frozen=True)
class ModeReward:
    """1 for a right answer in the short mode, 1 − γ for one after thought, −1 for a wrong one (arXiv 2505.13379,
    section 3.2), and for one that begins with neither token."""

    tokens: ControlTokens
    gamma: float

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        worth = {self.tokens.short: 1.0, self.tokens.think: 1.0 - self.gamma}
        return [worth.get(r.tokens[0], -1.0) if r.tokens and r.score >= 1 else -1.0 for r in rollouts]


class Modes:
    """How often each mode was taken in each update, from the log of a training; read on as that grows."""

    def __init__(self, folder: Path, tokens: ControlTokens) -> None:
        self.file, self.names = folder / LOG, {tokens.short: SHORT, tokens.think: THINK}
        self.read = 0
        self.rows: dict[int, list[tuple[str, bool, int]]] = {}

    def update(self) -> None:
        """Read what was written since."""
        if not self.file.is_file():
            return
        for found in read_log(self.file.parent, self.read, sum(map(len, self.rows.values()))):
            with as_expected(repr(str(self.file)), "train again into another folder"):
                tokens = list(found["tokens"])
                mode = self.names.get(tokens[0], NEITHER) if tokens else NEITHER
                self.rows.setdefault(int(found["update"]), []).append((mode, found["score"] >= 1, len(tokens)))
        self.read = self.file.stat().st_size

    def rate(self, update: int, mode: str) -> float:
        """The fraction of an update's rollouts that took this mode."""
        return sum(row[0] == mode for row in self.rows[update]) / len(self.rows[update])

    def curve(self) -> dict[str, list[Any]]:
        """As columns: the update; of its rollouts the fraction of each mode; of each mode the fraction that was right
        and the mean number of tokens, −1 where it was not taken."""
        self.update()
        out: dict[str, list[Any]] = {"update": sorted(self.rows)}
        for mode in (SHORT, THINK, NEITHER):
            some = [[row for row in self.rows[n] if row[0] == mode] for n in out["update"]]
            out[mode] = [self.rate(n, mode) for n in out["update"]]
            out[f"{mode} right"] = [float(np.mean([right for _, right, _ in of])) if of else -1.0 for of in some]
            out[f"{mode} tokens"] = [float(np.mean([tokens for *_, tokens in of])) if of else -1.0 for of in some]
        return out


def collapsed(curve: Mapping[str, Sequence[Any]]) -> str:
    """The mode that at least 95% of rollouts took in each of the last quarter of updates; "" where there is none."""
    last = max(1, len(curve["update"]) // LAST)
    return next((mode for mode in (SHORT, THINK) if min(curve[mode][-last:], default=0.0) >= ONE_MODE), "")


def watching(progress: Progress | None, name: str, updates: int, modes: Modes) -> OnStep | None:
    """As `elicit.training.rl.curve.telling`, and how often the newest update thought."""
    inner = telling(progress, name, updates)
    if inner is None:
        return None
    told: set[int] = set()

    def on_step(curve: Sequence[Point]) -> None:
        inner(curve)
        modes.update()
        for update in sorted(modes.rows.keys() - told):
            told.add(update)
            measure(progress, name, update, {THINK: modes.rate(update, THINK)})

    return on_step


def figure(curves: Mapping[str, Mapping[str, Sequence[Any]]]) -> Any:
    """The fraction of rollouts that think, by update, of one training or of several by name."""
    import plotly.graph_objects as go

    from probes.figures import BLUE, GREEN, ORANGE, styled

    made = go.Figure()
    for (name, curve), colour in zip(curves.items(), (BLUE, ORANGE, GREEN), strict=False):
        made.add_scatter(x=curve["update"], y=curve[THINK], mode="lines+markers", name=name, line={"color": colour})
    made.update_layout(xaxis_title="update", yaxis_title="fraction that thinks", yaxis_range=[-0.02, 1.02])
    return styled(made)
