"""`elicit sweep`: many runs as a folder of jobs, which any number of workers empty."""

from __future__ import annotations

import inspect
import json
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from elicit.cli.lines import remark, say, show_json
from elicit.cli.options import Json
from probes.errors import UserError, unknown

sweep = typer.Typer(
    name="sweep", help="Many runs as a folder of jobs, which any number of workers empty.", no_args_is_help=True
)
BUNDLE = "bundle"  # in a fit's folder
Place = Annotated[Path, typer.Argument(help="The sweep's folder.")]


@sweep.command()
def plan(
    file: Annotated[Path, typer.Argument(help="A TOML file: axes, run, options, fit, analyses.")],
    out: Annotated[Path | None, typer.Option(help="The sweep's folder. Unless given: sweeps/NAME.")] = None,
) -> None:
    """Write the jobs that a file stands for into a folder; nothing is computed yet."""
    from elicit.analysis import ANALYSES, takes_runs
    from elicit.cli.track import check_track
    from elicit.methods import check_options, options_of
    from elicit.sweeps.checks import check_run, check_task
    from elicit.sweeps.folder import Folder
    from elicit.sweeps.plan import jobs_of, read

    read_sweep = read(file)
    for name in read_sweep.analyses:
        if name not in ANALYSES or not takes_runs(name):
            raise unknown("analysis of runs", name, [one for one in ANALYSES if takes_runs(one)])
    known = defaults()
    jobs = jobs_of(read_sweep, options_of, known, _types(known))
    check_track(str(read_sweep.run.get("track", "")))
    check_run(read_sweep.run)
    for task in {job.given["task"]: None for job in jobs if job.kind != "analyse"}:
        check_task(task)
    for job in jobs:
        if job.kind != "analyse":
            check_options(job.given["method"], job.given["options"])
            _check_given(_spelled(job, known))
    folder = Folder.plan(out or Path("sweeps") / file.stem, jobs)
    counts = Counter(job.kind for job in jobs)
    fits = f"{counts['fit']} fits, " if counts["fit"] else ""
    told = f"{fits}{counts['run']} runs and {counts['analyse']} analyses"
    say(f"{folder.path}: {told}; elicit sweep work {folder.path}")


@sweep.command()
def work(
    folder: Place,
    workers: Annotated[int, typer.Option(min=1, help="With --launcher: how many.")] = 1,
    launcher: Annotated[
        str, typer.Option(help="Unless given this process works; local, slurm or ray start several that do.")
    ] = "",
    stale: Annotated[
        float, typer.Option(min=1.0, help="Seconds after which the job of a worker that is silent is taken over.")
    ] = 120.0,
) -> None:
    """Do jobs until none is left; any number of workers may, on any machine that sees the folder.

    The exit code is 1 where jobs have failed.
    """
    from elicit.sweeps import launch
    from elicit.sweeps.folder import Folder
    from elicit.sweeps.worker import work as work_on

    if launcher and launcher not in launch.LAUNCHERS:
        raise unknown("launcher", launcher, launch.LAUNCHERS)
    if workers > 1 and not launcher:
        raise UserError(f"--workers {workers} was given without --launcher; give local, slurm or ray")
    opened = Folder(folder, stale)
    more = ["--stale", str(stale)]
    if launcher == "local":
        if code := launch.local(folder, workers, more):
            raise typer.Exit(code)
    elif launcher == "slurm":
        say(f"{launch.slurm(folder, workers, more)}: give it to sbatch where it is a script; else it is submitted")
    elif launcher == "ray":
        show_json({"workers by exit code": launch.ray(folder, workers, more)})
    else:
        signal.signal(signal.SIGTERM, _interrupted)
        counts = work_on(opened, Doer().do, told=remark)
        say(", ".join(f"{count} {name}" for name, count in counts.items()))
    if launcher != "slurm" and (failed := opened.counts()["failed"]):
        told = f"{failed} of {len(opened.jobs)} jobs failed; elicit sweep status {folder} says why"
        remark(told)
        raise typer.Exit(1)


@sweep.command()
def status(
    folder: Place,
    out: Annotated[Path | None, typer.Option(help="A file for the joined table, as CSV.")] = None,
    page: Annotated[Path | None, typer.Option(help="A file for the page over all runs that are done.")] = None,
    as_json: Json = False,
) -> None:
    """How far a sweep is, what failed and why, and what its results say together, with seeds as a factor."""
    from elicit.sweeps import joined
    from elicit.sweeps.folder import Folder
    from probes.files import check_folder, write_whole

    opened = Folder(folder)
    counts, failures = opened.counts(), opened.failures()
    for file in (out, page):
        if file is not None:
            check_folder(file.parent)
    found = joined.groups(opened)
    table = list(joined.rows(found))
    if out is not None:
        write_whole(out, joined.table(table))
    if page is not None and found:
        from elicit.cli.report import report

        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            report(joined.folders(found), out=page)
    if as_json:
        show_json({**counts, "failures": failures, "results": table}, indent=2)
    else:
        say(", ".join(f"{count} {name}" for name, count in counts.items()))
        for key, told in failures.items():
            given = opened.by_key[key].given
            say(f"{key} {given.get('method') or given.get('name')}: {told.strip().splitlines()[-1]}")
        _show(table)
    if page is not None and not found:
        raise UserError(f"--page {page} was given and no run of {folder} is done yet; ask again when one is")


@sweep.command()
def schema() -> None:
    """The JSON schema of a sweep's file, for editors."""
    from elicit.sweeps.plan import Sweep

    show_json(Sweep.model_json_schema(), indent=2)


def defaults() -> dict[str, Any]:
    """The options of `elicit run` with their defaults."""
    from elicit.cli.run import run

    found = {name: one.default for name, one in inspect.signature(run).parameters.items()}
    return {name: value for name, value in found.items() if value is not inspect.Parameter.empty}


def _types(known: Mapping[str, Any]) -> dict[str, type]:
    """What each option of `elicit run` takes: what its default is, or where it has none what the command declares."""
    from elicit.cli.run import run

    declared = get_type_hints(run)
    found = {}
    for name, default in known.items():
        told = type(default) if default is not None else next(iter(get_args(declared[name])))
        found[name] = get_origin(told) or told
    return found


def _spelled(job: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a fit or a run as the command line gives them."""
    given = {**known, **job.given}
    options = given.pop("options")
    given["setting"] = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in options.items()]
    return given


def _check_given(given: Mapping[str, Any]) -> None:
    """Refuse what a job would refuse before it loads its model."""
    from elicit.cli.options import settings
    from elicit.cli.run import baselines_given, options_given
    from elicit.decoding.engine import check_engine_options

    options_given(dict(given))
    baselines_given(dict(given), given["method"])
    check_engine_options(given["engine"], settings(given["engine_setting"], {}, "--engine-set"))


class Doer:
    """Does jobs; the model of the last run stays in memory for the next."""

    def __init__(self) -> None:
        self.model: Any = None
        self.named = ""

    def do(self, job: Any, folder: Path) -> Mapping[str, Any]:
        """What came out of a job, in a folder of its own."""
        doers = {"fit": self._fit, "run": self._run, "analyse": self._analyse}
        return doers[job.kind](job, folder)

    def _given(self, job: Any, folder: Path) -> dict[str, Any]:
        """The options of a fit or a run; its model is loaded."""
        from elicit.cli.options import load_given
        from elicit.methods import get

        given = {**_spelled(job, defaults()), "out": folder}
        given["model"] = given["model"] or get(given["method"]).model
        named = json.dumps([job.model, given["model"]])
        if self.named != named:
            self.model, self.named = None, ""  # before the next is read
            self.model, self.named = load_given(given, quiet=True), named
        return given

    def _fit(self, job: Any, folder: Path) -> Mapping[str, Any]:
        from elicit.cli.run import fit_one
        from probes.files import make_folder

        given = self._given(job, folder)
        return {"bundle": str(fit_one(given, self.model).save(make_folder(folder) / BUNDLE).relative_to(folder))}

    def _run(self, job: Any, folder: Path) -> Mapping[str, Any]:
        from elicit.cli.run import run_one
        from elicit.elicited import Elicited

        given = self._given(job, folder)
        handle = Elicited.load(folder.parent / job.needs[0] / BUNDLE, self.model) if job.needs else None
        run = run_one(given, quiet=True, show=lambda run: None, model=self.model, handle=handle)
        return {"bottom_line": run.bottom_line, "digest": run.metrics["model"]["sha256"]}

    def _analyse(self, job: Any, folder: Path) -> Mapping[str, Any]:
        from elicit.analysis import analyse
        from elicit.analysis.base import save
        from elicit.evaluation.run.run import Run
        from probes.files import make_folder

        made = analyse(job.given["name"], [Run.load(folder.parent / key) for key in job.needs])
        runs = [str(folder.parent / key) for key in job.needs]
        save(made, make_folder(folder), {"command": shlex.join(["elicit", "analyse", job.given["name"], *runs])})
        return {"file": f"{job.given['name']}.json"}


def _interrupted(number: int, _: Any) -> None:
    raise KeyboardInterrupt


def _show(table: list[dict[str, Any]]) -> None:
    from elicit.cli.terminal import show_table
    from elicit.sweeps.joined import HEAD

    if table:
        head = [name for name in HEAD if name not in ("low", "high")]
        show_table(head, [[_cell(row, name) for name in head] for row in table])


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name != "accuracy":
        return str(row[name])
    return "not stated" if row[name] == "" else f"{row[name]:.1%} [{row['low']:.1%}, {row['high']:.1%}]"
