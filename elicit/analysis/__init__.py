"""Analyses by name: each a module with `NAME`, `SUMMARY`, `PAPER` and `analyse`.

One of a model is `analyse(model, **options) -> Analysis`; one of runs is `analyse(runs, **options) -> Analysis`, with
finished runs, which it opens through `elicit.evaluation.run.arms` where it needs their handles.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from elicit.analysis.base import Analysis, plain
from elicit.analysis.behaviour import (
    convergence,
    correction_harm,
    distribution_shift,
    format_share,
    pass_at_k,
    reflection,
    routing,
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
from elicit.evaluation.run.run import Run
from elicit.models.model import Model
from probes.errors import UserError, unknown


def registry(modules: Iterable[ModuleType]) -> dict[str, ModuleType]:
    """The modules by name.

    Raises:
        ValueError: two of one name.
    """
    out: dict[str, ModuleType] = {}
    for module in modules:
        if module.NAME in out:
            raise ValueError(f"two analyses are called {module.NAME!r}")
        out[module.NAME] = module
    return out


ANALYSES = registry(
    (
        *(logit_lens, layer_sweep, patching, activation_pca),
        *(pass_at_k, convergence, correction_harm, format_share, reflection, where_it_acts),
        *(distribution_shift, routing),
        *(information_gain, commitment, faithfulness, thought_anchors, convergence_shift, linear_probes),
        *(layers, weight_difference, corrupted_traces, influence),
    )
)


def get(name: str) -> ModuleType:
    if name not in ANALYSES:
        raise unknown("analysis", name, ANALYSES)
    return ANALYSES[name]


def options_of(name: str) -> dict[str, Any]:
    """The options of an analysis with their defaults."""
    parameters = inspect.signature(get(name).analyse).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "progress"}


def check_options(name: str, options: Iterable[str]) -> None:
    """Refuse an option that the analysis does not have."""
    known = options_of(name)
    for key in options:
        if key not in known:
            raise UserError(f"{name} takes no --{key}; it takes {', '.join(f'--{k}' for k in known)}")


def takes_runs(name: str) -> bool:
    """Whether an analysis is of runs; else it is of a model."""
    return "runs" in inspect.signature(get(name).analyse).parameters


def analyse(name: str, subject: Model | Sequence[Run], **options: Any) -> Analysis:
    """Run an analysis by name, of a model or of runs.

    Raises:
        UserError: an unknown name or option, or the other kind of subject than the analysis takes.
    """
    check_options(name, (key for key in options if key != "progress"))
    if takes_runs(name) == isinstance(subject, Model):
        raise UserError(f"{name} is an analysis of {'runs' if takes_runs(name) else 'a model'}; give that")
    result: Analysis = get(name).analyse(subject, **options)
    return result


__all__ = ["ANALYSES", "Analysis", "analyse", "check_options", "get", "options_of", "plain", "registry", "takes_runs"]
