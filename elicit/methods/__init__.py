"""The registry of methods: mechanisms and baselines, each a module with `fit` and `controls`.

A method takes a model and the items it may look at, and returns an `Elicited`. Evaluation cannot tell
which method made a handle.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods import cot_decoding, critique_ft, one_shot_rlvr, sae_steer, vector_transfer
from elicit.methods.baselines import cot_prompt, direct, self_consistency
from elicit.models.model import Model
from elicit.tasks.base import Items
from probes.errors import UserError, unknown
from probes.finite import told_of

_MODULES = (cot_decoding, sae_steer, vector_transfer, critique_ft, one_shot_rlvr, direct, cot_prompt, self_consistency)
METHODS: dict[str, ModuleType] = {m.NAME: m for m in _MODULES}
BASELINES: tuple[str, ...] = (direct.NAME, cot_prompt.NAME, self_consistency.NAME)
MECHANISMS: tuple[str, ...] = tuple(name for name in METHODS if name not in BASELINES)


def get(name: str) -> ModuleType:
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def lacking(model: str) -> dict[str, str]:
    """The methods that do not run on a model without being told more, and what each lacks."""
    return {n: m.missing(model) for n, m in METHODS.items() if hasattr(m, "missing") and m.missing(model)}


def options_of(name: str) -> dict[str, Any]:
    """The options of a method with their defaults."""
    return {p.name: p.default for p in _keywords(name)}


def _keywords(name: str) -> list[inspect.Parameter]:
    parameters = inspect.signature(get(name).fit).parameters.values()
    return [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def quick_of(name: str) -> dict[str, Any]:
    """The settings of a method's short fit (its `QUICK`): minutes on two cores, enough to see its effect."""
    return dict(getattr(get(name), "QUICK", {}))


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that the method does not have, or whose value is of another type than its default."""
    known = {p.name: p for p in _keywords(name)}
    for key, value in options.items():
        if key not in known:
            raise unknown(f"option of {name}", key, known)
        if not _fits(value, known[key]):
            default = known[key].default
            raise UserError(
                f"option {key} = {value!r} was given to {name}; expected {type(default).__name__}, like {default!r}"
            )


def _fits(value: Any, option: inspect.Parameter) -> bool:
    """Of the default's type; a whole number for a float, a function where the method takes one."""
    if callable(value):
        return "Callable" in str(option.annotation)
    if isinstance(option.default, float) and type(value) is int:
        return True
    return isinstance(value, type(option.default)) and isinstance(value, bool) == isinstance(option.default, bool)


def fit(
    name: str, model: Model, items: Items | None = None, progress: Progress | None = None, **options: Any
) -> Elicited:
    """Fit a method by name.

    Raises:
        UserError: an unknown method or option.
    """
    check_options(name, options)
    with told_of(name):
        handle: Elicited = get(name).fit(model, items, progress, **options)
    return handle


def control(name: str, model: Model, items: Items | None, options: Mapping[str, Any]) -> Elicited:
    """A baseline by name, or with `@budget` its form that spends a given number of tokens.

    It takes over those of the mechanism's options that it has too (prompt, limit, seed).
    """
    base, matched, rest = name.partition(MATCHED)
    module = get(base)
    shared = {k: v for k, v in options.items() if k in options_of(base)}
    if not matched:
        handle: Elicited = module.fit(model, items, **shared)
        return handle
    if rest or not hasattr(module, "matched"):
        with_budget = [n + MATCHED for n, m in METHODS.items() if hasattr(m, "matched")]
        raise unknown("baseline", name, with_budget)
    handle = module.matched(model, items, **shared)
    return handle


def beside(handle: Elicited, items: Items, names: str | Sequence[str], seed: int = 0) -> dict[str, Elicited]:
    """Baselines by name, for a handle: with its prompt and its limit of tokens; its own name stands for itself.

    Args:
        handle: what they are put beside.
        items: what it is evaluated on; baselines with shots take them from the items' task.
        names: `direct`, `cot-prompt`, `self-consistency`, each also `@budget`; one, or several, a repeated one once.
        seed: of samplers.

    Raises:
        UserError: an unknown name.
    """
    options = {
        **{k: v for k, v in handle.options.items() if k == "prompt"},
        "max_new_tokens": handle.decoder.max_new_tokens,
        "seed": seed,
    }
    distinct = dict.fromkeys([names] if isinstance(names, str) else names)
    return {n: control(n, handle.model, items.task.solved, options) for n in distinct if n != handle.method}


__all__ = [
    "BASELINES",
    "MATCHED",
    "MECHANISMS",
    "METHODS",
    "beside",
    "check_options",
    "control",
    "fit",
    "get",
    "lacking",
    "options_of",
    "quick_of",
]
