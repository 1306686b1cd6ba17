"""`elicit report`: one page for many runs, with their analyses and all samples, that opens without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from elicit.cli.estimates import DryRun, counted
from elicit.cli.lines import show_json
from elicit.cli.options import Json
from probes.errors import UserError

if TYPE_CHECKING:
    from elicit.analysis import Analysis


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, or of a comparison.")],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    analyses: Annotated[
        str,
        typer.Option(
            help="Analyses of runs, and JSON files that `elicit analyse` wrote, separated by commas; none: none; all: "
            "all of runs that these runs allow (many load the model). Unless given: those that read samples alone."
        ),
    ] = "",
    baseline: Annotated[str, typer.Option(help="The arm that differences are taken to.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    figures: Annotated[
        Path | None, typer.Option(help="A folder to write every figure of the page into, as files of their own.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            help="Of those: csv (the numbers), svg, png, pdf, separated by commas; all but csv need a Chromium."
        ),
    ] = "csv",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """One HTML page: the summary over all runs, each figure with its null, every sample, how it was made."""
    from elicit.cli.terminal import out as console
    from elicit.evaluation.forecast import PAGE
    from elicit.evaluation.run.run import Run
    from elicit.evaluation.run.store import PARQUET
    from elicit.report.comparison import compare_runs, entries
    from elicit.report.page import reference, render_all, run_parts, summary_parts
    from probes.estimate import Estimate, check_room
    from probes.figure_files import check_place, figures_of, formats_of, write_figures
    from probes.figures import MARK
    from probes.files import check_folder, make_folder, ours_to_replace, write_whole

    kinds = formats_of(formats)
    if figures is not None:
        check_place(figures)
    check_folder(out.parent)
    ours_to_replace(out, MARK)
    folders = [folder for one in runs for folder in _folders(one)]
    loaded = [Run.load(folder) for folder in folders]
    needed = Estimate(0.0, disk=PAGE + sum((folder / PARQUET).stat().st_size for folder in folders))
    check_room(needed, out, None, what="the page", for_disk="give another --out")
    fitted = [one for folder in runs for one in _fit_seconds(folder)]
    against = baseline or reference(entries(loaded))
    with counted(dry_run=dry_run, as_json=as_json, disk=needed.disk) as progress:
        asked = _asked(analyses)
        parts = len(asked.names) + 2  # the comparison, each analysis, the page
        progress("parts of the page", 0, parts)
        result = compare_runs(loaded, baseline=against, seed=seed, fit_seconds=dict(fitted))
        made, refused = _analyses(asked, loaded, baseline, lambda n: progress("parts of the page", 1 + n, parts))
        progress("parts of the page", parts - 1, parts)
        page = render_all(loaded, result, made, refused)
    make_folder(out.parent)
    write_whole(out, page)
    if figures is not None:
        drawn = list(figures_of([*summary_parts(result, made), *run_parts(loaded)]))
        files = write_figures(drawn, figures, kinds)
    if as_json:
        said = {
            "page": str(out),
            "bottom_line": result["bottom_line"],
            "runs": [str(folder) for folder in folders],
            "analyses": [one.name for one in made],
            "refused": refused,
            "figures": [] if figures is None else [str(file) for file in files],
        }
        show_json(said, indent=2)
        return
    console.print(result["bottom_line"], style="bold")
    for name, reason in refused.items():
        console.print(f"{name}: {reason}", style="dim")
    size = out.stat().st_size / 2**20
    counts = f"{len(loaded)} run{'s' * (len(loaded) != 1)}, {len(made)} analys{'is' if len(made) == 1 else 'es'}"
    console.print(f"report: {out} ({size:.1f} MiB, {counts})", soft_wrap=True)
    if figures is not None:
        console.print(f"figures: {figures} ({len(files)} files)", soft_wrap=True)


def _folders(folder: Path) -> list[Path]:
    """A run's folder, or those of a comparison."""
    from elicit.methods.compare import PLAN, RUNS

    if not (folder / PLAN).is_file():
        return [folder]
    done = sorted(path for path in (folder / RUNS).glob("*") if (path / "metrics.json").is_file())
    if not done:
        raise UserError(f"the comparison in {str(folder)!r} has no finished run; run its command again to resume it")
    return done


def _fit_seconds(folder: Path) -> list[tuple[str, float]]:
    """What a comparison says of its fits: the folder of each one's run, and seconds."""
    from elicit.methods.compare import FIT, FITS, RUNS, fit_seconds

    files = sorted((folder / FITS).glob(f"*/{FIT}"))
    return [(str(folder / RUNS / file.parent.name), fit_seconds(file)) for file in files]


class _Asked(NamedTuple):
    """Files of analyses, names of analyses, and which of these were said one by one."""

    files: list[str]
    names: list[str]
    by_name: set[str]


def _asked(asked: str) -> _Asked:
    from elicit.analysis import ANALYSES, of_samples, takes_runs

    given = [name.strip() for name in asked.split(",") if name.strip() and name.strip() != "none"]
    files = [name for name in given if name.endswith(".json")]
    names = [name for name in given if name not in files and name != "all"]
    for name in names:
        if not takes_runs(name):
            raise UserError(
                f"{name} is an analysis of a model; give the JSON file that `elicit analyse {name}` writes, or "
                "analyses of runs"
            )
    by_name = set(names)
    if "all" in given:
        names = [name for name in ANALYSES if takes_runs(name)]
    elif not asked:
        names = of_samples()
    return _Asked(files, names, by_name)


def _analyses(
    asked: _Asked, runs: list[Any], baseline: str, progress: Callable[[int], None]
) -> tuple[list[Analysis], dict[str, str]]:
    """The analyses, and of those that were not asked for by name the ones that these runs do not allow, and why."""
    from elicit.analysis import analyse, load, options_of

    made = [load(Path(file)) for file in asked.files]
    refused: dict[str, str] = {}
    for number, name in enumerate(asked.names):
        progress(number)
        try:
            chosen = {"baseline": baseline} if baseline and "baseline" in options_of(name) else {}
            made.append(analyse(name, runs, **chosen))
        except UserError as error:
            if name in asked.by_name:
                raise UserError(f"{name}: {error}") from error
            refused[name] = str(error)
    return made, refused
