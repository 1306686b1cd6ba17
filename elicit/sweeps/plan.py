"""What a sweep's file says, and the jobs that it stands for.

analyses = ["pass-at-k"]     # over all runs of a model and a task, when these are done

[axes]                       # every combination of these is a run
method = ["direct", "cot-decoding"]
model = ["smollm2-135m-latent"]
seed = [0, 1, 2]

[axes.options]               # options of methods; one that a method lacks is left out for it
k = [4, 8]

[run]                        # options of `elicit run`, the same for all
limit = 32

[fit]                        # unless given each run fits its method on its own task
task = "chain-sum"           # all methods are fitted on this one, and their bundles evaluated on every task
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probes.errors import UserError, unknown

Value = bool | int | float | str
KINDS = ("bool", "int", "float", "str", "list[str]")  # what pydantic says of such a value after its place
Listed = list[str]  # engine_setting, which is given several times on the command line


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Axes(_Strict):
    """Lists whose every combination is a run."""

    method: list[str] = Field(min_length=1)
    model: list[str] = Field(default=[""], min_length=1)
    task: list[str] = Field(default=[""], min_length=1)
    seed: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    options: dict[str, Annotated[list[Value], Field(min_length=1)]] = {}


class Fit(_Strict):
    """Fits as jobs of their own, whose bundles the runs evaluate."""

    task: str = Field(min_length=1)


class Sweep(_Strict):
    """A sweep's file; `elicit sweep schema` prints its JSON schema for editors."""

    axes: Axes
    run: dict[str, Value | Listed] = {}
    options: dict[str, Value] = {}
    fit: Fit | None = None
    analyses: list[str] = []


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Args:
        kind: `fit`, `run` or `analyse`.
        given: of a fit and of a run the options of `elicit run`; of an analysis its `name`.
        needs: keys of the jobs that have to be done before.
    """

    kind: str
    given: Mapping[str, Any]
    needs: Sequence[str] = field(default=())

    @property
    def key(self) -> str:
        """A hash of all that it is."""
        said = json.dumps([self.kind, dict(self.given), list(self.needs)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    @property
    def model(self) -> str:
        """What a worker holds in memory for it; jobs of one follow each other."""
        return "" if self.kind == "analyse" else json.dumps([self.given.get(k) for k in MODEL])

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.key, **asdict(self)}


MODEL = ("model", "dtype", "device", "device_map", "engine", "engine_setting")
# Options of `elicit run` that no sweep takes, and what stands in their place.
ELSEWHERE = {
    **{key: f"list it in axes.{key}" for key in ("method", "model", "task", "seed")},
    "seeds": "list them in axes.seed",
    "setting": "give a table options",
    "preset": "write out the settings that elicit presets shows",
    "size": "write out its settings, as options and run",
    "config": "write its settings here",
    "dry_run": "ask elicit run --dry-run for one of the runs",
    **dict.fromkeys(("out", "fresh", "as_json"), "leave it out: each job has a folder of the sweep's own"),
}
EXPECTED = {str: "text", int: "a whole number", list: "a list of texts, like ['key=value']"}


def read(file: Path) -> Sweep:
    """A sweep from its TOML file.

    Raises:
        UserError: it cannot be read, a key that is unknown or holds something else than it is for.
    """
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"sweep {str(file)!r} cannot be read ({error.strerror}); give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"sweep {str(file)!r} is not TOML ({error}); mend it") from error
    try:
        return Sweep.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        first, *rest = sorted(found, key=lambda one: one["type"] != "extra_forbidden")  # what is misspelt lacks, too
        named = [part for part in first["loc"] if part not in KINDS]
        where = ".".join(str(part) for part in named)
        if first["type"] == "extra_forbidden":
            table, dot, _ = where.rpartition(".")
            tables: dict[str, type[_Strict]] = {"axes": Axes, "fit": Fit}
            fields = tables.get(table, Sweep).model_fields
            raise unknown(f"key of {file.name}", where, [table + dot + k for k in fields]) from None
        if len(named) < len(first["loc"]):
            listed = ", or a list of texts for engine_setting" if named[0] == "run" else ""
            raise UserError(f"{file.name}: {where}: expected true or false, a number or a text{listed}") from None
        more = f" (and {len(rest)} more)" if rest else ""
        raise UserError(f"{file.name}: {where}: {first['msg'].lower()}{more}") from None


def jobs_of(
    sweep: Sweep,
    options_of: Callable[[str], Mapping[str, Any]],
    known: Mapping[str, Any],
    types: Mapping[str, type],
) -> list[Job]:
    """The jobs of a sweep, those of one model together.

    Args:
        sweep: as read.
        options_of: the options of a method with their defaults; refuses an unknown one.
        known: the options of `elicit run`, with their defaults.
        types: what each takes.

    Raises:
        UserError: an option that no method has or that is given twice, two equal jobs.
    """
    for key, value in sweep.run.items():
        if key in ELSEWHERE:
            raise UserError(f"run.{key} = {value!r} was given, which a sweep does not take; {ELSEWHERE[key]}")
        if key not in known:
            raise unknown("key of run", key, [k for k in known if k not in ELSEWHERE])
        if not isinstance(value, types[key]) or isinstance(value, bool) != (types[key] is bool):
            like = EXPECTED[types[key]] if known[key] is None else f"a value like {known[key]!r}"
            raise UserError(f"run.{key} = {value!r} was given; expected {like}")
    axes = sweep.axes
    has = {method: options_of(method) for method in axes.method}
    for name in (*axes.options, *sweep.options):
        if not any(name in options for options in has.values()):
            raise unknown("option of these methods", name, {key for options in has.values() for key in options})
    if twice := sorted(axes.options.keys() & sweep.options.keys()):
        raise UserError(f"option {twice[0]} stands in options and in axes.options; give it once")
    if sweep.fit is not None and sweep.run.get("controls"):
        raise UserError("run.controls and a table fit were given, and controls are fitted with their run; give one")
    found: dict[str, Job] = {}
    fits: dict[str, Job] = {}
    for model, task, method, seed in itertools.product(axes.model, axes.task, axes.method, axes.seed):
        crossed = {name: values for name, values in axes.options.items() if name in has[method]}
        fixed = {name: value for name, value in sweep.options.items() if name in has[method]}
        for values in itertools.product(*crossed.values()):
            options = {**fixed, **dict(zip(crossed, values, strict=True))}
            given = {**sweep.run, "method": method, "model": model, "task": task, "seed": seed, "options": options}
            needs: tuple[str, ...] = ()
            if sweep.fit is not None:
                fitted = Job("fit", {**given, "task": sweep.fit.task})
                fits[fitted.key] = fitted  # one for all tasks
                needs = (fitted.key,)
            job = Job("run", given, needs)
            if job.key in found:
                raise UserError(
                    f"two jobs are equal: {method} on {model or 'its model'}, seed {seed}, {options}; give each once"
                )
            found[job.key] = job
    runs = sorted(found.values(), key=lambda job: job.model)
    together: dict[tuple[str, str], list[str]] = {}
    for job in runs:
        together.setdefault((job.given["model"], job.given["task"]), []).append(job.key)
    analyses = [
        Job("analyse", {"name": name, "model": model, "task": task}, tuple(keys))
        for name in sweep.analyses
        for (model, task), keys in together.items()
    ]
    return [*sorted([*fits.values(), *runs], key=lambda job: job.model), *analyses]
