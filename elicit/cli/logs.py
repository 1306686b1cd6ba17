"""`elicit import` and `elicit export`: logs of other programs as runs, and runs as logs of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicit.cli.lines import show_json
from elicit.cli.options import Json
from probes.errors import UserError
from probes.files import file_named


def import_(
    logs: Annotated[
        list[str],
        typer.Argument(
            help="Logs of lm-eval, Inspect, verl, TRL, each FILE or NAME=FILE: the first is under test, the second "
            "what it is held against."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The run's folder. Unless given: derived from the logs.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="lm-eval, inspect, trl or verl. Unless given: as each file shows.")
    ] = "",
    score: Annotated[
        str, typer.Option(help="Which score, where a log has several: a scorer (or SCORER/KEY), a reward function.")
    ] = "",
    gold: Annotated[str, typer.Option(help="The field of the gold answer in a trainer's file.")] = "",
    right: Annotated[
        float | None, typer.Option(help="The score from which on an answer is right. Unless given: 1 of [0, 1].")
    ] = None,
    kind: Annotated[str, typer.Option(help="Of the answers, as for `elicit grade`.")] = "",
    task: Annotated[str, typer.Option(help="The task's name, where the log's is not wanted.")] = "",
    model: Annotated[str, typer.Option(help="The model's name, where the log has none.")] = "",
    shared: Annotated[bool, typer.Option("--shared", help="Keep the questions that all logs hold.")] = False,
    as_json: Json = False,
) -> None:
    """Read logs of other programs into a run, with their own verdicts: analyse, report and compare take it."""
    from elicit.cli.terminal import out as console
    from elicit.cli.terminal import show_table
    from elicit.evaluation.imported import Verdicts, import_logs
    from elicit.report.page import render
    from elicit.report.run_section import arm_table, notes

    files: dict[str, Path] = {}
    for given in logs:
        name, path = _named(given)
        if name in files:
            raise UserError(f"two logs are named {name!r}; write NAME=FILE with another name")
        files[name] = path
    verdicts = Verdicts(score, gold, right, kind or None)  # type: ignore[arg-type]  # checked there
    run = import_logs(files, out, form=form, verdicts=verdicts, task=task, model=model, shared=shared, page=render)
    if as_json:
        show_json({"run": str(run.folder), **run.metrics}, indent=2)
        return
    show_table(*arm_table(run.metrics), main=0)
    for line in notes(run.metrics):
        console.print(line, style="dim")
    console.print(f"run: {run.folder}   report: {run.folder / 'report.html'}", soft_wrap=True)


def _named(given: str) -> tuple[str, Path]:
    """`NAME=FILE`, or a file, which is named by its stem; a file that is there is no name with a file."""
    name, equals, path = given.partition("=")
    if not equals or file_named(given):
        return Path(given).stem, Path(given)
    return name, Path(path)


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[str, typer.Option(help="inspect (an .eval log an arm) or every-eval-ever (JSON, and JSON Lines).")],
    out: Annotated[Path, typer.Option(help="The folder to write into.")],
) -> None:
    """Write a run in the form of another program, a file an arm."""
    from elicit.cli.terminal import out as console
    from elicit.evaluation.run.run import Run
    from elicit.evaluation.run.to_every_eval_ever import write_every_eval_ever
    from elicit.evaluation.run.to_inspect import write_inspect
    from probes.errors import unknown
    from probes.files import make_folder

    writers = {"inspect": write_inspect, "every-eval-ever": write_every_eval_ever}
    if to not in writers:
        raise unknown("form", to, writers)
    finished = Run.load(run)
    if not finished.store.keeps_items:
        raise UserError(f"{str(run)!r} keeps no questions, as older runs; run its command again with --fresh")
    for path in writers[to](finished, make_folder(out)):
        console.print(str(path), soft_wrap=True)
