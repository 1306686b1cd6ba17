"""What the claims on trainings share: the options that `Study.compared` fits with, other rewards on the same example,
and means over questions whose intervals hold together.

A fit lies under a hash of all that decides it: what one claim has trained, another one finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.evaluation.metrics.format import signed, with_interval
from elicit.evaluation.metrics.gap import scores_of
from elicit.methods import fit, one_shot_rlvr
from elicit.methods.compare import SharedOptions
from elicit.models import Model
from experiments.claims.base import Study
from probes.statistics import Interval, bootstrap_mean

RLVR = one_shot_rlvr.NAME
# Rewards that know nothing of the truth, by short names: what they change in the method's options.
SPURIOUS = dict(
    zip(("format", "random", "random-several", "entropy"), one_shot_rlvr.SPURIOUS.values(), strict=True)
)  # fmt: skip
LONG = dict(zip(SPURIOUS, one_shot_rlvr.SPURIOUS, strict=True))


def options(study: Study, name: str) -> dict[str, Any]:
    """The options with which `Study.compared` fits a method."""
    return SharedOptions(max_new_tokens=study["max_new_tokens"], seed=study.seed, quick=study.quick).options(name)


def trained(study: Study, name: str, model: Model | None = None, **changed: Any) -> Elicited:
    """A method fitted as `Study.compared` fits it but for what is changed, on the model under study or another."""
    model = model or study.model
    told = ", ".join(f"{key} {value}" for key, value in changed.items())
    study.log(f"{name} on {model.name}: fitting with {told}")
    return fit(name, model, study.task(model.name).solved, study.progress, **{**options(study, name), **changed})


def rewarded(study: Study, reward: str, example: str, model: Model | None = None) -> Run:
    """The run of a spurious reward on the same example, trained whatever its pre-flight says."""
    handle = trained(study, RLVR, model, **SPURIOUS[reward], example=example, checked=False)
    return study.evaluated(handle, {}, f"reward-{reward}")


def example_of(run: Run) -> str:
    """The example that a run of `one-shot-rlvr` was trained on."""
    return ",".join(run.metrics["options"]["found"]["examples"])


def scores(run: Run) -> Float[np.ndarray, " items"]:
    """Of the method under test."""
    return scores_of(run.metrics, run.metrics["method"])


def means(
    values: Mapping[str, Float[np.ndarray, " items"]], *, together: int = 0, seed: int = 0
) -> dict[str, tuple[float, Interval]]:
    """Each mean with its interval over questions; with 95% all of them hold (Bonferroni).

    Args:
        values: by name, question by question.
        together: how many intervals are to hold at once; as many as there are values unless given.
        seed: of the bootstrap.
    """
    confidence = 1 - 0.05 / (together or len(values))
    return {
        name: (float(one.mean()), bootstrap_mean(one, seed=seed, confidence=confidence)) for name, one in values.items()
    }


def points(value: float, interval: Interval) -> str:
    """A difference in points of accuracy with its interval."""
    return with_interval(value, interval.pair, signed)
