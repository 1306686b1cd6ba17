"""What analyses of runs stand on: arms of finished runs on the same items and model, and their handles again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from elicit.decoding.decoders import ELSEWHERE, decoder_from_dict
from elicit.decoding.selection import select
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.evaluation.metrics.format import weights
from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.run import Run
from elicit.models.model import Model, load_same
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item
from probes.errors import UserError, unknown

FOREIGN = "foreign"  # in an arm's configuration: the log of another program that it was read from
SAMPLED = ("sampling", "power", "power-rollouts")  # decoders whose branches are independent samples


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm of one run.

    Args:
        name: of the arm; with the run's folder (`folder_names`) where two runs have an arm of that name.
        run: whose it is.
        key: its name within the run.
    """

    name: str
    run: Run
    key: str

    @property
    def about(self) -> dict[str, Any]:
        """The arm's handle as the run's configuration has it."""
        about: dict[str, Any] = self.run.store.config["arms"][self.key]
        return about

    @property
    def stated(self) -> bool:
        """Whether its run states an accuracy of it (`elicit.evaluation.metrics.verdicts`)."""
        return is_accuracy(self.run.metrics["arms"][self.key], self.run.metrics["items"])

    @property
    def scores(self) -> dict[str, float]:
        """1 or 0 an item, as the arm's selection has it."""
        scores: dict[str, float] = self.run.metrics["arms"][self.key]["scores"]
        return scores

    @property
    def foreign(self) -> bool:
        """Whether it was read from a log of another program, so that neither tokens nor weights are known."""
        return FOREIGN in self.about

    @property
    def source(self) -> str:
        """Whose traces it reads; arms that differ in the selection alone share theirs."""
        return str(self.about["source"])

    @property
    def whose(self) -> str:
        """The run without which it would answer otherwise, as it may spend what that run's method spent; or ""."""
        return str(self.run.folder.resolve()) if MATCHED in self.key else ""

    @property
    def traces(self) -> dict[str, list[Trace]]:
        """The traces of each item."""
        return self.run.traces[self.source]

    @property
    def not_independent(self) -> str:
        """Why its traces are no independent samples of one distribution, or "" where they are."""
        decoder = self.about["decoder"]["name"]
        if decoder == ELSEWHERE:
            greedy = self.about["decoder"].get("temperature") == 0
            return "its log says temperature 0, which gives one answer a question, no samples" if greedy else ""
        if decoder == "branching":
            return "branches of a search are distinct and ordered, not independent samples"
        if decoder not in SAMPLED or (decoder != "sampling" and self.about["decoder"]["samples"] == 1):
            return f"{decoder} decoding gives one answer a question, no samples"
        if MATCHED in self.source:
            return "a budget of tokens decided how many samples there are, so their number depends on their length"
        return ""

    def handle(self, model: Model) -> Elicited | None:
        """The arm's handle again; None where the run lacks what it needs (it keeps its method's tensors alone, and of
        a log of another program nothing)."""
        if self.foreign:
            return None
        if self.key == self.run.metrics["method"]:
            return handle_of(self.run, model)
        if any(name in self.about for name in ("adapter", "weights", "interventions", "partner", "mixing")):
            return None
        prompt, decoder = Prompt.from_dict(self.about["prompt"]), decoder_from_dict(self.about["decoder"])
        kept = {name: self.about[name] for name in ("method", "select", "span", "filters", "options")}
        return Elicited(model, prompt=prompt, decoder=decoder, **kept)

    def right(self, items: Sequence[str]) -> Bool[np.ndarray, " items"]:
        """Whether each of these items was solved."""
        return np.array([self.scores[item] >= 1.0 for item in items])

    def chosen(self, items: Sequence[str]) -> list[Trace]:
        """Of each item the trace that the arm's selection took (of several that agree, the first)."""
        traces, rule = self.traces, self.about["select"]
        if rule == "greedy":
            return [traces[item][0] for item in items]
        grader = self.run.items.task.grader
        found = ((traces[item], select(rule, traces[item], grader).branch) for item in items)
        return [next(t for t in some if t.index == branch) for some, branch in found]

    def outputs(self, items: Sequence[str]) -> list[list[Trace]]:
        """What the arm says to each item: all of its samples where they are independent, else the chosen trace."""
        if self.not_independent:
            return [[trace] for trace in self.chosen(items)]
        traces = self.traces
        return [traces[item] for item in items]


def arms_of(runs: Sequence[Run], *, main_only: bool = False) -> list[Arm]:
    """The arms of all runs: of each run the method under test, then (unless `main_only`) its baselines.

    A baseline that several runs have on the same items, with the same handle, stands once; not so where it spends what
    the run's method spent.

    Raises:
        UserError: no run, or runs of different tasks or models (which).
    """
    check_together(runs)
    folders = folder_names(runs)
    out: list[Arm] = []
    for arm in distinct(runs, _answers, main_only=main_only):
        taken = any(other.name == arm.key for other in out)
        out.append(replace(arm, name=f"{arm.key} ({folders[arm.run]})") if taken else arm)
    return out


def folder_names(runs: Iterable[Run]) -> dict[Run, str]:
    """Each run's folder, by as many of its last parts as tell all of them apart: `drawn`, or `seed1/drawn`."""
    parts = {run: run.folder.resolve().parts for run in runs}
    apart = len(set(parts.values()))
    longest = max(map(len, parts.values()), default=1)
    count = next((n for n in range(1, longest) if len({some[-n:] for some in parts.values()}) == apart), longest)
    return {run: "/".join(some[-count:]) for run, some in parts.items()}


def _answers(arm: Arm) -> str:
    about = {k: v for k, v in arm.about.items() if k != "source"}
    return str([arm.key, arm.run.store.config["identity"]["items"], arm.run.reads, about, arm.whose])


def distinct(
    runs: Sequence[Run], mark: Callable[[Arm], str], *, main_only: bool = False, keep_main: bool = False
) -> list[Arm]:
    """Of each run the method under test, then its other arms; of arms with one mark the first alone.

    Args:
        runs: finished ones.
        mark: what two arms have in common that are one.
        main_only: whether the other arms are left out.
        keep_main: whether each run's method stands in any case, and for the arms of its mark in other runs.

    Returns:
        The arms, each named as in its run.
    """
    seen = {mark(_main(run)) for run in runs} if keep_main else set()
    out: list[Arm] = []
    for run in runs:
        main = _main(run)
        others = [] if main_only else [Arm(key, run, key) for key in run.metrics["arms"] if key != main.key]
        for arm in (main, *others):
            if mark(arm) not in seen or (keep_main and arm is main):
                seen.add(mark(arm))
                out.append(arm)
    return out


def _main(run: Run) -> Arm:
    method = run.metrics["method"]
    return Arm(method, run, method)


def check_together(runs: Sequence[Run], *, model_by: Sequence[str] = ("sha256",)) -> None:
    """Refuse runs that cannot stand side by side.

    Args:
        runs: finished ones.
        model_by: what their models must have in common, e.g. `name` and `sha256`; nothing lets any model pass.

    Raises:
        UserError: no run, or runs of different tasks or models (which).
    """
    if not runs:
        raise UserError("no run was given; give folders of finished runs")
    for what, of in (
        ("tasks", lambda run: run.metrics["task"]),
        ("models", lambda run: tuple(known_model(run, key) for key in model_by)),
    ):
        found = {of(run): run for run in runs}
        if len(found) > 1:
            said = "; ".join(f"{run.folder}: {_short(run, what)}" for run in found.values())
            raise UserError(f"the runs are of different {what} ({said}); give runs of one")


def known_model(run: Run, key: str = "sha256") -> str:
    """A field of a run's model, by which two are told apart: of unknown weights their name."""
    model = run.metrics["model"]
    return str(model[key] or model["name"])


def _short(run: Run, what: str) -> str:
    model = run.metrics["model"]
    return str(run.metrics["task"]) if what == "tasks" else f"{model['name']}, {weights(model)}"


def check_ours(runs: Sequence[Run], needs: str, instead: str = "give runs of elicit") -> None:
    """Refuse runs that were read from logs of other programs.

    Args:
        runs: finished ones.
        needs: what such a run lacks: `the model`, `the tokens of each answer`.
        instead: what to do.

    Raises:
        UserError: one of them is, by its folder and its logs.
    """
    for run in runs:
        if "imported" in run.metrics:
            first, *others = run.metrics["imported"].values()
            log = f"{first} and {len(others)} more" if others else first
            raise UserError(f"this needs {needs}, which {str(run.folder)!r} has not: it was read from {log}; {instead}")


def named(arms: Sequence[Arm], name: str, what: str = "baseline") -> Arm:
    """The arm of this name.

    Raises:
        UserError: there is none (with the names that there are).
    """
    for arm in arms:
        if name in (arm.name, arm.key):
            return arm
    hint = f"(or run it: elicit run … --against {name})"
    raise unknown(what, name, [arm.name for arm in arms], hint=hint)


def shared_items(arms: Sequence[Arm]) -> list[str]:
    """The items that all arms answered, in the first one's order.

    Raises:
        UserError: there is none, or one id stands for different questions.
    """
    first, *others = (arm.scores for arm in arms)
    shared = [item for item in first if all(item in other for other in others)]
    if not shared:
        raise UserError(
            f"the runs have no item in common ({counted(arms)}); give runs of the same task, split and seed"
        )
    _check_questions(arms, shared)
    return shared


def counted(arms: Sequence[Arm]) -> str:
    """The runs of these arms, and of how many items each is."""
    counts = {str(arm.run.folder): len(arm.scores) for arm in arms}
    return ", ".join(f"{folder}: {count}" for folder, count in counts.items())


def questions(arms: Sequence[Arm], limit: int = 0) -> list[Item]:
    """The items that all arms answered (the first `limit` of them, if that is not 0), with gold answers and kinds."""
    held = {item.id: item for item in arms[0].run.items}
    shared = [held[item] for item in shared_items(arms)]
    if limit < 0:
        raise UserError(f"limit = {limit} was given; give a number of items, or 0 for all")
    return shared[:limit] if limit else shared


def model_of(runs: Sequence[Run]) -> Model:
    """The model that the runs were made on, loaded by name.

    Raises:
        UserError: what has that name here has other weights.
    """
    check_ours(runs, "the model")
    return load_same(runs[0].metrics["model"], str(runs[0].folder), "put the weights back, or run again")


def handle_of(run: Run, model: Model | None = None) -> Elicited:
    """The handle under test of a run, as the run saved it; its model is loaded by name unless it is given."""
    check_ours([run], "the model")
    return Elicited.load(run.store.bundle, model)


def _check_questions(arms: Sequence[Arm], shared: Sequence[str]) -> None:
    """An id may stand for another question of another seed, and its gold answer may have been corrected since.

    (The oldest runs keep no questions.)
    """
    known: dict[str, tuple[Any, Run]] = {}
    for run in {str(arm.run.folder): arm.run for arm in arms}.values():
        if not run.store.keeps_items:
            continue
        asked = {item.id: (item.question, item.answer, item.kind) for item in run.items}
        for item in shared:
            question, other = known.setdefault(item, (asked[item], run))
            if question != asked[item]:
                what = "is another question" if question[0] != asked[item][0] else "has another gold answer or kind"
                raise UserError(
                    f"item {item!r} {what} in {run.folder} than in {other.folder}; give runs of the same items"
                )
