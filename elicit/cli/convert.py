"""`elicit sae convert`: an SAE in another library's file, as SAELens's two files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from elicit.cli.estimates import DryRun, foretold
from elicit.cli.lines import show_json
from elicit.cli.options import Json
from probes.errors import UserError


def convert(
    source: Annotated[
        Path, typer.Argument(help="A file of tensors (ae.pt, params.npz, sae.safetensors, …), or its folder.")
    ],
    out: Annotated[Path, typer.Option(help="The folder that is written.")],
    site: Annotated[
        str,
        typer.Option(help="Where it reads, like 12.resid_post. Unless given: as said beside the file."),
    ] = "",
    model: Annotated[str, typer.Option(help="The name of its model. Unless given: likewise.")] = "",
    k: Annotated[int, typer.Option(help="Features that a TopK SAE keeps, where its file does not say it.")] = 0,
    python: Annotated[
        str, typer.Option(help="What opens a pickled file: an interpreter with torch and safetensors.")
    ] = sys.executable,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring an SAE of another library into SAELens's form; what is pickled is opened by the interpreter named."""
    from elicit.cli.terminal import err, fetch_bar
    from elicit.cli.terminal import out as shown
    from probes.sae.convert import convert as converted
    from probes.sae.convert import forecast

    if k < 0:
        raise UserError(f"k {k} was given; give at least 1")
    needed = forecast(source)
    foretold(
        needed, out, "cpu", what="converting", for_memory="convert it on a machine with more",
        for_disk="give an --out that has room", dry_run=dry_run, as_json=as_json,
    )  # fmt: skip
    with fetch_bar(quiet=as_json) as progress:
        progress("conversion", 0, 0)
        made = converted(
            source, out, site=site, model=model, k=k, python=python,
            say=lambda line: err.print(line, style="dim", soft_wrap=True),
        )  # fmt: skip
    origin = made.about["converted_from"]
    if as_json:
        about = {"sae": str(out), "site": str(made.site), "model": made.model, "features": made.d_sae}
        show_json({**about, "activation": made.activation, "converted_from": origin}, indent=2)
        return
    shown.print(
        f"{origin['layout']}, {made.d_sae} features at {made.site} of {made.model or 'a model that it does not name'}; "
        f"{origin['file']} {origin['sha256'][:12]}…\nsae: {out}\nnext: elicit sae card --sae {out} --model …",
        soft_wrap=True,
    )  # fmt: skip
