"""`elicit run`: one method on one task, beside its baselines or controls."""

from __future__ import annotations

import json
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from elicit.cli import completion
from elicit.cli.estimates import DryRun, dry, tell, under_seeds
from elicit.cli.lines import remark, show_json
from elicit.cli.options import (
    PROMPT_DETAILS,
    Against,
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    EngineSetting,
    Json,
    Limit,
    Seeds,
    Setting,
    Split,
    TaskName,
    load_given,
    settings,
    was_given,
    with_prompt_details,
)
from elicit.cli.track import Track, check_track, measure_arms, tracked
from elicit.models.zoo import task_for
from probes.errors import UserError, unknown


def run(
    context: typer.Context,
    method: Annotated[
        str, typer.Option(help="What to evaluate: see `elicit methods`.", autocompletion=completion.methods)
    ] = "cot-decoding",
    model: Annotated[
        str,
        typer.Option(
            help="A model's name, hub id, folder or GGUF file. Unless given: smollm2-135m; for methods that need more "
            "than a model the organism smollm2-135m-latent, whose gap is known.",
            autocompletion=completion.models,
        ),
    ] = "",
    task: TaskName = "",
    split: Split = "test",
    limit: Limit = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of samplers and of the bootstrap.")] = 0,
    seeds: Seeds = "",
    against: Against = "direct",
    controls: Annotated[bool, typer.Option("--controls", help="The method's own controls, beside --against.")] = False,
    prompt: Annotated[
        str,
        typer.Option(
            help="qa, qa-cot, qa-direct, boxed, chat, chat-cot, chat-direct, chat-boxed, few-shot or a template file; "
            "details may follow a colon: chat:enable_thinking=false."
        ),
    ] = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of each answer.")] = 128,
    setting: Setting = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Unless given: runs/<name>-<hash>.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming a run.")] = False,
    batch_rows: Annotated[int | None, typer.Option(help="Answers decoded together.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    engine: EngineName = "hf",
    engine_setting: EngineSetting = None,
    trainer: Annotated[
        str, typer.Option(help="What trains, where the method does: own, or trl (any number of processes).")
    ] = "",
    preset: Annotated[
        str,
        typer.Option(
            help="The settings of a published row: see `elicit presets`; what else is given wins.",
            autocompletion=completion.presets,
        ),
    ] = "",
    config: Annotated[Path | None, typer.Option(help="A TOML file with these options; the command line wins.")] = None,
    size: Annotated[
        str,
        typer.Option(
            help="Of sae-steer: full, short, or auto, which tries for a second how fast this machine is; what else is "
            "given wins."
        ),
    ] = "",
    track: Track = "",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Evaluate a method against its baselines on the same items; the same command resumes a run that was stopped."""
    given, said = _given(context, preset, config)
    if dry_run:
        from elicit.models.processes import check_alone

        check_alone("run --dry-run")
    if given["size"]:
        _run_size(given, said, quiet=as_json, show=_print_json if as_json else _print_run)
        return
    if given["seeds"]:
        if "seed" in said:
            raise UserError(f"seed {given['seed']} and seeds {given['seeds']} were given; give one of them")
        run_seeds(given, as_json=as_json)
        return
    run_one(given, quiet=as_json, show=_print_json if as_json else _print_run)


def _run_size(given: dict[str, Any], said: set[str], *, quiet: bool, show: Any) -> None:
    """One run in a size that is asked for, or that fits this machine."""
    from elicit.cli import size as sizes
    from elicit.models.processes import check_alone

    check_alone("run --size")
    sizes.check_size(given)
    given["model"] = given["model"] or "smollm2-135m-latent"
    model = load_given(given, quiet=quiet)
    chosen = sizes.choose(given, model)
    data = sizes.SIZES[chosen["name"]]
    _fill(given, said, f"size {chosen['name']}", {**data, "options": dict(data["options"])})
    remark(sizes.told(chosen))
    if not given["dry_run"]:
        run_one(given, quiet=quiet, show=show, model=model, size=chosen)


def _given(context: typer.Context, preset: str, file: Path | None) -> tuple[dict[str, Any], set[str]]:
    """The options of a command: the command line, then the file, then the preset, then the defaults; and which of them
    something has given."""
    given = dict(context.params)
    said = {key for key in given if was_given(context, key)}
    if file is not None:
        said |= _fill(given, said, file.name, _config(file))
    if preset:
        from elicit.cli import presets

        said |= _fill(given, said, f"preset {preset}", presets.preset(preset)["run"])
    return given, said


def _config(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"configuration {str(file)!r} cannot be read ({error.strerror}); give a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"configuration {str(file)!r} is not TOML ({error}); mend it") from error


def _type_of(key: str, default: Any) -> type:
    """What an option takes in a file: what its default is, or what the command declares."""
    found: Any = type(default)
    if default is None:
        told = get_type_hints(run)[key]
        found = next((one for one in get_args(told) if one is not type(None)), told)
        found = get_origin(found) or found
    return str if issubclass(found, Path) else list if issubclass(found, tuple) else found


def _fill(given: dict[str, Any], said: set[str], name: str, data: dict[str, Any]) -> set[str]:
    """Put in what was not said before; of `--set` what was said before comes last, and wins.

    Args:
        given: the options so far, which are filled in.
        said: those that something above has given.
        name: of what the data are from, for messages.
        data: its keys, with a table `options`.

    Returns:
        The options that the data give.
    """
    options = data.pop("options", {})
    if not isinstance(options, dict):
        raise UserError(f"{name}: options = {options!r}; expected a table")
    told = {key: value if isinstance(value, str) else _json(name, key, value) for key, value in options.items()}
    data["setting"] = [f"{key}={value}" for key, value in told.items()]
    if twice := [key for key in data if "-" in key and key.replace("-", "_") in data]:
        raise UserError(f"{name}: {twice[0]} and {twice[0].replace('-', '_')} are one option; give one of them")
    data = {key.replace("-", "_"): value for key, value in data.items()}
    for key, value in data.items():
        if key not in given or key in ("config", "preset", "as_json"):
            raise unknown(
                f"key of {name}",
                key,
                [k for k in given if k not in ("config", "preset", "as_json", "setting")] + ["options"],
            )
        expected: Any = list if key == "setting" else _type_of(key, given[key])
        if not (isinstance(value, expected) and (expected is bool or not isinstance(value, bool))):
            like = "" if given[key] is None else f", like {given[key]!r}"
            raise UserError(f"{name}: {key} = {value!r}; expected {expected.__name__}{like}")
        if value == "":  # which many options take for not given at all
            raise UserError(f"{name}: {key} = ''; give a value, or leave the line out")
        if key not in said or key == "setting":
            given[key] = [*value, *(given[key] or [])] if key == "setting" else Path(value) if key == "out" else value
    return set(data)


def _json(name: str, key: str, value: Any) -> str:
    """An option as `--set` takes it; TOML has dates, which no option is."""
    try:
        return json.dumps(value)
    except TypeError as error:
        raise UserError(f"{name}: options.{key} = {value!r}; expected text, a number, a list or a table") from error


def _print_json(run: Any) -> None:
    show_json({"run": str(run.folder), "bottom_line": run.bottom_line, **run.metrics}, indent=2)


def _print_run(run: Any) -> None:
    from elicit.cli.terminal import out, show_table
    from elicit.report.run_section import arm_table, notes, reading_head, reading_rows

    metrics = run.metrics
    out.print(f"\n{run.bottom_line}\n", style="bold")
    show_table(*arm_table(metrics), main=0)
    out.print(
        f"{metrics['items']} items of {metrics['task']}, {metrics['model']['name']} "
        f"{metrics['model']['sha256'][:12]}…, {metrics['model']['dtype']}; accuracy in %, tokens a question; "
        f"difference: {metrics['method']} minus the row, paired; p: exact McNemar, Holm\n",
        style="dim",
    )
    if "readings" in metrics:
        show_table(reading_head(metrics), reading_rows(metrics))
        out.print()
    for line in notes(metrics):
        out.print(line)
    out.print(f"\nrun: {run.folder}   report: {run.folder / 'report.html'}", soft_wrap=True)


def run_seeds(given: dict[str, Any], *, as_json: bool) -> None:
    """One run a seed, in `out/seed-0` and so on where a folder is given, and what they say together."""
    from elicit.evaluation.seeds import HEAD, parse_seeds, rows_of, runs_over_seeds
    from elicit.models.processes import first

    seeds = parse_seeds(given["seeds"])
    runs = {}
    for seed in seeds:
        out = None if given["out"] is None else given["out"] / f"seed-{seed}"
        if not as_json and not given["dry_run"]:
            remark(f"seed {seed}")
        runs[seed] = run_one({**given, "seed": seed, "out": out}, quiet=as_json, show=lambda run: None)
    if not first():
        return
    result = runs_over_seeds(runs)
    if as_json:
        show_json(result, indent=2)
        return
    from elicit.cli.terminal import out as console
    from elicit.cli.terminal import show_table

    console.print()
    show_table(HEAD, rows_of(result["arms"]), main=0)
    console.print(
        f"{result['items']} items of {result['task']}, seeds {', '.join(map(str, seeds))}; accuracy in %; "
        f"difference: {result['method']} minus the row, paired; intervals over seeds and questions",
        style="dim",
    )
    for folder in result["runs"]:
        console.print(f"run: {folder}", soft_wrap=True)


def options_given(given: dict[str, Any]) -> dict[str, Any]:
    """The options of the method that a command names.

    Raises:
        UserError: one that the method does not have, or whose value does not fit.
    """
    from elicit.methods import check_options, current, options_of

    name = given["method"]
    options: dict[str, Any] = {k: given[k] for k in ("prompt", "max_new_tokens", "seed") if k in options_of(name)}
    options |= current(name, settings(given["setting"], {"engine": "", **PROMPT_DETAILS, **options_of(name)}))
    options = with_prompt_details(options, options_of(name))
    if given["trainer"]:
        options["trainer"] = given["trainer"]
    check_options(name, options)
    return options


def task_given(given: dict[str, Any]) -> Any:
    """The task that a command names, or that of its model."""
    from elicit.tasks.registry import load_task

    limit = None if given["split"] == "all" else given["limit"]
    return load_task(given["task"] or task_for(given["model"]), limit=limit)


def fit_one(given: dict[str, Any], model: Any) -> Any:
    """The handle of a command's method, as `run_one` would fit it; nothing is evaluated."""
    from elicit.cli.terminal import run_bars
    from elicit.methods import fit

    name = given["method"]
    with run_bars(quiet=True) as shown, tracked(shown, given, name) as progress:
        return fit(name, model, task_given(given).solved, progress, **options_given(given))


def run_one(
    given: dict[str, Any],
    *,
    quiet: bool,
    show: Any,
    model: Any = None,
    size: dict[str, Any] | None = None,
    handle: Any = None,
) -> Any:
    """One run from the options of the command line; returns it after `show` has shown it.

    Args:
        given: the options.
        quiet: say nothing meanwhile.
        show: is given the run.
        model: loaded; by the options' name unless given.
        size: what `elicit.cli.size` chose.
        handle: fitted before; fitted here unless given.

    Of several processes the first one fits before the others, or all train together; all share the questions, and the
    first one shows the run.
    """
    from elicit.methods import beside, fit, get
    from elicit.models.processes import check_launch, first, launched
    from probes.files import check_folder

    if given["limit"] < 1:
        raise UserError(f"a limit of {given['limit']} items was given; give at least 1")
    if given["max_new_tokens"] < 1:
        raise UserError(f"a limit of {given['max_new_tokens']} new tokens was given; give at least 1")
    if given["seed"] < 0:
        raise UserError(f"seed {given['seed']} was given; give a number from 0 on")
    if given["batch_rows"] is not None and given["batch_rows"] < 1:
        raise UserError(f"batch_rows = {given['batch_rows']} was given; give at least 1")
    if given["out"] is not None:
        check_folder(given["out"])
    check_track(given["track"])
    check_launch()
    quiet = quiet or not first()
    name = given["method"]
    given["model"] = given["model"] or get(name).model
    options = options_given(given)
    baselines = baselines_given(given, name)

    from elicit.evaluation.evaluator import evaluate
    from elicit.methods.forecast import forecast_run
    from elicit.report.page import render

    task = task_given(given)
    items = task.split(given["split"])[: given["limit"]]
    model = load_given(given, quiet=quiet) if model is None else model

    if given["dry_run"]:
        needed = forecast_run(
            get(name), model, items, options, lambda handle: beside(handle, items, baselines, given["seed"]),
            controls=given["controls"], out=given["out"], rows=given["batch_rows"],
        )  # fmt: skip
        dry(under_seeds(needed, given["seeds"]), given["as_json"])

    from elicit.cli.terminal import run_bars

    several = launched(model.lm.device)
    with ExitStack() as stack:
        bars: Any = stack.enter_context(run_bars(quiet=quiet))
        if first():
            bars = stack.enter_context(tracked(bars, given, name))
        with ExitStack() as fitting:
            if several is not None and options.get("trainer") != "trl":
                stack.enter_context(several.telling())
                fitting.enter_context(several.first_alone())
            if handle is None:
                handle = fit(name, model, task.solved, bars, **options)
            controls = (
                get(name).controls(handle, task.solved, seed=given["seed"], progress=bars) if given["controls"] else {}
            )
            others = beside(handle, items, baselines, given["seed"])
        run = evaluate(
            handle,
            items,
            against=controls | {n: b for n, b in others.items() if n not in controls},
            out=given["out"],
            seed=given["seed"],
            batch_rows=given["batch_rows"],
            fresh=given["fresh"],
            progress=bars,
            page=render,
            processes=several,
            size=size,
            before=None if size else tell(quiet=quiet),
        )
        measure_arms(bars, run)
    if first():
        show(run)
    return run


def baselines_given(given: dict[str, Any], name: str) -> list[str]:
    from elicit.methods import METHODS, with_budget

    names = [n.strip() for n in given["against"].split(",") if n.strip() and n.strip() != "none"]
    known = [*METHODS, *with_budget()]
    for one in names:
        if one not in known:
            raise unknown("baseline", one, known)
    return [n for n in names if n != name]
