"""`elicit lm-eval`: the command line of lm-eval, with handles of this suite among its models."""

from __future__ import annotations

import sys
import traceback
from argparse import Namespace
from pathlib import Path
from typing import Any

import typer

from probes.errors import UserError

MODEL = "elicit"
# Parts of lm-eval that read what the user wrote: an error that they raise is the user's.
_READ_INPUT = (
    "/lm_eval/_cli/",
    "/lm_eval/config/",
    "/lm_eval/tasks/",
    "/lm_eval/evaluator.py",
    "/lm_eval/api/registry.py",
)


def lm_eval(context: typer.Context) -> None:
    """Tasks of lm-eval, asked of any method: its own command line, to which `--model elicit` is known.

    All arguments are lm-eval's own (`elicit lm-eval run --help`). The model's are `pretrained`, `method` or `bundle`,
    `fit_task`, `kind`, `stop` and the options of the method: --model_args pretrained=smollm2-135m-latent
    method=cot-decoding k=4 kind=number
    """
    try:
        from lm_eval._cli import HarnessCLI
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, which elicit lm-eval needs; pip install 'elicit[lm-eval]'"
        ) from error
    from elicit.integrations.lm_eval.model import register

    register()
    sys.argv = ["lm-eval", *_with_run(context.args)]
    command = HarnessCLI()
    arguments = command.parse_args()
    if arguments.command != "run":
        command.execute(arguments)
        return
    _defaults(arguments)
    before = _results(arguments)
    try:
        command.execute(arguments)
    except (ValueError, KeyError, TypeError, FileNotFoundError, ConnectionError) as error:
        *_, last = traceback.extract_tb(error.__traceback__)
        of_input = any(part in last.filename.replace("\\", "/") for part in _READ_INPUT)
        if not of_input and not isinstance(error, OSError):  # of data that is not there
            raise
        raise UserError(f"lm-eval: {str(error).strip().splitlines()[0]}") from error
    if arguments.output_path and _results(arguments) <= before:
        raise UserError(
            f"lm-eval wrote no results to {arguments.output_path!r}; its messages above say why: mend that, "
            "or give another --output_path"
        )


def _with_run(given: list[str]) -> list[str]:
    """lm-eval puts `run` before options that no command precedes, but not before a single one."""
    return ["run", *given] if given and given[0].startswith("-") and given[0] not in ("-h", "--help") else given


def _defaults(arguments: Namespace) -> None:
    """What this command means where nothing is said: our model, any device, prompts decoded together."""
    if getattr(arguments, "config", None):
        return
    given: dict[str, Any] = vars(arguments)
    if given.get("model") is None:
        given["model"] = MODEL
    if given["model"] == MODEL:
        for key in ("device", "batch_size"):
            if given.get(key) is None:
                given[key] = "auto"


def _results(arguments: Namespace) -> set[Path]:
    """The files of results where the user wants them."""
    path = Path(arguments.output_path or ".")
    if not arguments.output_path:
        return set()
    folder, stem = (path.parent, f"{path.stem}_") if path.suffix == ".json" else (path, "results_")
    return set(folder.rglob(f"{stem}*.json"))
