"""One run from the options of the command line, and `elicit compare`: several runs side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.commands.options import (
    Device,
    DeviceMap,
    Dtype,
    Json,
    Limit,
    ModelName,
    Split,
    TaskName,
    load,
    settings,
)
from elicit.errors import UserError, unknown
from elicit.zoo import task_for


def run_one(given: dict[str, Any], *, quiet: bool, show: Any) -> Any:
    """One run from the options of the command line; returns it after `show` has shown it.

    Of several processes all fit, and the first one evaluates.
    """
    from elicit import scale
    from elicit.methods import check_options, fit, get, options_of
    from elicit.models import DEFAULT_MODEL

    if given["limit"] < 1:
        raise UserError(f"a limit of {given['limit']} items was given; give at least 1")
    if given["max_new_tokens"] < 1:
        raise UserError(f"a limit of {given['max_new_tokens']} new tokens was given; give at least 1")
    quiet = quiet or not scale.first()
    name = given["method"]
    given["model"] = given["model"] or getattr(get(name), "MODEL", DEFAULT_MODEL)
    options: dict[str, Any] = {k: given[k] for k in ("prompt", "max_new_tokens", "seed") if k in options_of(name)}
    options |= settings(given["setting"], options_of(name))
    check_options(name, options)
    baselines = _baselines(given, name)

    from elicit.evaluation import evaluate
    from elicit.tasks import load_task

    task = load_task(
        given["task"] or task_for(given["model"]), limit=None if given["split"] == "all" else given["limit"]
    )
    items = task.split(given["split"])[: given["limit"]]
    model = load(given, quiet)

    from elicit.terminal import run_bars

    with run_bars(quiet=quiet) as bars:
        handle = fit(name, model, task.solved, bars, **options)
        controls = get(name).controls(handle, task.solved, seed=given["seed"]) if given["controls"] else {}
        if not scale.first():
            return None
        run = evaluate(
            handle,
            items,
            against=controls or baselines,
            out=given["out"],
            seed=given["seed"],
            batch_rows=given["batch_rows"],
            fresh=given["fresh"],
            progress=bars,
        )
    show(run)
    return run


def _baselines(given: dict[str, Any], name: str) -> list[str]:
    from elicit.methods import METHODS

    names = [n.strip() for n in given["against"].split(",") if n.strip() and n.strip() != "none"]
    known = [*METHODS, *(f"{n}@budget" for n in METHODS if hasattr(METHODS[n], "matched"))]
    for one in names:
        if one not in known:
            raise unknown("baseline", one, known)
    return [n for n in names if n != name]


def compare(
    context: typer.Context,
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of finished runs.")] = None,
    methods: Annotated[str, typer.Option(help="Run these methods first, separated by commas, or all.")] = "",
    model: ModelName = "smollm2-135m",
    task: TaskName = "",
    split: Split = "test",
    limit: Limit = 128,
    seed: Annotated[int, typer.Option(help="Of samplers and of the bootstrap.")] = 0,
    prompt: Annotated[str, typer.Option(help="As for run.")] = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of each answer.")] = 128,
    baseline: Annotated[str, typer.Option(help="The arm that differences are taken to.")] = "direct",
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Put runs side by side on the items that they share: one table, paired differences, Holm over all of them."""
    from elicit.comparison import compare_runs, head_of, rows_of
    from elicit.methods import METHODS, get, lacking
    from elicit.run import Run

    loaded = [Run.load(folder) for folder in runs or []]
    if methods:
        left = lacking(model) if methods == "all" else {}
        for name, reason in left.items():
            print(f"elicit: {name} is left out: {reason}", file=sys.stderr)
        names = [n for n in METHODS if n not in left] if methods == "all" else [n.strip() for n in methods.split(",")]
        for name in names:
            get(name)
        given = {**context.params, "setting": None, "out": None, "fresh": False, "batch_rows": None, "controls": False}
        for name in names:
            one = {**given, "method": name, "against": "direct" if name != "direct" else "none"}
            loaded.append(run_one(one, quiet=as_json, show=lambda run: None))
    if not loaded:
        raise UserError("nothing to compare; give folders of runs, or --methods all")
    result = compare_runs(loaded, baseline=baseline, seed=seed)
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from elicit.terminal import out, show_table

    show_table(head_of(result), rows_of(result))
    out.print(f"[dim]{result['items']} items in common; differences to {result['baseline']}, paired by question[/]")
