"""Options that several commands share, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from elicit.cli import completion
from elicit.cli.lines import show_json
from elicit.tasks.given import value_of
from probes.docstrings import told_of
from probes.errors import UserError, unknown

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps, …")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What decodes: hf, int8, graph, vllm, transformer-lens, nnsight, or a module:Class; hf does all.",
    ),
]
EngineSetting = Annotated[
    list[str] | None,
    typer.Option("--engine-set", help="What the engine is told, as key=value: tensor_parallel_size=2. Repeatable."),
]
DeviceMap = Annotated[str | None, typer.Option(help='"auto" spreads a model over several GPUs.')]
TaskName = Annotated[
    str,
    typer.Option(
        help="A task's name, with parameters after a colon, a JSON Lines file, or code (FILE.py:FUNCTION, "
        "inspect:PLACE@TASK, verifiers:PLACE@TASKSET). Unless given: sums of three digits, or an organism's own.",
        autocompletion=completion.tasks,
    ),
]
ModelName = Annotated[
    str, typer.Option(help="A model's name, hub id, folder or GGUF file.", autocompletion=completion.models)
]
Split = Annotated[str, typer.Option(help="fit, dev, test or all.")]
Seeds = Annotated[
    str,
    typer.Option(help="Several seeds, joined by commas: fitted and evaluated with each; intervals are over both."),
]
Limit = Annotated[int, typer.Option(help="Number of items of the split.")]
Against = Annotated[
    str, typer.Option(help="Baselines, separated by commas; with @budget they get the mechanism's tokens. none: none.")
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="An option of what is run, as key=value; of its prompt: system, begin, trigger, thought_tokens, and "
        "template.NAME, an argument of the chat template. Repeatable.",
    ),
]
PROMPT_DETAILS = {"system": "", "begin": "", "trigger": "", "thought_tokens": 0}  # of any method that puts a prompt


def show_list(head: Sequence[str], rows: Sequence[Sequence[str]], as_json: bool) -> None:
    """A table, or the same as JSON: one object a row."""
    if as_json:
        show_json([dict(zip(head, row, strict=True)) for row in rows], indent=2)
        return
    from elicit.cli.terminal import show_table

    show_table(head, rows)


def show_options(
    kind: str, name: str, known: Mapping[str, Any], function: Callable[[Any], Callable[..., Any]], as_json: bool
) -> None:
    """What a mechanism or an analysis is, and each of its options with its default.

    Args:
        kind: what it is called where there is none of this name.
        name, known: of all that are known.
        function: what of one of them takes the options.
        as_json: as one object.

    Raises:
        UserError: none has this name.
    """
    if name not in known:
        raise unknown(kind, name, known)
    one = known[name]
    rows = [({key: one.options[key] for key in told.names}, told.text) for told in told_of(function(one), one.options)]
    if as_json:
        options = [{"options": defaults, "what": text} for defaults, text in rows]
        show_json({kind: name, "what": one.summary, "paper": one.paper, "options": options}, indent=2)
        return
    from elicit.cli.terminal import headed, out, show_table

    out.print(headed(name, f"  {one.summary}" + (f" (arXiv {one.paper})" if one.paper else "") + "\n"))
    lines = [("\n".join(f"{key}={value}" for key, value in defaults.items()), text) for defaults, text in rows]
    show_table(("option and default", "what it is"), lines)


def load(
    model: str,
    dtype: str,
    device: str,
    device_map: str | None = None,
    engine: str = "hf",
    engine_setting: Sequence[str] | None = None,
    *,
    quiet: bool,
) -> Any:
    """The model that the options name, with a bar while it is fetched."""
    from elicit.cli.terminal import fetch_bar
    from elicit.decoding.engine import check_engine, check_engine_options
    from elicit.models.model import load_model

    check_engine(engine)
    told = settings(engine_setting, {}, "--engine-set")
    check_engine_options(engine, told)
    with fetch_bar(quiet=quiet) as progress:
        return load_model(
            model, dtype=dtype, device=device, device_map=device_map, engine=engine, engine_options=told,
            progress=progress,
        )  # fmt: skip


def load_given(given: Mapping[str, Any], *, quiet: bool) -> Any:
    """As `load`, from all options of a command."""
    where = given["device"], given["device_map"], given.get("engine", "hf"), given.get("engine_setting")
    return load(given["model"], given["dtype"], *where, quiet=quiet)


def was_given(context: typer.Context, key: str) -> bool:
    """Whether an option was given on the command line."""
    source = context.get_parameter_source(key)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def settings(pairs: Sequence[str] | None, known: Mapping[str, Any], option: str = "--set") -> dict[str, Any]:
    """Options given as key=value; a value is JSON unless the default is a text.

    Args:
        pairs: as on the command line.
        known: options with their defaults. Whether a key is among them is checked by who takes them.
        option: by which they were given.

    Raises:
        UserError: a pair without an equals sign, a value that cannot be held.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"{option} {pair!r} was given; write key=value")
        options[key] = value if isinstance(known.get(key), str) else value_of(value)
    return options


def with_prompt_details(options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Options with those of the prompt (`system`, `begin`, `trigger`, `template.NAME`, a table `template`) in its name.

    Args:
        options: as they were given.
        known: those of the method; what is its own is no detail of its prompt.

    Raises:
        UserError: `template` without names.
    """
    from elicit.models.prompts import with_details

    if "prompt" not in known:
        return dict(options)
    rest, details = dict(options), {}
    for key in options.keys() - known.keys():
        if key in PROMPT_DETAILS:
            details[key] = rest.pop(key)
        elif key == "template":
            table = rest.pop(key)
            if not isinstance(table, dict):
                raise UserError(
                    f"template = {table!r} was given; give its arguments by name, like template.enable_thinking=false"
                )
            details |= table
        elif key.startswith("template."):
            details[key.removeprefix("template.")] = rest.pop(key)
    return {**rest, "prompt": with_details(rest.get("prompt", known["prompt"]), details)}
