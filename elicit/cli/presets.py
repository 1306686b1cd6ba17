"""Settings of published rows: `elicit run --preset NAME`, and `elicit presets` that lists and shows them.

Each is a TOML file in `elicit/presets/`: the options of `elicit run` under `[run]`, as a file of `--config` has them,
and beside them what the paper says of each setting, where that was read, and what the preset does instead.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli import completion
from elicit.cli.lines import say, show_json
from elicit.cli.options import Json, show_list
from probes.errors import unknown

FOLDER = Path(__file__).parents[1] / "presets"


def preset(name: str) -> dict[str, Any]:
    """A preset as its file has it.

    Raises:
        UserError: an unknown name.
    """
    if name not in completion.presets():
        raise unknown("preset", name, completion.presets())
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def page(name: str, about: Mapping[str, Any]) -> str:
    """A preset in Markdown, as the documentation has it: its command, and its settings beside the paper's."""
    first = f"First: {about['before']}.\n\n" if about["before"] else ""
    rows = "\n".join(
        f"| {one['what']} | {one['paper']}{f' ({where})' if (where := one['read']) else ''} | {one['preset']} |"
        for one in about["settings"]
    )
    return (
        f"## {name}\n\n{about['summary'][0].upper()}{about['summary'][1:]} (arXiv {about['paper']}).\n\n{first}"
        f"```sh\n{about['launch']}\n```\n\nExpected: {about['expected']}.\n\nCost: {about['cost']}.\n\n"
        f"| setting | the paper says (where it was read) | the preset does |\n| --- | --- | --- |\n{rows}\n"
    )


def presets(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this preset: its settings beside the paper's.", autocompletion=completion.presets),
    ] = None,
    as_json: Json = False,
) -> None:
    """Settings of published rows, for `elicit run --preset NAME`."""
    if name is None:
        known = {one: preset(one) for one in completion.presets()}
        head = ("preset", "what it is", "expected")
        show_list(head, [(one, about["summary"], about["expected"]) for one, about in known.items()], as_json)
        return
    about = preset(name)
    if as_json:
        show_json({"preset": name, **about}, indent=2)
        return
    say(page(name, about))
