"""Is one example enough for reinforcement learning, and does the score of others rise once the example is solved?

Confirmed, by intervals over questions that hold together with 95%:

1. enough: over the fits, each on another example with another seed, more questions are right than under direct; more
   than after the same training on a format reward; and the gain is left when answers that are the example's own count
   for nothing; the intervals are over fits and questions;
2. afterwards: from the first check after the example is solved (the mean reward of three updates is at least 0.9) to
   the last, the fraction of right dev items rises.

Ten points are of interest. The same dev items are checked each time, so the rise is paired by item. Where part 1 holds
and the example is not solved early enough for two checks, or so many dev items are right by then that even all of them
would be no rise for certain, part 2 cannot be tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from elicit.evaluation import Run
from elicit.evaluation.metrics.format import with_interval
from elicit.methods.one_shot_rlvr.decomposition import copied
from experiments.claims.base import Finding, Study
from experiments.claims.rules import Condition, Judgement
from experiments.claims.trained import RLVR, example_of, means, points, rewarded, scores, trained
from probes.dots import Dot, whiskers
from probes.figures import BLUE, GREEN, MUTED, ORANGE, RED, styled
from probes.statistics import Interval, bootstrap_mean, over_seeds, proportion_interval

SOLVED, SMOOTH = 0.9, 3
LEVELS = {"direct": MUTED, "format reward": ORANGE, "cot-prompt": GREEN}


class Rise(NamedTuple):
    """Held-out accuracy at the first check after the example is solved, at the last one, and what lies between; `room`
    is whether all items right at the last check would be a rise for certain."""

    at: int
    first: float
    last: float
    change: Interval
    room: bool


def measure(study: Study) -> Finding:
    runs = study.compared(["direct", "cot-prompt", RLVR])
    first, example = runs[RLVR], example_of(runs[RLVR])
    fits = {f"{example}, seed {study.seed}": first}
    pool = [row["item"] for row in first.metrics["options"]["found"]["pool"]]
    for n, other in enumerate([item for item in pool if item != example][: study["fits"] - 1], 1):
        handle = trained(study, RLVR, example=other, seed=study.seed + n)
        fits[f"{other}, seed {study.seed + n}"] = study.evaluated(handle, {}, "example")
    form = rewarded(study, "format", example)
    longer = trained(study, RLVR, example=example, updates=study["after"], check_every=study["every"],
                     check=study["check"])  # fmt: skip
    curve, looked_at = longer.options["found"]["curve"], min(study["check"], len(study.task().dev))
    read = enough([scores(r) for r in fits.values()], scores(runs["direct"]), scores(form),
                  [own_answers(r) for r in fits.values()], seed=study.seed)  # fmt: skip
    rise = after(curve, looked_at)
    judged = decided(read, rise)
    arms = {**{name: runs[name] for name in ("direct", "cot-prompt")}, "format reward": form, **fits}
    line = "; ".join(f"{name} {points(*one)} points" for name, one in read.items())
    if rise is not None:
        line += f"; dev items {rise.first:.0%} after update {rise.at}, {rise.last:.0%} at the last"
        line += f" ({points(rise.last - rise.first, rise.change)} points)"
    return Finding(
        judged, line, [_row(name, run, runs["direct"], study.seed) for name, run in arms.items()],
        _figure(curve, looked_at, rise, {name: arms[name] for name in LEVELS}),
        ["Intervals of the line hold together; those of the table one by one. The format reward pays for an equation "
         "that is written out, right or wrong.",
         f"The longer training checks {looked_at} dev items every {study['every']} updates; its change after the "
         f"example is solved is {'paired by item' if 'held out items' in curve else 'read as that of two samples'}.",
         "No checkpoint was chosen: evaluated is what the last update left."],
        {"enough": {n: {"value": v, "interval": i.pair} for n, (v, i) in read.items()},
         "rise": None if rise is None else rise._asdict(), "curve": curve},
        [*runs.values(), form, *fits.values()],
    )  # fmt: skip


def own_answers(run: Run) -> Bool[np.ndarray, " items"]:
    """Whether the answer to each question is the example's own."""
    return copied(run, run.metrics["method"], run.metrics["options"]["found"]["answers"])


def enough(
    truth: Sequence[Float[np.ndarray, " items"]],
    direct: Float[np.ndarray, " items"],
    form: Float[np.ndarray, " items"],
    copies: Sequence[Bool[np.ndarray, " items"]],
    *,
    seed: int = 0,
) -> dict[str, tuple[float, Interval]]:
    """What part 1 reads, over fits and questions."""
    every = np.stack(truth)
    own = np.stack([(one - direct) * ~copy for one, copy in zip(truth, copies, strict=True)])
    values = {"gain over direct": every - direct, "over a format reward": every - form, "gain without copies": own}
    confidence = 1 - 0.05 / len(values)
    return {name: (float(v.mean()), over_seeds(v, seed=seed, confidence=confidence)) for name, v in values.items()}


def after(curve: Mapping[str, Sequence[Any]], check: int) -> Rise | None:
    """What part 2 reads; None where fewer than two checks lie after the example is solved.

    Of a training that kept no scores by item, the interval is that of two samples (Newcombe's), which is wider.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    reward = np.convolve(curve["reward"], np.ones(SMOOTH) / SMOOTH, mode="valid")
    solved = np.flatnonzero(reward >= SOLVED)
    checks = list(zip(curve["checked at"], curve["held out"], strict=True))
    later = [c for c in checks if len(solved) and c[0] >= curve["update"][solved[0] + SMOOTH - 1]]
    if len(later) < 2:
        return None
    (at, first), (_, last) = later[0], later[-1]

    if "held out items" in curve:
        by_item = dict(zip(curve["checked at"], map(np.array, curve["held out items"]), strict=True))
        solved_at = by_item[at]
        rise, most = bootstrap_mean(by_item[later[-1][0]] - solved_at), bootstrap_mean(1 - solved_at)
        return Rise(int(at), first, last, rise, most.low > 0)

    def change(right: int) -> Interval:
        ends = confint_proportions_2indep(
            right, check, round(first * check), check, method="newcomb", compare="diff"
        )  # fmt: skip
        return Interval(*map(float, ends))

    return Rise(int(at), first, last, change(round(last * check)), change(check).low > 0)


def decided(read: Mapping[str, tuple[float, Interval]], rise: Rise | None) -> Judgement:
    """The conditions; without a check after the example is solved there is nothing to see of the rise."""
    nan = float("nan")
    later = (nan, Interval(nan, nan)) if rise is None else (rise.last - rise.first, rise.change)
    room = rise is not None and rise.room
    return Judgement((
        *(Condition(name, *one, together=len(read)) for name, one in read.items()),
        Condition("others rise after the example is solved", *later, room=room),
    ))  # fmt: skip


def _row(name: str, run: Run, direct: Run, seed: int) -> dict[str, Any]:
    arm, found = run.metrics["arms"][run.metrics["method"]], run.metrics["options"].get("found")
    (gain,) = means({name: scores(run) - scores(direct)}, seed=seed).values()
    return {
        "arm": name, "right [95%]": with_interval(arm["accuracy"], arm["interval"]),
        "gain over direct [95%]": points(*gain), "tokens": f"{arm['tokens_per_item']:.0f}",
        "the example's answer": "–" if found is None else f"{own_answers(run).mean():.0%}",
        "last reward": "–" if found is None else f"{found['summary']['last reward']:.2f}",
    }  # fmt: skip


def _figure(curve: Mapping[str, Sequence[float]], check: int, rise: Rise | None, levels: Mapping[str, Run]) -> Any:
    held = [Dot(h, *proportion_interval(round(h * check), check).pair) for h in curve["held out"]]
    figure = go.Figure()
    figure.add_scatter(x=curve["update"], y=curve["reward"], mode="lines", name="reward on the example",
                       line={"color": BLUE})  # fmt: skip
    figure.add_scatter(x=curve["checked at"], y=curve["held out"], error_y=whiskers(held), mode="lines+markers",
                       name="right on dev items", line={"color": RED})  # fmt: skip
    ends = [curve["update"][0], curve["update"][-1]]
    for name, run in levels.items():
        level = run.metrics["arms"][run.metrics["method"]]["accuracy"]
        figure.add_scatter(x=ends, y=[level] * 2, mode="lines", name=f"{name} (test)",
                           line={"color": LEVELS[name], "dash": "dot"})  # fmt: skip
    if rise is not None:
        figure.add_vline(x=rise.at, line={"color": MUTED, "dash": "dash"}, annotation_text="solved")
    figure.update_layout(title="One example and others", xaxis_title="update", yaxis_title="fraction")
    return styled(figure)
