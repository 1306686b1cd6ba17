"""The registry of methods: mechanisms and baselines, each a module with `fit` and `controls`.

A method takes a model and the items it may look at, and returns an `Elicited`. Evaluation cannot tell
which method made a handle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from elicit.decoding.progress import Progress
from elicit.elicited import HANDLE, ITEMS, Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods import (
    backward_reasoning,
    budget_forcing,
    cognitive_tools,
    cot_decoding,
    critique_ft,
    dpo_teacher,
    no_thinking,
    one_shot_rlvr,
    power_sampling,
    quiet_star,
    rlp,
    sae_steer,
    thinkless,
    vector_transfer,
)
from elicit.methods.base import Method
from elicit.methods.baselines import cot_prompt, direct, self_consistency
from elicit.models.model import Model
from elicit.tasks.base import Items
from probes.errors import UserError, unknown
from probes.finite import errors_of
from probes.given import WHOLE, described, takes

METHODS: dict[str, Method] = {}
AGAINST = "give names of baselines like 'direct', or handles by name: {'name': handle}"


def register(module: ModuleType) -> Method:
    """Make a module a method like any other: by name on the command line, in comparisons and in reports.

    The same module may be registered again, after it was reloaded.

    Raises:
        ValueError: an attribute lacks or does not fit (`elicit.methods.base.Method`), or the name is another module's.
    """
    method = Method.of(module)
    held = METHODS.get(method.name)
    if held is not None and held.module is not module:
        raise ValueError(
            f"two methods are called {method.name!r}: {held.module.__name__} and {module.__name__}; rename one"
        )
    METHODS[method.name] = method
    vars(module)["fit"] = method.fit  # also where it is called as the module's own
    return method


for _module in (
    *(cot_decoding, power_sampling, no_thinking, budget_forcing, cognitive_tools),
    *(sae_steer, vector_transfer, critique_ft, one_shot_rlvr, thinkless, rlp, quiet_star),
    *(backward_reasoning, dpo_teacher),
    *(direct, cot_prompt, self_consistency),
):
    register(_module)
BASELINES: tuple[str, ...] = (direct.NAME, cot_prompt.NAME, self_consistency.NAME)
MECHANISMS: tuple[str, ...] = tuple(name for name in METHODS if name not in BASELINES)


def get(name: str) -> Method:
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def lacking(model: str) -> dict[str, str]:
    """The methods that have no default on a model, and what each lacks."""
    return {name: lack for name, method in METHODS.items() if (lack := method.missing(model))}


def with_budget() -> list[str]:
    """The names of all that can spend a given number of tokens."""
    return [name + MATCHED for name, method in METHODS.items() if method.matched is not None]


def options_of(name: str) -> dict[str, Any]:
    """The options of a method with their defaults."""
    return get(name).options


def current(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under the words of today: what trains was called `engine`."""
    old = "engine" in options and "trainer" in options_of(name)
    return {"trainer" if old and key == "engine" else key: value for key, value in options.items()}


def quick_of(name: str) -> dict[str, Any]:
    """The settings of a method's short fit (its `QUICK`): minutes on two cores, enough to see its effect."""
    return dict(get(name).quick)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that the method does not have, or whose value is of another type than its default."""
    get(name).check_options(options)


def fit(
    name: str, model: Model, items: Items | None = None, progress: Progress | None = None, **options: Any
) -> Elicited:
    """Fit a method by name.

    Raises:
        UserError: an unknown method or option.
    """
    options = current(name, options)
    with errors_of(name):
        return get(name).fit(model, items, progress, **options)


def control(name: str, model: Model, items: Items | None, options: Mapping[str, Any]) -> Elicited:
    """A baseline by name, or with `@budget` its form that spends a given number of tokens.

    It takes over those of the mechanism's options that it has too (prompt, limit, seed).
    """
    base, matched, rest = name.partition(MATCHED)
    method = get(base)
    shared = {k: v for k, v in options.items() if k in method.options}
    if not matched:
        return method.fit(model, items, **shared)
    if rest or method.matched is None:
        raise unknown("baseline", name, with_budget())
    return method.matched(model, items, **shared)


def named(against: Any) -> list[str]:
    """The names of baselines that a person gave: one, or several.

    Raises:
        UserError: something else.
    """
    if not isinstance(against, str | Iterable):
        raise UserError(f"{described(against)} was given as against; {AGAINST}")
    names = [against] if isinstance(against, str) else list(against)
    for one in names:
        if not isinstance(one, str):
            raise UserError(f"{described(one)} was given in against; {AGAINST}")
    return names


@takes(handle=HANDLE, items=ITEMS, seed=WHOLE)
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
    "Method",
    "beside",
    "check_options",
    "control",
    "current",
    "fit",
    "get",
    "lacking",
    "options_of",
    "quick_of",
    "register",
    "with_budget",
]
