"""The command line. Only Typer and Rich are imported until a command needs more."""

from __future__ import annotations

import difflib
import errno
import inspect
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.analyse import analyse, analyses
from elicit.cli.compare import compare, run_one
from elicit.cli.feature import feature, find
from elicit.cli.options import Against, Device, DeviceMap, Dtype, Json, Limit, Setting, Split, TaskName, show_list
from elicit.cli.organism import organism
from elicit.cli.report import report
from elicit.cli.sae import sae
from elicit.cli.steer import steer
from probes.errors import UserError, unknown

app = typer.Typer(
    name="elicit",
    help="What a language model can already do, and the keys that show it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

# Typer carries its own copy of Click from some release on: the class that its errors derive from.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
INTERRUPTED = 130


@app.command()
def run(
    context: typer.Context,
    method: Annotated[str, typer.Option(help="What to evaluate: see `elicit methods`.")] = "cot-decoding",
    model: Annotated[
        str,
        typer.Option(
            help="A model's name, hub id, folder or GGUF file. Unless given: smollm2-135m; for sae-steer and "
            "critique-ft the organism smollm2-135m-latent, whose gap is known."
        ),
    ] = "",
    task: TaskName = "",
    split: Split = "test",
    limit: Limit = 128,
    seed: Annotated[int, typer.Option(help="Of samplers and of the bootstrap.")] = 0,
    against: Against = "direct",
    controls: Annotated[
        bool, typer.Option("--controls", help="The method's own controls, instead of --against.")
    ] = False,
    prompt: Annotated[
        str, typer.Option(help="qa, qa-cot, qa-direct, chat, chat-cot, chat-direct, few-shot or a template file.")
    ] = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of each answer.")] = 128,
    setting: Setting = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Unless given: runs/<name>-<hash>.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of taking up a run.")] = False,
    batch_rows: Annotated[int | None, typer.Option(help="Answers decoded together.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with these options; the command line wins.")] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a method against its baselines on the same items; the same command takes up a run that was stopped."""
    given = _with_config(context, config)
    run_one(given, quiet=as_json, show=_print_json if as_json else _print_run)


@app.command()
def models(as_json: Json = False) -> None:
    """Models that have a name here; any hub id, folder or GGUF file works as well."""
    from elicit.models import zoo

    named = {name: w.summary for name, w in zoo.WEIGHTS.items()}
    named |= {name: o.summary for name, o in zoo.ORGANISMS.items()}
    rows = list(named.items()) + [(n, f"hub {repo}") for n, repo in zoo.ALIASES.items()]
    show_list(("model", "what it is"), rows, as_json)


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Show this task: an item of each split, and its grader's proof.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tasks that have a name here; any JSON Lines file with question and answer works as well."""
    from elicit.tasks import load_task, task_names, validate

    if name is None:
        show_list(("task", "what it is"), list(task_names().items()), as_json)
        return
    task = load_task(name, limit=16)
    proof = validate(task.all, 48)
    if as_json:
        items = [{"id": i.id, "split": i.split, "question": i.question, "answer": i.answer} for i in task.items]
        print(json.dumps({"task": task.name, "kind": task.kind, "validation": vars(proof), "items": items}, indent=2))
        return
    from elicit.cli.terminal import out

    for split in ("fit", "dev", "test"):
        first = next((i for i in task.items if i.split == split), None)
        if first is not None:
            out.print(
                f"[dim]{split}  {first.id}[/]\n{first.question}\n[dim]answer:[/] {first.answer}\n",
                markup=True,
                highlight=False,
            )
    verdict = "gold scores 1 and corrupted gold 0" if proof.ok else "its grader is NOT to be trusted"
    out.print(f"answers are of kind {task.kind}; on {proof.checked} items {verdict}")


@app.command()
def methods(as_json: Json = False) -> None:
    """Mechanisms and baselines, with their options."""
    from elicit.methods import METHODS, options_of

    rows = []
    for name, module in METHODS.items():
        options = ", ".join(f"{k}={v}" for k, v in options_of(name).items())
        rows.append((name, module.SUMMARY + (f" (arXiv {module.PAPER})" if module.PAPER else ""), options))
    show_list(("method", "what it does", "options"), rows, as_json)


app.command()(compare)
app.command()(report)
app.command()(steer)
app.command()(analyse)
app.command()(analyses)
app.add_typer(organism)
sae.command()(find)
sae.command()(feature)
app.add_typer(sae)


def _with_config(context: typer.Context, file: Path | None) -> dict[str, Any]:
    """The options of a command: the command line, then the file, then the defaults."""
    given = dict(context.params)
    if file is None:
        return given
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"configuration {str(file)!r} cannot be read ({error.strerror}); give a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"configuration {str(file)!r} is not TOML ({error}); mend it") from error
    data["setting"] = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in data.pop("options", {}).items()]
    for key, value in data.items():
        key = key.replace("-", "_")
        if key not in given or key in ("config", "as_json"):
            raise unknown(
                f"key of {file.name}",
                key,
                [k for k in given if k not in ("config", "as_json", "setting")] + ["options"],
            )
        default = given[key]
        expected = str if isinstance(default, Path) else list if key == "setting" else type(default)
        if default is not None and not isinstance(value, expected):
            raise UserError(f"{file.name}: {key} = {value!r}; expected {expected.__name__}, like {default!r}")
        if _is_default(context, key) or key == "setting":
            given[key] = [*value, *(given[key] or [])] if key == "setting" else Path(value) if key == "out" else value
    return given


def _is_default(context: typer.Context, key: str) -> bool:
    source = context.get_parameter_source(key)
    return source is None or source.name in ("DEFAULT", "DEFAULT_MAP")


def _print_json(run: Any) -> None:
    print(json.dumps({"run": str(run.folder), **run.metrics}, indent=2))


def _print_run(run: Any) -> None:
    from elicit.cli.terminal import out, show_table
    from elicit.report.run_section import READING_HEAD, arm_table, notes, reading_rows

    metrics = run.metrics
    out.print()
    show_table(*arm_table(metrics), main=0)
    out.print(
        f"[dim]{metrics['items']} items of {metrics['task']}, {metrics['model']['name']} "
        f"{metrics['model']['sha256'][:12]}…, {metrics['model']['dtype']}; accuracy in %, tokens a question; "
        f"difference: {metrics['method']} minus the row, paired; p: exact McNemar, Holm[/]\n",
        highlight=False,
    )
    if "readings" in metrics:
        show_table(READING_HEAD, reading_rows(metrics))
        out.print()
    for line in notes(metrics):
        out.print(line, highlight=False)
    out.print(f"\nrun: {run.folder}   report: {run.folder / 'report.html'}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2; Ctrl-C is 130; anything else is a bug."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # Typer's own word for Ctrl-C
            _interrupted()
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _interrupted()
    except UsageError as error:
        _fail(_usage(error))
    except typer.Exit as error:
        if error.exit_code == INTERRUPTED:
            _interrupted()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        _fail(
            f"cannot write{f' {error.filename!r}' if error.filename else ''}: {error.strerror}; "
            "finished samples are kept, make room or give another --out, and run the same command again"
        )


def _usage(error: Any) -> str:
    """One line for a mistyped command or option, with the nearest one."""
    message = error.format_message().rstrip(".")
    if hasattr(error, "option_name") and message.startswith("No such option"):
        near = difflib.get_close_matches(error.option_name, _option_names(error), n=2, cutoff=0.5)
        message = f"no option {error.option_name!r}"
        return message + (f"; did you mean {' or '.join(near)}?" if near else "; see --help")
    if message.startswith("No such command"):
        typed = message.split("'")[1]
        return str(unknown("command", typed, list(error.ctx.command.commands)))
    where = f"{error.ctx.command_path}: " if error.ctx else ""
    return f"{where}{message[0].lower()}{message[1:]}; see --help"


def _option_names(error: Any) -> list[str]:
    parameters = error.ctx.command.params if error.ctx else []
    return [name for p in parameters for name in p.opts]


def _fail(message: str) -> None:
    line = " ".join(inspect.cleandoc(message).split())
    print(f"elicit: {line}", file=sys.stderr)
    sys.exit(2)


def _interrupted() -> None:
    print("elicit: interrupted; finished samples are kept, the same command goes on from there", file=sys.stderr)
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
