"""`elicit models`: what there is, and `elicit models check`: what a model can be trusted with."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from typer.core import TyperGroup

from elicit.cli import completion
from elicit.cli.lines import show_json
from elicit.cli.options import Device, DeviceMap, Dtype, Json, load, show_list


class Listing(TyperGroup):
    """Commands that are a list where none of them is named."""

    context_class = typer.Context


models = typer.Typer(name="models", cls=Listing, invoke_without_command=True)


@models.callback()
def listing(context: typer.Context, as_json: Json = False) -> None:
    """Models that have a name here (any hub id, folder or GGUF file works as well), and whether one is done right."""
    if context.invoked_subcommand is not None:
        return
    from elicit.models import zoo

    named = {name: w.summary for name, w in zoo.WEIGHTS.items()}
    named |= {name: o.summary for name, o in zoo.ORGANISMS.items()}
    rows = list(named.items()) + [(n, f"hub {repo}") for n, repo in zoo.ALIASES.items()]
    show_list(("model", "what it is"), rows, as_json)


@models.command()
def check(
    name: Annotated[str, typer.Argument(help="A name, hub id, folder or GGUF file.", autocompletion=completion.models)],
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Try each way of decoding, steering and capturing a model against its own forward; exit code 1 if refused."""
    loaded = load(name, dtype, device, device_map, quiet=as_json)
    from elicit.decoding.trial import confirmed, trial_of
    from probes.batching import padding_is_unseen

    found = trial_of(loaded.lm, again=True)
    taken, steered = found.first(), found.first(steered=True)
    own = confirmed(loaded.lm, taken) if taken else None
    padded = padding_is_unseen(loaded.lm)
    fine = bool(taken and steered and found.captured.right)
    if as_json:
        said = {"way": taken, "steered_way": steered, "own_weights_off": own, "padding_is_unseen": padded}
        show_json({**said, **asdict(found)}, indent=2)
    else:
        from elicit.cli.terminal import out, show_table

        show_table(
            ("way", "decoded", "steered"),
            [(way, str(one), str(found.steered.get(way, "not tried"))) for way, one in found.decoded.items()],
        )
        out.print(
            f"{found.model}: tried {found.subject}, {found.seconds:.1f} seconds; log-probabilities in nats\n"
            f"captured: {found.captured}; in batches {'with padding' if padded else 'of one length'}\n"
            f"decoded: {taken or 'refused'}; steered: {steered or 'refused'}"
            + ("" if own is None else f"; with its own weights off by {own:.1e} standard deviations"),
            soft_wrap=True,
        )  # fmt: skip
    if not fine:
        raise typer.Exit(1)
