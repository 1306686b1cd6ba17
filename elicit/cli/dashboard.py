"""`elicit sae dashboard`: features of an SAE over texts, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elicit.cli.estimates import DryRun, foretold
from elicit.cli.lines import show_json
from elicit.cli.options import Device, DeviceMap, Dtype, Json, ModelName, load
from elicit.cli.sae import Context, Sources, check_amount
from probes.errors import UserError

TOP = "top:20"


def dashboard(
    sae: Annotated[
        str, typer.Argument(metavar="SAE", help="A shipped name, a folder, release:id, or owner/repo:path.")
    ],
    features: Annotated[
        str, typer.Option(help="Numbers like 3,17; or top:50, those that write most in the mean over these texts.")
    ] = TOP,
    model: ModelName = "",
    sources: Sources = "",
    tokens: Annotated[int, typer.Option(help="Of all sources together.")] = 100_000,
    context: Context = 128,
    contexts: Annotated[int, typer.Option(help="Texts that are shown of each feature.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of answers and samples.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The page. Unless given: runs/features-<sae>.html.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Features of an SAE on one page that opens offline: top contexts, histogram, logit effects, neighbours."""
    from elicit.cli.terminal import fetch_bar
    from elicit.cli.terminal import out as shown
    from elicit.methods.sae_steer.corpus import corpus, sources_of
    from elicit.methods.sae_steer.forecast import dashboard as forecast
    from elicit.models.saes import open_sae
    from elicit.models.zoo import task_for
    from elicit.report.sae_dashboard import chosen, strongest
    from elicit.report.sae_dashboard import dashboard as made_page
    from probes.figures import MARK
    from probes.files import check_folder, make_folder, ours_to_replace, write_whole
    from probes.sae.activity import read_activity
    from probes.sae.autoencoder import check_feature
    from probes.sae.card import check_model
    from probes.sae.neuronpedia import with_feature

    if contexts < 1:
        raise UserError(f"contexts {contexts} was given; give at least 1")
    check_amount(tokens, context)
    name, only = with_feature(sae)
    if only >= 0 and features != TOP:
        raise UserError(f"{sae!r} and --features {features} were given; the first names its feature: give one of them")
    one = open_sae(name)
    numbers, count = chosen(features if only < 0 else str(only), one)
    for index in numbers or ():
        check_feature(index, one.d_sae)
    named = model or one.model
    if not named:
        raise UserError(f"SAE {sae!r} does not say of which model it is; give --model")
    file = out or Path("runs") / f"features-{one.name.replace('/', '-').replace(':', '-')}.html"
    check_folder(file.parent)
    ours_to_replace(file, MARK)
    given = sources_of(sources or f"{task_for(named)}+samples")
    loaded = load(named, dtype, device, device_map, quiet=as_json)
    check_model(loaded.lm, one)
    one = one.to(loaded.lm.device)
    needed = forecast(loaded, one, given, tokens, context, features=numbers, shown=count, contexts=contexts)
    foretold(
        needed, file, loaded.lm.device, what="the dashboard", for_disk="give another --out",
        for_memory="give --features by number, or fewer --contexts", dry_run=dry_run, as_json=as_json,
    )  # fmt: skip
    with fetch_bar(quiet=as_json) as progress:
        made = corpus(loaded, given, tokens, seed=seed, context=context, progress=progress, short=True)
        texts, _ = made.of()
        activity = read_activity(
            loaded.lm, one, texts, numbers, contexts=contexts,
            progress=lambda done, total: progress("activations", done, total),
        )  # fmt: skip
    if numbers is None:
        activity = activity.of(strongest(activity, one, count))
    what = ", ".join(f"{name}: {n} tokens" for name, n in made.by_source.items())
    make_folder(file.parent)
    write_whole(file, made_page(loaded, one, activity, texts, what=what))
    if as_json:
        rows = zip(
            *(x.tolist() for x in (activity.features, activity.density, activity.mean, activity.value[:, 0])),
            strict=True,
        )
        found = [dict(zip(("feature", "fires", "mean", "largest"), row, strict=True)) for row in rows]
        show_json({"page": str(file), "tokens": made.tokens, "features": found}, indent=2)
        return
    if made.tokens < tokens:
        shown.print(f"these sources have {made.tokens} tokens of the {tokens} that were asked for")
    shown.print(
        f"{len(activity.features)} features over {activity.positions} positions of {len(texts)} texts\npage: {file}",
        soft_wrap=True,
    )  # fmt: skip
