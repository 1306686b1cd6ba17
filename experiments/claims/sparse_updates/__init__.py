"""Does reinforcement learning leave most weights as they were, and is that its own doing?

All weights are trained on one example, with the true reward and with a random one, equally long. Confirmed: in a
reading that is no rounding to bf16 (exactly, |Δ| ≤ 1e-5, or |Δ| ≤ 1e-3 |θ|) at least 70% of the weights are unchanged
by the true reward, more than by a dense change of the same norm, and more than by the random reward. Both differences
by their 95% intervals over weight matrices (ten points are of interest): all weights are counted, and what could have
come out otherwise is which matrices a network has. Not testable: a training that gained nothing, on the questions, by
its interval.

Against it speaks a share that is large only after rounding to bf16, or as large with the random reward or in the null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from elicit.analysis.internals import weight_difference
from elicit.analysis.internals.weight_difference import READINGS
from elicit.evaluation import Run
from elicit.methods import direct
from elicit.methods.one_shot_rlvr.example_selection import choose
from elicit.models import Prompt, load_model
from elicit.models.identity import grounds
from elicit.models.zoo import WHOLE
from elicit.tasks.base import Items
from elicit.training.rl.loop import Trained, train
from elicit.training.rl.settings import Settings
from experiments.claims.base import Finding, Study
from experiments.claims.rules import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, UNDECIDED, Condition, Judgement, lead
from experiments.claims.trained import points, scores
from probes.dots import Dot, dot_plot
from probes.files import digest
from probes.statistics import Interval, resampled_means

REWARDS = {"true reward": "exact", "random reward": "random:0.5"}
LEAST, ROUNDED = 0.7, "bf16"
Tensors = Mapping[str, Mapping[str, Any]]


class Reading(NamedTuple):
    """A fraction of unchanged weights, and by how much it exceeds the dense null's and the random reward's."""

    share: float
    null: float
    random: float
    over_null: Interval
    over_random: Interval

    def conditions(self, name: str) -> tuple[Condition, ...]:
        """That few weights change; the fraction itself is counted and has no interval."""
        exact = Interval(self.share, self.share)
        return (
            Condition(f"unchanged {name}", self.share, exact, LEAST, LEAST),
            Condition(
                f"unchanged {name}, less a dense change of the same norm", self.share - self.null, self.over_null
            ),
            Condition(f"unchanged {name}, less the random reward", self.share - self.random, self.over_random),
        )


def measure(study: Study) -> Finding:
    settings = Settings(
        updates=study["updates"], rollouts=study["rollouts"], max_new_tokens=study["rollout_tokens"], lr=study["lr"],
        rank=0, part=8, seed=study.seed,
    )  # fmt: skip
    items = choose(study.model, study.task().solved, settings, pool=study["pool"], prompt=Prompt()).items
    made = {name: _trained(study, items, replace(settings, reward=reward)) for name, reward in REWARDS.items()}
    runs = {name: _evaluated(study, name, one) for name, one in made.items()}
    before = study.compared(["direct"])["direct"]
    found = weight_difference.analyse(
        list(runs.values()), base=study["model"], ranks=False, seed=study.seed, progress=study.told
    )
    kept = [found.data["differences"][name]["tensors"] for name in REWARDS]
    read = {name: summarised(*kept, name, seed=study.seed) for name in READINGS}
    learnt = lead("", scores(runs["true reward"]), scores(before), seed=study.seed)
    judged = decided(read, learnt.interval)
    learned = ", ".join(
        f"{name}: {one.curve[0].reward:.2f} to {one.curve[-1].reward:.2f} on the example, "
        f"{scores(before).mean():.0%} to {scores(runs[name]).mean():.0%} of questions right"
        for name, one in made.items()
    )  # fmt: skip
    figure = dot_plot(
        [READINGS[name] for name in read], {"true reward": [Dot(one.share) for one in read.values()]},
        nulls={"null: dense change of the same norm": [Dot(one.null) for one in read.values()],
               "null: random reward": [Dot(one.random) for one in read.values()]},
        reference=LEAST, title="Weights left as they were", x="fraction of all weights",
    )  # fmt: skip
    table = [
        {"reading": READINGS[name], "unchanged": f"{one.share:.1%}", "dense null": f"{one.null:.1%}",
         "random reward": f"{one.random:.1%}", "less the null [95%]": points(one.share - one.null, one.over_null),
         "less the random reward [95%]": points(one.share - one.random, one.over_random)}
        for name, one in read.items()
    ]  # fmt: skip
    shared = next(iter(found.data["overlaps"].values()))
    line = "; ".join(f"{READINGS[n]} {one.share:.1%} (dense null {one.null:.1%}, random reward {one.random:.1%})"
                     for n, one in read.items())  # fmt: skip
    return Finding(
        judged, f"unchanged {line}", table, figure,
        [f"{learned}.", f"Overlap of the two trainings: {weight_difference.overlap_said(shared)}.",
         f"{items[0].id}; all weights in fp32, {settings.updates} updates at {settings.lr:g} (Adam moves a weight by "
         "at most about that in each, so the rate and the number of updates decide what a tolerance hides)."],
        {name: one._asdict() for name, one in read.items()}, [before, *runs.values()],
    )  # fmt: skip


def _trained(study: Study, items: Items, settings: Settings) -> Trained:
    decides = [settings.kept(), study.model.provenance.sha256, study.model.dtype]
    mark = digest([*decides, grounds(items, [study.model])])
    study.log(f"reward {settings.reward}: training all weights")

    def on_step(curve: Sequence[Any]) -> None:
        study.progress.training(f"reward {settings.reward}", len(curve), settings.updates, f"{curve[-1].reward:.2f}")

    folder = study.runs / "claims" / f"whole-{mark}"
    return train(
        study.model, items, settings, folder, prompt=Prompt(), checked=settings.reward == "exact", on_step=on_step
    )


def _evaluated(study: Study, name: str, made: Trained) -> Run:
    model = load_model(str(made.folder / WHOLE), dtype=study["dtype"])
    handle = replace(direct.fit(model, max_new_tokens=study["max_new_tokens"]), method=name)
    return study.evaluated(handle, {}, name.replace(" ", "-"))


def summarised(true: Tensors, random: Tensors, reading: str, *, seed: int = 0) -> Reading:
    """Fractions over all weights of one reading, and their differences with intervals over matrices."""
    n = np.array([one["n"] for one in true.values()], dtype=float)
    share, null = (np.array([one[key] for one in true.values()]) for key in (reading, f"null_{reading}"))
    other = np.array([random[name][reading] for name in true])

    def over(values: np.ndarray) -> Interval:
        drawn = resampled_means(np.stack([n * values, n], axis=1), seed=seed)
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
        return Interval(float(low), float(high))

    whole = [float(n @ one / n.sum()) for one in (share, null, other)]
    return Reading(whole[0], whole[1], whole[2], over(share - null), over(share - other))


def decided(read: Mapping[str, Reading], gain: Interval) -> Judgement:
    """The conditions of the reading that decides; `gain`: of the true reward in accuracy."""
    unmet = () if gain.low > 0 else ("the training with the true reward gained nothing",)
    each = [Judgement(one.conditions(READINGS[name]), unmet) for name, one in read.items() if name != ROUNDED]
    order = (CONFIRMED, UNDECIDED, NOT_TESTABLE, NOT_CONFIRMED)
    return min(each, key=lambda one: (order.index(one.verdict), -one.conditions[0].value))
