"""What a method is: the attributes of its module, checked once, with defaults for the optional ones.

An author writes a module (`elicit/methods/README.md` has one in full). The registry wraps it in a `Method`, and the
rest of the suite asks that: nobody else looks whether a module has this or that.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from elicit.decoding.progress import Progress
from elicit.elicited import ITEMS, Elicited
from elicit.models import zoo
from elicit.models.model import DEFAULT_MODEL, MODEL, Model
from elicit.tasks.base import Items
from elicit.training.recipe import Recipe
from probes.errors import UserError, unknown
from probes.given import takes
from probes.modules import Call, checked, keywords

if TYPE_CHECKING:
    from elicit.evaluation.run.run import Run

DRAWS = 1_000  # of a control, from one seed, at most
REQUIRED = ("NAME", "SUMMARY", "PAPER", "fit", "controls")
TYPES: dict[str, type] = {"NAME": str, "SUMMARY": str, "PAPER": str, "MODEL": str, "QUICK": dict, "NEEDS_ITEMS": bool}
CALLS: dict[str, Call] = {
    "fit": (("model", "items", "progress"), ()),
    "controls": (("handle", "items"), ("seed",)),
    "matched": (("model", "items"), ()),
    "notes": (("options",), ()),
    "report_sections": (("options",), ()),
    "findings": (("run",), ()),
    "missing": (("model",), ()),
    "work": (("model", "items", "options"), ()),
}


class NeedsItems(UserError):
    """A fit was given no items, and finds what it needs on items.

    Args:
        why: what it does with them, by its name: `one-shot-rlvr trains on fit items of a task`.
        instead: what may be given instead of items, e.g. `text=FILE`, or "".
    """

    def __init__(self, why: str, instead: str = "") -> None:
        super().__init__(f"{why}; give {f'{instead}, or items of a task' if instead else 'items'}")
        self.why, self.instead = why, instead

    def told(self, how: str) -> UserError:
        """The same, where items are given in another way (`how`) than by Python."""
        return UserError(f"{self.why}; give {f'{self.instead}, ' if self.instead else ''}{how}")


def draw_seed(seed: int, number: int) -> int:
    """The seed of a control's draw of this number; of neighbouring seeds no two draws are the same."""
    return seed * DRAWS + number


def check_counts(method: str, **counts: int) -> None:
    """Refuse counts below 1, of which −1 would take all but the last.

    Raises:
        UserError: the first that is.
    """
    for option, count in counts.items():
        if count < 1:
            raise UserError(f"{option} = {count} was given to {method}; give 1 or more")


@runtime_checkable
class Fit(Protocol):
    """Find what the mechanism needs on the items' fit and dev splits; options by name alone, each with a default."""

    def __call__(
        self, model: Model, items: Items | None = None, progress: Progress | None = None, /, **options: Any
    ) -> Elicited: ...


@runtime_checkable
class Controls(Protocol):
    """Handles by name under which the method's claim can fail; draws of one thing are called `name 0`, `name 1`, …"""

    def __call__(
        self, handle: Elicited, items: Items | None = None, /, *, seed: int = 0, progress: Progress | None = None
    ) -> dict[str, Elicited]: ...


@runtime_checkable
class Matched(Protocol):
    """The handle that samples until a budget of tokens is spent; it takes the options of `fit`."""

    def __call__(self, model: Model, items: Items | None = None, /, **options: Any) -> Elicited: ...


def _without_progress(controls: Callable[..., dict[str, Elicited]]) -> Controls:
    """Of an author who has nothing to report."""

    def quiet(
        handle: Elicited, items: Items | None = None, /, *, seed: int = 0, progress: Progress | None = None
    ) -> dict[str, Elicited]:
        return controls(handle, items, seed=seed)

    return quiet


def _checking(method: Method) -> Fit:
    """Its fit, which refuses what is no model, no items or no option of it before anything is done."""
    plain = method.fit
    if getattr(plain, "checks", None) is True:  # the module was registered before
        return plain
    places = list(inspect.signature(plain).parameters)[:3]
    takes_it = takes(**dict(zip(places[:2], (MODEL, ITEMS), strict=True)))(plain)

    @functools.wraps(plain)
    def fit(*given: Any, **options: Any) -> Elicited:
        own = {k: v.item() if isinstance(v, np.generic) else v for k, v in options.items() if k not in places}
        method.check_options(own)
        return takes_it(*given, **{k: v for k, v in options.items() if k in places}, **own)

    fit.checks = True  # type: ignore[attr-defined]
    return fit


def _none(_: Any) -> list[Any]:
    return []


def _nothing(model: str) -> str:
    return ""


def minutes_elsewhere(model: str) -> str:
    """Of a method that trains for minutes, why it has no default on a model that is not one of the suite's own: what it
    learns of those is known."""
    return "" if zoo.about(model) is not None else f"it trains on {model!r} for minutes; ask for it by name"


@dataclass(frozen=True)
class Work:
    """What a fit and its controls compute, at most.

    Args:
        handle: stands for what will be evaluated, since that is not there yet.
        answers: handles that answer while the method is fitted, each with a number of questions.
        training: as it will be run.
        controls: arms that stand beside the method where its controls are asked for, and how many of them train.
        beside: what is not counted.
    """

    handle: Elicited
    answers: Sequence[tuple[Elicited, int]] = ()
    training: Recipe | None = None
    controls: tuple[int, int] = (0, 0)
    beside: str = ""


@dataclass(frozen=True, eq=False)
class Method:
    """A method of the registry. The name of each attribute in the author's module stands in brackets.

    Args:
        module: the author's.
        name: [`NAME`] lower-case words joined by hyphens; of runs, folders and options on the command line.
        summary: [`SUMMARY`] what it does, half a sentence.
        paper: [`PAPER`] the arXiv id it follows, or "".
        fit: [`fit`] as `Fit`.
        controls: [`controls`] as `Controls`; a baseline, itself a control, returns none. An author's needs no
            `progress` where nothing is trained.
        matched: [`matched`, optional] as `Matched`; with it `<name>@budget` can stand beside any method.
        notes: [`notes`, optional] from a handle's `options`, sentences that a reader of its run must know.
        report_sections: [`report_sections`, optional] from a handle's `options`, what a page shows of the fit
            (`probes.figures.Part`).
        findings: [`findings`, optional] from a finished `Run`, what a page shows of its arms.
        model: [`MODEL`, optional] the model it is run on unless one is named.
        quick: [`QUICK`, optional] options of a short fit: minutes on two cores, enough to see its effect.
        needs_items: [`NEEDS_ITEMS`, optional] whether it is refused without items, whatever its options (`NeedsItems`):
            who is not given any can say so before a model is loaded.
        missing: [`missing`, optional] from a model's name, why it cannot be fitted there without more options, or "";
            `elicit compare --methods all` leaves it out then, and says so.
        work: [`work`, optional] from the model, the items and all options of a fit, what that computes at most
            (`Work`), for `--dry-run`; a method without it is fitted in no time.
    """

    module: ModuleType
    name: str
    summary: str
    paper: str
    fit: Fit
    controls: Controls
    matched: Matched | None = None
    notes: Callable[[Mapping[str, Any]], list[str]] = _none
    report_sections: Callable[[Mapping[str, Any]], list[Any]] = _none
    findings: Callable[[Run], list[Any]] = _none
    model: str = DEFAULT_MODEL
    quick: dict[str, Any] = field(default_factory=dict)
    needs_items: bool = False
    missing: Callable[[str], str] = _nothing
    work: Callable[[Model, Items, Mapping[str, Any]], Work] | None = None

    @staticmethod
    def of(module: ModuleType) -> Method:
        """Wrap a module.

        Raises:
            ValueError: what it lacks, or has otherwise than it is called for.
        """
        found = checked(module, "method", REQUIRED, TYPES, CALLS)
        if "progress" not in inspect.signature(found["controls"]).parameters:
            found["controls"] = _without_progress(found["controls"])
        method = Method(module, **{key.lower(): value for key, value in found.items()})
        where = f"the method module {module.__name__!r}"
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", method.name):
            raise ValueError(f"{where} has NAME = {method.name!r}; give lower-case words joined by hyphens")
        options = keywords(method.fit, f"fit of {where}", 3)
        if method.matched is not None:
            lacking = options.keys() - keywords(method.matched, f"matched of {where}", 3).keys()
            if lacking:
                raise ValueError(f"matched of {where} lacks options of its fit: {', '.join(sorted(lacking))}")
        try:
            method.check_options(method.quick)
        except UserError as error:
            raise ValueError(f"{where} has QUICK = {method.quick!r}: {error}") from error
        return replace(method, fit=_checking(method))

    @property
    def options(self) -> dict[str, Any]:
        """The options of its fit with their defaults."""
        return {name: option.default for name, option in self._keywords().items()}

    def _keywords(self) -> dict[str, inspect.Parameter]:
        return keywords(self.fit, f"fit of {self.name}", 3)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse an option that the method does not have, whose value is of another type than its default, a seed
        below 0, and text that is no Unicode.

        Raises:
            UserError: the first of them.
        """
        known = self._keywords()
        for key, value in options.items():
            if key not in known:
                raise unknown(f"option of {self.name}", key, known)
            if not _fits(value, known[key]):
                default = known[key].default
                raise UserError(
                    f"option {key} = {value!r} was given to {self.name}; expected {type(default).__name__}, like "
                    f"{default!r}"
                )
            if key == "seed" and value < 0:
                raise UserError(f"seed = {value} was given to {self.name}; give 0 or more")
            if isinstance(value, str) and _broken(value):
                raise UserError(
                    f"option {key} = {value!r} was given to {self.name}, which is no text; write it as UTF-8"
                )


def _broken(text: str) -> bool:
    """Whether a text holds half of a character, as bytes of another encoding become on a command line."""
    return any("\ud800" <= c <= "\udfff" for c in text)


def _fits(value: Any, option: inspect.Parameter) -> bool:
    """Of the default's type; a whole number for a float, a function where the method takes one."""
    if callable(value):
        return "Callable" in str(option.annotation)
    if isinstance(option.default, float) and type(value) is int:
        return True
    return isinstance(value, type(option.default)) and isinstance(value, bool) == isinstance(option.default, bool)


def check_own(handle: Elicited, name: str) -> None:
    """Refuse controls of a handle that another method made.

    Raises:
        UserError: it is another's.
    """
    if handle.method != name:
        raise UserError(
            f"controls of {name} were asked for a handle of {handle.method!r}; give one that {name}.fit made"
        )
