"""`elicit compare`: several runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.estimates import DryRun, dry, tell, under_seeds
from elicit.cli.lines import remark, show_json
from elicit.cli.options import (
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    EngineSetting,
    Json,
    ModelName,
    Seeds,
    Split,
    TaskName,
    load_given,
    was_given,
)
from elicit.cli.track import Track, check_track, measure_arms, tracked
from elicit.models.zoo import task_for
from probes.errors import UserError
from probes.estimate import Estimate

COMPARISON, REPORT = "comparison.json", "report.html"


def compare(
    context: typer.Context,
    runs: Annotated[list[Path] | None, typer.Argument(help="Folders of finished runs.")] = None,
    methods: Annotated[str, typer.Option(help="Run these methods first, separated by commas, or all.")] = "",
    model: ModelName = "smollm2-135m",
    task: TaskName = "",
    split: Split = "test",
    limit: Annotated[int | None, typer.Option(help="Number of items of the split: 128, or 32 with --quick.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of samplers and of the bootstrap.")] = 0,
    seeds: Seeds = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fit each method with its short settings.")] = False,
    controls: Annotated[bool, typer.Option("--controls", help="Each mechanism's own controls beside it.")] = False,
    prompt: Annotated[str, typer.Option(help="As for run.")] = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of each answer, for all methods.")] = 192,
    baseline: Annotated[str, typer.Option(help="The arm that differences are taken to.")] = "direct",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the comparison. Unless given: runs/compare-<name>-<hash>.")
    ] = None,
    batch_rows: Annotated[int | None, typer.Option(help="Answers decoded together.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    engine: EngineName = "hf",
    engine_setting: EngineSetting = None,
    track: Track = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put runs side by side on the items that they share: one table, paired differences, Holm over all of them.

    With --methods they are fitted and evaluated first, one after another, with one model; the same command resumes
    where it was stopped.
    """
    given = {k: v for k, v in locals().items() if k != "context"}
    check_track(track)
    if track and not methods:
        raise UserError("--track tells what fits and evaluations measure; give it with --methods")
    given["seed_said"] = was_given(context, "seed")
    from elicit.evaluation.run.run import Run
    from elicit.report.comparison import compare_runs, each_line, head_of, remarks, rows_of
    from probes.figures import MARK
    from probes.files import check_folder, make_folder, ours_to_replace, write_whole

    if out is not None:
        check_folder(out)
        ours_to_replace(out / COMPARISON, '"seeds"' if seeds else '"tokens_per_item"')
        ours_to_replace(out / REPORT, MARK)
    named = [] if methods in ("", "all") else _named(methods)
    if named and not controls and baseline not in named:  # before anything is fitted; controls are arms of other names
        raise UserError(
            f"the baseline {baseline!r} is none of --methods {','.join(named)}; name it there too, or give one of them "
            "as --baseline"
        )
    if seeds and not dry_run:
        _compare_seeds(given)
        return
    if dry_run:
        if runs or not methods:
            raise UserError("--dry-run says what fitting and evaluating take; give it with --methods, without runs")
        dry(_foretold(given), as_json)
    if not runs and not methods:
        raise UserError("nothing to compare; give folders of runs, or --methods all")
    _check_used(context, methods)
    loaded = [Run.load(folder) for folder in runs or []]
    folder, more = out, {}
    if methods:
        done = _run_methods(given)
        loaded += done.runs
        took = {str(run.folder): done.fit_seconds[run.metrics["method"]] for run in done.runs}
        folder, more = done.folder, {"fit_seconds": took, "left_out": done.left_out}
    result = compare_runs(loaded, baseline=baseline, seed=seed, **more)
    if folder is not None:
        from elicit.report.page import render_all

        make_folder(folder)
        write_whole(folder / COMPARISON, json.dumps(result, indent=2, allow_nan=False))
        write_whole(folder / REPORT, render_all(loaded, result))
    if as_json:
        show_json(result, indent=2)
        return
    from elicit.cli.terminal import out as console
    from elicit.cli.terminal import show_table
    from elicit.evaluation.metrics.format import weights

    console.print(f"\n{result['bottom_line']}\n", style="bold")
    for line in each_line(result):
        console.print(f"{line}\n")
    show_table(head_of(result), rows_of(result))
    model_used = result["model"]
    console.print(
        f"\n{result['items']} items of {result['task']}, {model_used['name']}, {weights(model_used)}",
        style="dim",
    )
    for line in remarks(result):
        console.print(line, style="dim")
    if folder is not None:
        console.print(f"\ncomparison: {folder / COMPARISON}   report: {folder / REPORT}", soft_wrap=True)


# How methods are fitted and evaluated; runs that are there have it behind them.
_OF_METHODS = (
    "model", "task", "split", "limit", "quick", "controls", "prompt", "max_new_tokens", "batch_rows", "dtype", "device",
    "device_map", "engine", "engine_setting",
)  # fmt: skip


def _check_used(context: typer.Context, methods: str) -> None:
    """Raises a UserError for options of fits and evaluations without `--methods`."""
    options = {one.name: one.opts[0] for one in context.command.params}
    found = [options[key] for key in _OF_METHODS if was_given(context, key)]
    if found and not methods:
        raise UserError(
            f"{', '.join(found)} given for runs that are there already, of which they change nothing; give them with "
            "--methods, or leave them out"
        )


def _named(methods: str) -> list[str]:
    """Raises a UserError for a name that no method has."""
    from elicit.methods import get

    return [get(name.strip()).name for name in methods.split(",")]


def _compare_seeds(given: dict[str, Any]) -> None:
    """One comparison a seed, in `out/seed-0` and so on where a folder is given, and what they say together."""
    from elicit.evaluation.run.store import folder_for
    from elicit.evaluation.seeds import HEAD, parse_seeds, pooled, rows_of
    from elicit.report.comparison import entries
    from probes.files import make_folder, write_whole

    seeds = parse_seeds(given["seeds"])
    if given["seed_said"] or given["runs"] or not given["methods"]:
        raise UserError("--seeds fits methods with each seed; give it with --methods, without runs and without --seed")
    done = []
    for seed in seeds:
        out = None if given["out"] is None else given["out"] / f"seed-{seed}"
        remark(f"seed {seed}")
        done.append(_run_methods({**given, "seed": seed, "out": out}))
    arms = [entries(one.runs) for one in done]
    scores = [{arm.name: arm.scores for arm in some} for some in arms]
    unstated = {arm.name for some in arms for arm in some if not arm.stated}
    metrics = done[0].runs[0].metrics
    result = {
        "task": metrics["task"], "items": metrics["items"], "model": metrics["model"], "baseline": given["baseline"],
        "seeds": seeds, "arms": pooled(scores, given["baseline"], unstated=unstated),
        "folders": [str(one.folder) for one in done],
        "left_out": {f"{name}, seed {seed}": why for seed, one in zip(seeds, done, strict=True)
                     for name, why in one.left_out.items()},
    }  # fmt: skip
    folder = given["out"] or folder_for(
        "compare", metrics["task"], metrics["model"]["name"], {"seeds": [one.folder.name for one in done]}
    )
    make_folder(folder)
    write_whole(folder / COMPARISON, json.dumps(result, indent=2, allow_nan=False))
    if given["as_json"]:
        show_json(result, indent=2)
        return
    from elicit.cli.terminal import out as console
    from elicit.cli.terminal import show_table

    show_table(HEAD, rows_of(result["arms"]))
    console.print(
        f"\n{result['items']} items of {result['task']}, seeds {', '.join(map(str, seeds))}; accuracy in %; "
        f"difference: the row minus {given['baseline']}, paired; intervals over seeds and questions",
        style="dim",
    )
    for line in (*(f"{name}: left out: {why}" for name, why in result["left_out"].items()), *result["folders"]):
        console.print(line, style="dim", soft_wrap=True)
    console.print(f"\ncomparison: {folder / COMPARISON}", soft_wrap=True)


def _foretold(given: dict[str, Any]) -> Estimate:
    """What all methods take, one after another, under each seed."""
    from elicit.methods import get
    from elicit.methods.forecast import forecast_run

    names, _, model, items, shared = _asked(given)
    out = Estimate(0.0)
    for name in names:
        out += forecast_run(
            get(name), model, items, shared.options(name), lambda handle: {}, controls=shared.controls,
            out=given["out"], rows=given["batch_rows"],
        )  # fmt: skip
    return under_seeds(out, given["seeds"])


def _run_methods(given: dict[str, Any]) -> Any:
    """Fit and evaluate the methods that were named, or all that have a default on this model."""
    from elicit.cli.terminal import run_bars
    from elicit.methods.compare import run_together
    from elicit.report.page import render

    names, left, model, items, shared = _asked(given)
    with run_bars(quiet=given["as_json"]) as shown, tracked(shown, given, "compare") as bars:
        done = run_together(
            model, items, names, shared, out=given["out"], batch_rows=given["batch_rows"],
            optional=given["methods"] == "all", progress=bars,
            log=remark, page=render,
            before=tell(quiet=given["as_json"]),
        )  # fmt: skip
        for one in done.runs:
            measure_arms(bars, one)
    done.left_out.update(left)
    return done


def _asked(given: dict[str, Any]) -> tuple[list[str], dict[str, str], Any, Any, Any]:
    """Names of methods, those that have no default here, the model, the items, and what is the same for all."""
    from elicit.methods import METHODS, lacking
    from elicit.models.processes import check_alone

    check_alone("compare --methods")
    every = given["methods"] == "all"
    left = lacking(given["model"]) if every else {}
    names = [n for n in METHODS if n not in left] if every else _named(given["methods"])
    limit = given["limit"] if given["limit"] is not None else 32 if given["quick"] else 128
    for what, value in (("items", limit), ("new tokens", given["max_new_tokens"])):
        if value < 1:
            raise UserError(f"a limit of {value} {what} was given; give at least 1")

    from elicit.methods.compare import SharedOptions
    from elicit.tasks.registry import load_task

    task = load_task(given["task"] or task_for(given["model"]), limit=None if given["split"] == "all" else limit)
    items = task.split(given["split"])[:limit]
    model = load_given(given, quiet=given["as_json"])
    shared = SharedOptions(given["prompt"], given["max_new_tokens"], given["seed"], given["quick"], given["controls"])
    return names, left, model, items, shared
