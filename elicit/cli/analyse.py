"""`elicit analyse`: one analysis of a model, as a page, as JSON and as a table in the shell."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.estimates import DryRun, counted
from elicit.cli.lines import show_json
from elicit.cli.options import (
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    Json,
    ModelName,
    Setting,
    load_given,
    settings,
    show_list,
    show_options,
    was_given,
)
from probes.errors import UserError

LOADING = ("model", "dtype", "device", "device_map", "engine")  # of an analysis of a model


def analyse(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="See `elicit analyses`.")],
    runs: Annotated[list[Path] | None, typer.Argument(help="Finished runs, for an analysis of runs.")] = None,
    model: ModelName = "smollm2-135m",
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="A text, for patching the clean one; for analyses of a task a prompt's name. Repeatable."),
    ] = None,
    corrupt: Annotated[str | None, typer.Option(help="The corrupted prompt, of as many tokens.")] = None,
    answer: Annotated[str | None, typer.Option(help="The token to follow, or the clean prompt's answer.")] = None,
    wrong: Annotated[str | None, typer.Option(help="The corrupted prompt's answer.")] = None,
    task: Annotated[str | None, typer.Option(help="A task's name, with parameters after a colon, or a file.")] = None,
    split: Annotated[str | None, typer.Option(help="fit, dev, test or all.")] = None,
    limit: Annotated[int | None, typer.Option(help="Number of items of the split.")] = None,
    layer: Annotated[int | None, typer.Option(help="This layer.")] = None,
    point: Annotated[str | None, typer.Option(help="resid_pre, attn_out, mlp_out, resid_post; patching: all.")] = None,
    setting: Setting = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. Unless given: analyses/<name>-<hash>.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of halves, random prompts and permutations.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    engine: EngineName = "hf",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Look into a model or into finished runs: a page with figures, the numbers as JSON, and a short table."""
    given = {k: v for k, v in locals().items() if k != "context"}
    from elicit.analysis import analyse as run
    from elicit.analysis import check_options, get, options_of, save, takes_runs
    from elicit.analysis.base import check_place
    from elicit.evaluation.run.run import Run
    from probes.figures import MARK
    from probes.files import check_folder, make_folder, ours_to_replace, write_whole

    flags = _flags(given)
    options = {key: given[key] for key in flags if given[key] is not None}
    told = settings(setting, options_of(name))
    if twice := sorted(options.keys() & told.keys()):
        raise UserError(f"--{twice[0]} and --set {twice[0]}=… were given; give one of them")
    options |= told
    check_options(name, [*options, *(["seed"] if was_given(context, "seed") else [])])
    if "seed" in options_of(name):
        options.setdefault("seed", seed)
    if out is not None:
        check_folder(out)
        check_place(out, name)
        ours_to_replace(out / f"{name}.html", MARK)
    if not takes_runs(name) and runs:
        raise UserError(f"{name} is an analysis of a model, and a run was given ({runs[0]}); give --model instead")
    if takes_runs(name) and (loading := [f"--{k.replace('_', '-')}" for k in LOADING if was_given(context, k)]):
        raise UserError(f"{', '.join(loading)} given to {name}, which loads what its runs name: leave it out")
    subject = [Run.load(folder) for folder in runs or []] if takes_runs(name) else load_given(given, quiet=as_json)
    if takes_runs(name) and not runs:
        raise UserError(f"{name} is an analysis of runs, and none was given; give folders of finished runs")

    with counted(dry_run=dry_run, as_json=as_json) as progress:
        watched = {"progress": progress} if get(name).tells_progress else {}
        result = run(name, subject, **options, **watched)
    about = {
        "analysis": name,
        "command": _command(given, flags),
        "seed": seed,
        "options": {**options_of(name), **options},
        "model": subject[0].metrics["model"] if isinstance(subject, list) else subject.describe(),
    }
    if isinstance(subject, list):
        about["runs"] = [one.store.config["identity"] for one in subject]
    folder = out or Path("analyses") / f"{name}-{_hash(about)}"
    make_folder(folder)
    saved = save(result, folder, about)
    write_whole(folder / f"{name}.html", _page(result, about, get(name).summary))
    if as_json:
        show_json({"folder": str(folder), **saved}, indent=1, allow_nan=False)
        return
    from elicit.cli.terminal import out as console
    from elicit.cli.terminal import show_table
    from elicit.report.page import cell

    console.print()
    show_table(list(result.table[0]), [[cell(value) for value in row.values()] for row in result.table])
    console.print()
    for note in result.notes:
        console.print(note)
    console.print(f"\npage: {folder / f'{name}.html'}", soft_wrap=True)


def analyses(
    name: Annotated[str | None, typer.Argument(help="Show this analysis: what each of its options is.")] = None,
    as_json: Json = False,
) -> None:
    """Analyses of a model or of runs, with their options."""
    from elicit.analysis import ANALYSES

    if name is not None:
        show_options("analysis", name, ANALYSES, lambda one: one.analyse, as_json)
        return
    rows = []
    for name, one in ANALYSES.items():
        paper = f" (arXiv {one.paper})" if one.paper else ""
        form = "{}" if one.takes_runs else "--{}"
        options = ", ".join(form.format(key) for key in one.options)
        rows.append((one.about, name, "runs" if one.takes_runs else "a model", one.summary + paper, options))
    head = ("about", "analysis", "of", "what it shows", "options")
    show_list(head, rows, as_json)


def _flags(given: dict[str, Any]) -> list[str]:
    """The command's own options that some analysis has too: they reach it, and one that it does not have is refused."""
    from elicit.analysis import ANALYSES

    known = {key for one in ANALYSES.values() for key in one.options}
    return [key for key in given if key in known and key != "seed"]


def _command(given: dict[str, Any], flags: list[str]) -> str:
    """The command line that makes the same again."""
    from elicit.analysis import options_of

    runs = [str(folder) for folder in given["runs"] or []]
    words = ["elicit", "analyse", given["name"], *(runs or ["--model", given["model"]])]
    words += ["--seed", str(given["seed"])] if "seed" in options_of(given["name"]) else []
    words += [word for pair in given["setting"] or [] for word in ("--set", pair)]
    for key in (*flags, "dtype", "device", "device_map", "engine"):
        value = given[key]
        if value in (None, "auto") or (key, value) == ("engine", "hf"):
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{key.replace('_', '-')}", str(one)]
    return shlex.join(words)


def _hash(about: dict[str, Any]) -> str:
    """Of all that decides the result: the options, the weights and how they are computed with."""
    kept: dict[str, Any] = {key: about[key] for key in ("analysis", "options", "seed", "runs") if key in about}
    kept["model"] = {key: about["model"][key] for key in ("sha256", "dtype", "engine") if key in about["model"]}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=list).encode()).hexdigest()[:8]


def _page(result: Any, about: dict[str, Any], summary: str) -> str:
    from elicit.evaluation.metrics.format import weights
    from elicit.report.page import analysis_sections
    from probes.figures import page
    from probes.inert import escaped

    model = about["model"]
    note = f"{model['name']}, {weights(model)}; {summary}"
    parts = [*analysis_sections(result), "<h2>Made by</h2>", f"<pre>{escaped(about['command'])}</pre>"]
    return page(f"{result.name}: {model['name']}", note, parts)
