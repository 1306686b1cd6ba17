"""Analyses by name, grouped by what they are a question about: behaviour, reasoning, internals.

Each is a module with `NAME`, `SUMMARY`, `PAPER` and `analyse` (`elicit.analysis.base.Analyser` says more). One of a
model is `analyse(model, **options) -> Analysis`; one of runs is `analyse(runs, **options) -> Analysis`, with finished
runs, which it opens through `elicit.evaluation.run.arms` where it needs their handles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from elicit.analysis.base import PROGRESS, SAMPLES, Analyser, Analysis, load, plain, save
from elicit.analysis.behaviour import (
    bits_to_elicit,
    convergence,
    correction_harm,
    distribution_shift,
    format_share,
    pass_at_k,
    reflection,
    routing,
    saved_steps,
    where_it_acts,
)
from elicit.analysis.internals import (
    activation_pca,
    convergence_shift,
    influence,
    layer_sweep,
    layers,
    linear_probes,
    logit_lens,
    patching,
    weight_difference,
)
from elicit.analysis.reasoning import commitment, corrupted_traces, faithfulness, information_gain, thought_anchors
from elicit.evaluation.metrics.verdicts import not_stated
from elicit.evaluation.run.run import Run
from elicit.models.model import Model
from probes.errors import UserError, unknown
from probes.given import described

ANALYSES: dict[str, Analyser] = {}


def register(module: ModuleType) -> Analyser:
    """Make a module an analysis like any other: by name, on the command line and in reports.

    The same module may be registered again, after it was reloaded.

    Raises:
        ValueError: an attribute lacks or does not fit (`elicit.analysis.base.Analyser`), or the name is another's.
    """
    one = Analyser.of(module)
    held = ANALYSES.get(one.name)
    if held is not None and held.module is not module:
        raise ValueError(f"two analyses are called {one.name!r}: {held.module.__name__} and {module.__name__}")
    ANALYSES[one.name] = one
    return one


for _module in (
    *(pass_at_k, convergence, correction_harm, format_share, reflection, where_it_acts, distribution_shift, routing),
    bits_to_elicit,
    *(information_gain, commitment, faithfulness, thought_anchors, corrupted_traces),
    *(logit_lens, layer_sweep, patching, activation_pca, convergence_shift, linear_probes, layers),
    *(weight_difference, influence, saved_steps),
):
    register(_module)


def get(name: str) -> Analyser:
    if name not in ANALYSES:
        raise unknown("analysis", name, ANALYSES)
    return ANALYSES[name]


def options_of(name: str) -> dict[str, Any]:
    """The options of an analysis with their defaults."""
    return get(name).options


def check_options(name: str, options: Iterable[str]) -> None:
    """Refuse an option that the analysis does not have."""
    known = options_of(name)
    for key in options:
        if key not in known:
            raise UserError(f"{name} takes no --{key}; it takes {', '.join(f'--{k}' for k in known)}")


def takes_runs(name: str) -> bool:
    """Whether an analysis is of runs; else it is of a model."""
    return get(name).takes_runs


def of_samples() -> list[str]:
    """The analyses that read samples of runs alone: every report has them."""
    return [name for name, one in ANALYSES.items() if one.reads == SAMPLES]


def analyse(name: str, subject: Model | Sequence[Run], **options: Any) -> Analysis:
    """Run an analysis by name, of a model or of runs. A note is added where a run states no accuracy of an arm.

    Raises:
        UserError: an unknown name or option, or the other kind of subject than the analysis takes.
    """
    check_options(name, (key for key in options if key != PROGRESS))
    if takes_runs(name) == isinstance(subject, Model):
        raise UserError(f"{name} is an analysis of {'runs' if takes_runs(name) else 'a model'}; give that")
    if not isinstance(subject, Model):
        check_runs(subject)
    result = get(name).analyse(subject, **options)
    lost = [] if isinstance(subject, Model) else [why for run in subject if (why := _not_stated(run))]
    return replace(result, notes=[*result.notes, *dict.fromkeys(lost)])


def check_runs(subject: Any) -> None:
    """Refuse what is no list of runs.

    Raises:
        UserError: it, or what is among them.
    """
    if not isinstance(subject, Sequence) or isinstance(subject, str):
        raise UserError(f"{described(subject)} was given; give a list of runs, like [Run.load('runs/a')]")
    for one in subject:
        if not isinstance(one, Run):
            raise UserError(f"{described(one)} was given among the runs; give Run.load('runs/a')")


def _not_stated(run: Run) -> str:
    """Why a run states no accuracy of some arm, which analyses count as they are; or ""."""
    arms = run.metrics["arms"]
    why = not_stated(arms, len(arms[run.metrics["method"]]["scores"]))
    return f"{run.folder}: {why} Here they count as incorrect." if why else ""


__all__ = [
    "ANALYSES",
    "Analyser",
    "Analysis",
    "analyse",
    "check_options",
    "get",
    "load",
    "of_samples",
    "options_of",
    "plain",
    "register",
    "save",
    "takes_runs",
]
