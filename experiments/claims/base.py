"""What a claim's experiment stands on: its text and settings, runs that all claims share, a finding with a verdict.

A claim is a folder:

    claim.toml     the claim, its source, what would speak against it, the settings, and the short ones of --quick
    __init__.py    `measure(study) -> Finding`; its conditions are judged by experiments/claims/rules.py
    result.json    what was found last: verdict, numbers, command, model hash, seed
    figure.json    the figure, for Plotly
    README.md      the same for a reader, written by the command

Runs lie in runs/claims, one comparison for each model and set of terms (`elicit.methods.compare`): a claim finds done
what another one needed, and an interrupted call resumes.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from elicit import Run, evaluate
from elicit.decoding.progress import Progress, Silent
from elicit.elicited import Elicited
from elicit.evaluation.batches import models_of
from elicit.methods import fit
from elicit.methods.compare import RUNS, SharedOptions, plan_of, run_together
from elicit.models import Model, load_model
from elicit.models.identity import grounds
from elicit.models.zoo import task_for
from elicit.report import render
from elicit.tasks import load_task
from elicit.tasks.base import Task
from experiments.claims.rules import Judgement
from probes.errors import UserError, unknown
from probes.files import digest
from steering.adapters import WEIGHTS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Claim:
    """A claim as its `claim.toml` has it.

    Args:
        name: of the folder.
        number: 1 to 20.
        claim: what is claimed.
        source: arXiv ids.
        published: the figure that the source gives.
        against: what would speak against it.
        here: what it is tested on here, and what that stands for.
        settings, quick: of the experiment, and what `--quick` changes.
        seeds: that its verdict asks for: several where something is trained or fitted.
    """

    name: str
    number: int
    claim: str
    source: str
    published: str
    against: str
    here: str
    settings: dict[str, Any]
    quick: dict[str, Any]
    seeds: int = 1

    @property
    def folder(self) -> Path:
        return HERE / self.name

    def defaults(self, quick: bool) -> dict[str, Any]:
        """The settings, with the short ones over them where they are asked for."""
        return {**self.settings, **(self.quick if quick else {})}

    @property
    def measure(self) -> Callable[[Study], Finding]:
        found: Callable[[Study], Finding] = import_module(f"experiments.claims.{self.name}").measure
        return found


def claims() -> dict[str, Claim]:
    """All claims by name, in the order of their numbers."""
    found = [_read(file) for file in HERE.glob("*/claim.toml")]
    return {claim.name: claim for claim in sorted(found, key=lambda claim: claim.number)}


def _read(file: Path) -> Claim:
    return Claim(name=file.parent.name, **tomllib.loads(file.read_text(encoding="utf-8")))


def claim(name: str) -> Claim:
    """A claim by its folder's name or its number.

    Raises:
        UserError: there is none.
    """
    found = claims()
    by_number = {str(one.number): one for one in found.values()}
    if name in by_number:
        return by_number[name]
    if name not in found:
        raise unknown("claim", name, found, hint="(or a number from 1 to 20)")
    return found[name]


@dataclass(frozen=True, eq=False)
class Finding:
    """What an experiment found.

    Args:
        judged: the conditions of the verdict, as measured.
        line: what was found in one line, with its numbers and intervals.
        table: rows, each a dict of column to value.
        figure: the main figure, with its null in it.
        notes: what a reader must know, a sentence each.
        data: the numbers behind it, as JSON can hold them; a few kilobytes.
        runs: that it was read from.
    """

    judged: Judgement
    line: str
    table: list[dict[str, Any]]
    figure: go.Figure
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    runs: Sequence[Run] = ()

    @property
    def verdict(self) -> str:
        return self.judged.verdict


class _State(Enum):
    """Of a run, before a call asks for it."""

    NEW, BEGUN, ENDED = range(3)

    @classmethod
    def of(cls, folder: Path) -> _State:
        return cls.ENDED if (folder / "metrics.json").is_file() else cls.BEGUN if folder.exists() else cls.NEW


@dataclass(frozen=True, eq=False)
class Study:
    """One call of an experiment: its settings, and the runs that it may ask for.

    Args:
        claim: what is tested.
        settings: of the claim, with what the call changed.
        quick: whether methods are fitted with their short settings.
        runs: folder of all runs.
        progress: what is reported to.
        log: called with a line at each method.
        reused: by its folder the seconds that each run took, which had ended before this call asked for it, with its
            fit's, and 0 for one that had not begun; None where what was there before did not say, as a training.
        began: when, in seconds since the epoch; what was trained before was found.
    """

    claim: Claim
    settings: Mapping[str, Any]
    quick: bool = False
    runs: Path = Path("runs")
    progress: Progress = field(default_factory=Silent)
    log: Callable[[str], None] = lambda line: None
    reused: dict[Path, float | None] = field(default_factory=dict)
    began: float = field(default_factory=time.time)

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))

    def with_seed(self, seed: int) -> Study:
        """The same study of one of several seeds, which fits once."""
        own = {"seed": seed, **({"fits": 1} if "fits" in self.settings else {})}
        one = replace(self, settings={**self.settings, **own})
        vars(one)["model"] = self.model  # read once for all seeds
        return one

    @cached_property
    def model(self) -> Model:
        """The model under study."""
        return self.load(self["model"])

    def load(self, name: str) -> Model:
        return load_model(name, dtype=self.settings.get("dtype", "auto"))

    def task(self, model: str = "") -> Task:
        """The task of the settings, or the model's own."""
        return load_task(self.settings.get("task", "") or task_for(model or self["model"]), limit=self["limit"])

    def told(self, what: str, done: int, total: int) -> None:
        """What analyses tell of themselves."""
        self.progress.training(what, done, total, "")

    def compared(
        self,
        names: Sequence[str],
        *,
        controls: bool = False,
        model: Model | None = None,
        given: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> dict[str, Run]:
        """The runs of these methods on the same items, made where they are not there; with their own controls.

        `given` are options of single methods, by name.

        Raises:
            UserError: a method that refuses.
        """
        model = model or self.model
        shared = SharedOptions(
            max_new_tokens=self["max_new_tokens"],
            seed=self.seed,
            quick=self.quick,
            controls=controls,
            given=given or {},
        )
        items = self.task(model.name).test[: self["limit"]]
        out = self._folder("compared", model, plan_of(model, items, shared))
        before = {name: _State.of(out / RUNS / name) for name in names}
        made = run_together(model, items, names, shared, out=out, progress=self.progress, log=self.log, page=render)
        for run in made.runs:
            name = run.metrics["method"]
            self._note(run, before[name], made.fit_seconds[name])
        return {run.metrics["method"]: run for run in made.runs}

    def evaluated(self, handle: Elicited, against: Mapping[str, Elicited], what: str, split: str = "test") -> Run:
        """A run of handles of one's own, on the same items or on another split's; `what` they are names its folder."""
        items = self.task(handle.model.name).split(split)[: self["limit"]]
        arms = {name: one.to_dict() for name, one in {"": handle, **against}.items()}
        stands_on = grounds(items, models_of([handle, *against.values()]))
        out = self._folder(what, handle.model, [arms, self.seed, stands_on])
        before = _State.of(out)
        run = evaluate(handle, items, against=against, out=out, seed=self.seed, progress=self.progress)
        adapters = [one.adapter for one in (handle, *against.values()) if one.adapter is not None]
        if any((one.folder / WEIGHTS).stat().st_mtime < self.began for one in adapters):
            before = _State.BEGUN
        self._note(run, before, None if adapters else 0.0)
        return run

    def _note(self, run: Run, before: _State, fit_seconds: float | None) -> None:
        """What the run would have cost this call, had it not been there."""
        cost: float | None = 0.0
        if before is not _State.NEW:  # of what had begun without an end, the run tells the last call's seconds alone
            known = before is _State.ENDED and fit_seconds is not None
            cost = sum(run.metrics["seconds"].values()) + (fit_seconds or 0.0) if known else None
        self.reused.setdefault(run.folder, cost)

    def _folder(self, what: str, model: Model, decides: Any) -> Path:
        mark = digest([decides, model.provenance.sha256, model.dtype])
        return self.runs / "claims" / f"{what}-{Path(model.name).name}-{mark}"

    def fitted(self, name: str, **options: Any) -> Elicited:
        """A method fitted on the model, without a run."""
        return fit(name, self.model, self.task().solved, self.progress, **options)


def study_of(claim: Claim, *, quick: bool = False, changes: Mapping[str, Any] | None = None, **more: Any) -> Study:
    """A study with the claim's settings, the short ones over them, and the call's own over those.

    Raises:
        UserError: a setting that the claim does not have, or of another type.
    """
    settings = claim.defaults(quick)
    for key, value in (changes or {}).items():
        if key not in settings:
            raise unknown(f"setting of {claim.name}", key, settings)
        if type(value) is not type(settings[key]) and not (isinstance(settings[key], float) and type(value) is int):
            raise UserError(
                f"setting {key} = {value!r} was given; expected {type(settings[key]).__name__}, like {settings[key]!r}"
            )
        settings[key] = value
    return Study(claim, settings, quick, **more)
