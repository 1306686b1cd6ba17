"""A training over its updates: what it had at each saving, evaluated on the same items, with the score of each item.

arXiv 2504.20571 finds that accuracy on other questions rises for a thousand updates after the one example is solved
(post-saturation generalisation). Each saved step (`save_every` of `critique-ft` and `one-shot-rlvr`) is a handle, so
all of them, and the same handle untrained as step 0, are arms of one run on the items of the given run: it resumes as
any run does, and what was evaluated once is read. Differences are paired by item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from elicit.analysis.base import Analysis, in_turn, shown
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.run.arms import folder_names, handle_of, model_of
from elicit.evaluation.run.run import Run
from elicit.training.saved import saved_steps
from probes.dots import Dot, whiskers
from probes.errors import UserError
from probes.figures import styled
from probes.inert import label
from probes.statistics import bootstrap_mean, proportion_interval
from probes.sweep import COLOURS

NAME = "saved-steps"
SUMMARY = "accuracy on the same items at each saved step of a training, item by item, and after the example is solved"
PAPER = "2504.20571"


def analyse(
    runs: Sequence[Run],
    *,
    batch_rows: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Evaluate the saved steps of each run's training on the run's own items.

    Args:
        runs: of methods that train, with `save_every`; on one model.
        batch_rows: answers decoded together; 0: as evaluations do.

    Raises:
        UserError: no run; one whose training saved nothing.
    """
    if not runs:
        raise UserError("no run was given; give folders of finished runs")
    table: list[dict[str, Any]] = []
    data: dict[str, Any] = {"runs": {}}
    figure = go.Figure()
    notes = ["Update 0 is the same handle untrained; differences are to it, paired by item. One training, one seed."]
    folders = folder_names(runs)
    for place, run in enumerate(in_turn("runs", runs, progress)):
        name = run.metrics["method"] if len(runs) == 1 else folders[run]
        steps = _steps(run)
        made = _evaluated(run, steps, batch_rows)
        arms = made.metrics["arms"]
        items = list(arms[_arm(0)]["scores"])
        scores = {step: np.array([arms[_arm(step)]["scores"][item] for item in items]) for step in steps}
        found = run.metrics["options"]["found"]
        rewards, saturated = _rewards(found), found.get("summary", {}).get("saturation")
        dots = {step: _accuracy(scores[step]) for step in steps}
        for step in steps:
            gained = scores[step] - scores[0]
            table.append({
                "training": name, "update": step, "accuracy [95%]": _cell(dots[step]),
                "difference to 0 [95%]": shown(float(gained.mean()), bootstrap_mean(gained, bounds=(-1.0, 1.0))),
                "reward on the example": shown(_reward_at(rewards, step)),
            })  # fmt: skip
        if saturated is not None:
            notes.append(f"{name}: {_after(scores, saturated)}")
        _draw(figure, name, COLOURS[place % len(COLOURS)], dots, rewards, saturated)
        data["runs"][name] = {
            "run": str(made.folder), "saturation": saturated,
            "accuracy": {step: list(dot) for step, dot in dots.items()},
            "scores": {item: {step: scores[step][n] for step in steps} for n, item in enumerate(items)},
        }  # fmt: skip
    figure.update_layout(xaxis_title="updates", yaxis_title="fraction", yaxis_range=[0, 1.02])
    return Analysis(NAME, table, styled(figure), notes, data)


def _arm(step: int) -> str:
    return f"update {step}"


def _steps(run: Run) -> dict[int, Elicited]:
    """The handle of a run untrained, and after each number of updates that was saved."""
    handle = handle_of(run, model_of([run]))
    return {0: replace(handle, adapter=None), **saved_steps(handle)}


def _evaluated(run: Run, steps: Mapping[int, Elicited], batch_rows: int) -> Run:
    """All steps as arms of one run, on the items of the given one."""
    arms = {_arm(step): replace(handle, method=_arm(step)) for step, handle in steps.items()}
    last, *others = reversed(arms)
    main = replace(arms[last], method=NAME)
    return evaluate(
        main,
        run.store.items(),
        against={last: arms[last], **{name: arms[name] for name in others}},
        seed=run.metrics["seed"],
        batch_rows=batch_rows or None,
    )


def _rewards(found: Mapping[str, Any]) -> dict[int, float]:
    """The mean reward of the rollout of each update that is kept: of a long training not of all.

    Empty where the training is not reinforcement learning.
    """
    curve = found.get("curve")
    if not isinstance(curve, dict):
        return {}
    return {int(update) + 1: reward for update, reward in zip(curve["update"], curve["reward"], strict=True)}


def _reward_at(rewards: Mapping[int, float], step: int) -> float:
    """Beside a saving after n updates the reward of the n-th, or of the last one before it that is kept; else NaN."""
    return rewards[max(before)] if (before := [n for n in rewards if n <= step]) else float("nan")


def _accuracy(scores: Float[np.ndarray, " items"]) -> Dot:
    interval = proportion_interval(int((scores >= 1.0).sum()), len(scores))
    return Dot(float((scores >= 1.0).mean()), interval.low, interval.high)


def _cell(dot: Dot) -> str:
    return f"{dot.value:.3f} [{dot.low:.3f}, {dot.high:.3f}]"


def _after(scores: Mapping[int, Float[np.ndarray, " items"]], saturated: int) -> str:
    """What came after the example was solved, in words."""
    after = [step for step in scores if step > saturated]
    if len(after) < 2:
        return f"solved from update {saturated} on; fewer than two saved steps lie after it: nothing is said of them."
    gained = scores[after[-1]] - scores[after[0]]
    return (
        f"solved from update {saturated} on; from update {after[0]} to {after[-1]} accuracy changes by "
        f"{shown(float(gained.mean()), bootstrap_mean(gained, bounds=(-1.0, 1.0)))}."
    )


def _draw(
    figure: go.Figure,
    name: str,
    colour: str,
    dots: Mapping[int, Dot],
    rewards: Mapping[int, float],
    saturated: int | None,
) -> None:
    figure.add_scatter(
        x=list(dots), y=[dot.value for dot in dots.values()], error_y=whiskers(list(dots.values())),
        mode="lines+markers", name=f"{label(name)}: right", line={"color": colour},
    )  # fmt: skip
    if rewards:
        figure.add_scatter(
            x=list(rewards), y=list(rewards.values()), mode="lines", name=f"{label(name)}: reward on the example",
            line={"color": colour, "dash": "dot"},
        )  # fmt: skip
    if saturated is not None:
        figure.add_vline(x=saturated, line={"color": colour, "dash": "dash"}, annotation_text="solved")
