"""`elicit grade` and `elicit regrade`: judge responses that are there already."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.estimates import DryRun, before, counted
from elicit.cli.lines import show_json
from elicit.cli.options import Json


def grade(
    file: Annotated[
        Path, typer.Argument(help="JSON Lines: gold, response and, where a line is of another kind, kind.")
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="number, last-number, expression, option, math, text, code or whole. Unless given: what the gold "
            "answers show."
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON Lines, one object a response, and nothing else.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Find the answer in each response and judge it, in the order of the file; without a model."""
    from elicit.tasks.answers import KINDS
    from elicit.tasks.grading import check_kind
    from elicit.tasks.responses import judge, read_responses

    if kind:
        check_kind(kind, KINDS)
    responses = read_responses(file)
    with counted(dry_run=dry_run, as_json=as_json) as progress:
        judged = judge(responses, kind or None, progress)  # type: ignore[arg-type]
    if as_json:
        for one in judged:
            show_json(one._asdict())
        return
    from elicit.cli.terminal import out

    for one in judged:
        answer = "" if one.answer is None else " ".join(one.answer.split())
        line = f"{'right' if one.right else 'wrong'}  {answer}  (found by: {one.found_by}; {one.why})"
        out.print(line, soft_wrap=True)
    counts = ", ".join(f"{n} by {how}" for how, n in Counter(one.found_by for one in judged).most_common())
    right = sum(one.right for one in judged)
    out.print(f"{right} of {len(judged)} are right; answers were found: {counts}")


def regrade(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="The new run's folder. Unless given: beside the run, where `elicit run` looks.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Find and judge the answers of a finished run anew, by the present version, into a new run; the old one stays."""
    from elicit.cli.terminal import fetch_bar, show_table
    from elicit.cli.terminal import out as console
    from elicit.evaluation.regrade import changes, forecast
    from elicit.evaluation.regrade import regrade as again
    from elicit.evaluation.run.run import Run
    from elicit.report.page import render

    old = Run.load(run)
    needed = forecast(old, out)
    before(dry_run=dry_run, as_json=as_json)(needed)
    with fetch_bar(quiet=as_json) as progress:
        new = again(old, out, render, progress)
    found: dict[str, dict[str, Any]] = changes(old, new)
    if as_json:
        show_json({"run": str(new.folder), "of": str(old.folder), "changes": found, **new.metrics}, indent=2)
        return
    if new is old:
        console.print("this run is graded by the present version already")
        return
    show_table(
        ("arm", "accuracy before", "after", "answers", "became right", "became wrong"),
        [
            (name, _accuracy(old, name), _accuracy(new, name), *(str(row[key]) for key in list(row)[2:]))
            for name, row in found.items()
        ],
    )
    console.print(f"run: {new.folder}   report: {new.folder / 'report.html'}")


def _accuracy(run: Any, name: str) -> str:
    from elicit.evaluation.metrics.format import not_stated_cell, percent
    from elicit.evaluation.metrics.verdicts import is_accuracy

    arm = run.metrics["arms"][name]
    return (percent if is_accuracy(arm, run.metrics["items"]) else not_stated_cell)(arm["accuracy"])
