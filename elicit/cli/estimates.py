"""What a command will take, said before it begins: `--dry-run` says it and stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer

from probes.estimate import WORTH_TELLING, Estimate

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what time, memory and disk it will take, write nothing, and stop.")
]


def tell(*, quiet: bool) -> Callable[[Estimate], None]:
    """A function that is called with what a job takes before it begins; jobs of ten seconds and more are told of, on
    standard error."""

    def told(needed: Estimate) -> None:
        if not quiet and needed.seconds >= WORTH_TELLING:
            from elicit.cli.terminal import err

            err.print(f"elicit: {needed.line}", markup=False, highlight=False, soft_wrap=True)

    return told


def dry(needed: Estimate, as_json: bool) -> NoReturn:
    """Say what a command would take, and end it."""
    print(json.dumps(asdict(needed), indent=2) if as_json else needed.line)
    raise typer.Exit(0)
