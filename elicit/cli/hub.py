"""`elicit hub`: share results on the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from elicit.cli.lines import show_json
from elicit.cli.options import Json

hub = typer.Typer(
    name="hub", no_args_is_help=True, help="Share bundles, directions, SAEs, adapters, runs and rollouts on the hub."
)
SHOWN = 5  # files that are left out, by name


@hub.command()
def push(
    folder: Annotated[Path, typer.Argument(help="A bundle, direction, SAE, adapter, run, or a training's folder.")],
    repo: Annotated[str, typer.Argument(help="owner/name; made where it is not there.")],
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="As the hub names it: apache-2.0, mit, other, …")
    ] = "",
    base_model: Annotated[str, typer.Option(help="Its id on the hub. Unless given: as the folder names it.")] = "",
    public: Annotated[bool, typer.Option("--public", help="For everybody; a repository is private otherwise.")] = False,
    as_json: Json = False,
) -> None:
    """Push a folder with a card and a SHA-256 of every file, in one commit."""
    from elicit.cli.terminal import out
    from elicit.hub import push as pushed

    done = pushed(folder, repo, licence=licence, base_model=base_model, public=public)
    if as_json:
        show_json(asdict(done), indent=2)
        return
    prefix = "datasets/" if done.repo_type == "dataset" else ""
    lines = [
        f"{done.kind}: {len(done.files)} files, {done.bytes:,} bytes, {'private' if done.private else 'public'}, "
        f"commit {done.commit[:12]}"
    ]
    if done.left_out:
        more = ", …" if len(done.left_out) > SHOWN else ""
        lines.append(f"left out: {', '.join(map(repr, done.left_out[:SHOWN]))}{more}")
    if not done.licence:
        lines.append("no licence was given, so that nobody may use it: add --licence")
    lines.append(f"next: elicit hub pull {prefix}{done.repo} FOLDER")
    out.print("\n".join(lines), soft_wrap=True)


@hub.command()
def pull(
    repo: Annotated[str, typer.Argument(help="owner/name, or datasets/owner/name.")],
    folder: Annotated[Path, typer.Argument(help="The folder that is made.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit. Unless given: the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch what was pushed, every file checked against its SHA-256: all of it or nothing."""
    from elicit.cli.terminal import out
    from elicit.hub import pull as pulled

    done = pulled(repo, folder, revision=revision)
    if as_json:
        show_json({**asdict(done), "folder": str(done.folder)}, indent=2)
        return
    line = f"{done.kind}: {len(done.files)} files, {done.bytes:,} bytes, commit {done.commit[:12]}, in {done.folder}"
    out.print(line, soft_wrap=True)
