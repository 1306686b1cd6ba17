"""Do rewards that know nothing of the truth work where the skill lies latent, and only there?

Confirmed, by intervals over questions that hold together with 95% on each model:

1. at least one spurious reward gains over direct on the model;
2. none gains anything of interest over direct on its twin without the skill;
3. each that gains on the model gains more there than on the twin, question by question.

Ten points are of interest.

Where the true reward gains nothing on the model at the same settings, nothing can be told from rewards that know less:
not testable. A random reward that is strictly on-policy (`random`) meets no bound of the ratio, through which it is
said to act; with several updates a rollout (`random-several`) it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from elicit.evaluation import Run
from elicit.models import Model
from experiments.claims.base import Finding, Study
from experiments.claims.rules import HOLDS, Condition, Judgement, absent, either, lead
from experiments.claims.trained import LONG, RLVR, SPURIOUS, example_of, means, points, rewarded, scores
from probes.dots import Dot, dot_plot
from probes.errors import unknown
from probes.statistics import Interval

Gains = Mapping[str, Float[np.ndarray, " items"]]
Read = Mapping[str, tuple[float, Interval]]
TRUE = "true reward"


class Both(NamedTuple):
    """Each spurious reward's gain on the model, on its twin, and the first less the second."""

    here: Read
    twin: Read
    apart: Read


def measure(study: Study) -> Finding:
    names = [name.strip() for name in study["rewards"].split(",")]
    for name in names:
        if name not in SPURIOUS:
            raise unknown("spurious reward", name, SPURIOUS)
    runs = study.compared(["direct", RLVR])
    twin = study.load(study["twin"])
    plain = study.compared(["direct"], model=twin)["direct"]
    example = example_of(runs[RLVR])
    here = {name: rewarded(study, name, example) for name in names}
    there = {name: rewarded(study, name, example, twin) for name in names}
    gains = [{n: scores(run) - scores(base) for n, run in some.items()}
             for some, base in ((here, runs["direct"]), (there, plain))]  # fmt: skip
    (truth,) = means({TRUE: scores(runs[RLVR]) - scores(runs["direct"])}, seed=study.seed).values()
    read = summarised(*gains, seed=study.seed)
    judged = decided(truth, read, scores(runs["direct"]), study.seed)
    nothing = Dot(float("nan"))
    figure = dot_plot(
        [TRUE, *(LONG[name] for name in names)],
        {"gain on the model": [_dot(truth), *(_dot(read.here[name]) for name in names)]},
        nulls={f"null: gain on {twin.name}": [nothing, *(_dot(read.twin[name]) for name in names)]},
        title="Rewards that know nothing of the truth", x="gain over direct, fraction of questions",
    )  # fmt: skip
    table = [{"reward": TRUE, "gain [95%]": points(*truth), "on the twin": "–", "the first less the second": "–",
              **_training(runs[RLVR])}]  # fmt: skip
    table += [{"reward": LONG[n], "gain [95%]": points(*read.here[n]), "on the twin": points(*read.twin[n]),
               "the first less the second": points(*read.apart[n]), **_training(here[n])} for n in names]  # fmt: skip
    shown = ", ".join(f"{LONG[n]} {points(*read.here[n])}, on the twin {points(*read.twin[n])}" for n in names)
    return Finding(
        judged, f"{TRUE} {points(*truth)}; {shown} points", table, figure,
        [f"All were trained on {example} with the same settings; intervals hold together over the rewards.",
         _directs(runs["direct"], plain, study.model, twin)],
        {"true": {"value": truth[0], "interval": truth[1].pair}, **{
            part: {n: {"value": v, "interval": i.pair} for n, (v, i) in some.items()}
            for part, some in read._asdict().items()
        }},
        [*runs.values(), plain, *here.values(), *there.values()],
    )  # fmt: skip


def summarised(here: Gains, twin: Gains, *, seed: int = 0) -> Both:
    """Gains by question on the model and on its twin."""
    apart = {name: here[name] - twin[name] for name in here}
    return Both(means(here, seed=seed), means(twin, seed=seed), means(apart, seed=seed))


def decided(truth: tuple[float, Interval], read: Both, direct: Float[np.ndarray, " items"], seed: int = 0) -> Judgement:
    """The conditions; `direct`: scores on the model, which say what room there is."""
    together = len(read.here)
    best = lead("", np.ones(len(direct)), direct, together=together, seed=seed)
    here = {
        name: Condition(f"{LONG[name]} gains on the model", *one, together=together, room=best.interval.low > 0)
        for name, one in read.here.items()
    }
    decides = either(list(here.values()))
    works = [name for name, one in here.items() if one.outcome == HOLDS or one is decides]
    return Judgement(
        (
            decides,
            *(absent(f"{LONG[name]} on the twin", *one, together=together) for name, one in read.twin.items()),
            *(Condition(f"{LONG[name]} gains more than on the twin", *read.apart[name], together=together)
              for name in works),
        ),
        () if truth[1].low > 0 else ("even the true reward gains nothing at these settings",),
    )  # fmt: skip


def _dot(read: tuple[float, Interval]) -> Dot:
    return Dot(read[0], *read[1].pair)


def _training(run: Run) -> dict[str, str]:
    after = run.metrics["options"]["found"]["summary"]
    return {"held back by a bound": f"{after['clipped']:.1%}", "last reward": f"{after['last reward']:.2f}"}


def _directs(here: Run, there: Run, model: Model, twin: Model) -> str:
    shares = [f"{scores(run).mean():.0%} of {one.name}" for run, one in ((here, model), (there, twin))]
    return f"Right by direct: {' and '.join(shares)}."
