"""`elicit sae find` and `elicit sae feature`: which features answer to an instruction, and what one of them is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.estimates import DryRun, foretold
from elicit.cli.lines import show_json
from elicit.cli.options import Device, DeviceMap, Dtype, Json, ModelName, TaskName, load_given
from elicit.models.zoo import task_for
from probes.errors import UserError

SAEName = Annotated[
    str, typer.Option("--sae", help="A name, folder, release:id, or owner/repo:path. Unless given: the model's own.")
]
Read = Annotated[int, typer.Option(help="Fit items that are read.")]
Put = Annotated[str, typer.Option("--prompt", help="How questions are put: qa, chat or a template file.")]
Words = Annotated[str, typer.Option(help="Reasoning words, joined by commas, for ReasonScore.")]
MODEL = "smollm2-135m-latent"


def find(
    sae: SAEName = "",
    model: ModelName = MODEL,
    task: TaskName = "",
    how: Annotated[str, typer.Option(help="contrast, reason (ReasonScore) or both.")] = "contrast",
    words: Words = "",
    top: Annotated[int, typer.Option(help="Features that are shown.")] = 15,
    read: Read = 64,
    prompt: Put = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of the answers that are read.")] = 128,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Rank an SAE's features by what they answer to."""
    given = dict(locals())
    if top < 1:
        raise UserError(f"top {top} was given; give at least 1")
    if words and how == "contrast":
        raise UserError(
            f"--words {words} was given; contrast looks for none, ReasonScore does: give --how reason or both"
        )
    from elicit.cli.terminal import out, show_table
    from elicit.methods.sae_steer.falsification import strongest_tokens
    from elicit.methods.sae_steer.pipeline import pick
    from probes.sae.neuronpedia import page_of

    on, options, loaded, _ = _ground(given)
    rows: list[dict[str, Any]] = []
    for one in pick(on, options, top):
        values = one.sae.feature(one.index).read(one.activations.thoughts)
        tokens = strongest_tokens(values, one.activations, on.thoughts, 5)
        density, maximum = float(one.firing.density[one.index]), float(one.firing.maximum[one.index])
        found = {"layer": one.sae.site.layer, "feature": one.index, "score": one.score, "fires": density}
        page = page_of(one.sae, one.index)
        rows.append({**found, "largest": maximum, "strongest tokens": tokens, **({"page": page} if page else {})})
    if as_json:
        show_json({"model": loaded.describe(), "how": how, "features": rows}, indent=2)
        return
    head = ("feature", "layer", "score", "fires", "largest", "strongest tokens")
    shown = [
        (
            str(r["feature"]), r["layer"], f"{r['score']:.4g}", f"{r['fires']:.1%}", f"{r['largest']:.1f}",
            " ".join(repr(t) for t in r["strongest tokens"]),
        )
        for r in rows
    ]  # fmt: skip
    show_table(head, shown)
    for row in rows:
        if "page" in row:
            out.print(row["page"], soft_wrap=True)
    out.print(f"\nnext: elicit sae feature {rows[0]['feature']} --model {model}" + (f" --sae {sae}" if sae else ""))


def feature(
    which: Annotated[
        str, typer.Argument(metavar="FEATURE", help="The feature's number, or neuronpedia:model/source/number.")
    ],
    sae: SAEName = "",
    model: ModelName = MODEL,
    task: TaskName = "",
    read: Read = 64,
    prompt: Put = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of the answers that are read.")] = 128,
    out: Annotated[Path | None, typer.Option(help="The page. Unless given: runs/feature-<sae>-<n>.html.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of where tokens are injected.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """One feature's card: where it fires, what it writes, what could falsify it."""
    sae, index = _which(which, sae)
    given = {**locals(), "how": "contrast", "words": ""}
    from elicit.cli.terminal import fetch_bar
    from elicit.cli.terminal import out as shown
    from elicit.methods.sae_steer.falsification import falsify
    from elicit.methods.sae_steer.feature_card import card_page, written
    from elicit.methods.sae_steer.pipeline import pick
    from probes.figures import MARK
    from probes.files import check_folder, make_folder, ours_to_replace, write_whole
    from probes.sae.neuronpedia import page_of

    if out is not None:
        check_folder(out.parent)
        ours_to_replace(out, MARK)
    on, options, loaded, items = _ground(given)
    if len(on.saes) > 1:
        raise UserError(f"{len(on.saes)} SAEs were given; a card is of a feature of one")
    (one,) = pick(on, options, 1)
    feature = one.feature()
    with fetch_bar(quiet=as_json) as progress:
        progress("what could falsify it", 0, 0)
        card = falsify(loaded, feature, items, on.prompt, options.instruction, one.activations, on.thoughts, seed=seed)
    up, down = written(loaded, feature)
    file = out or Path("runs") / f"feature-{Path(one.sae.name).name}-{index}.html"
    address = page_of(one.sae, index)
    ours_to_replace(file, MARK)
    make_folder(file.parent)
    write_whole(file, card_page(loaded, one.sae, feature, one.activations, on.thoughts, card))
    if as_json:
        pages = {"page": str(file), "neuronpedia": address or None}
        show_json({**pages, **card, "likelier": up, "less likely": down}, indent=2)
        return
    for name in ("contrast", "paraphrase", "template", "irrelevant", "injection"):
        if card[name] is not None:
            shown.print(f"{name:<12} {card[name]:6.2f}")
    shown.print("writes       " + " ".join(repr(t) for t, _ in up[:8]))
    shown.print("; ".join(card["verdict"]) or "nothing speaks against it")
    shown.print(f"\npage: {file}", soft_wrap=True)
    if address:
        shown.print(f"Neuronpedia: {address}", soft_wrap=True)


def _which(feature: str, sae: str) -> tuple[str, int]:
    """The SAE's name and the feature's number, which may be one id of Neuronpedia's."""
    from probes.sae.neuronpedia import is_id, with_feature

    if is_id(feature):
        if sae:
            raise UserError(f"{feature!r} and --sae {sae} were given; the first names its SAE: leave --sae out")
        sae, index = with_feature(feature)
        if index < 0:
            raise UserError(f"{feature!r} names no feature; add its number: {feature}/123")
        return sae, index
    if not feature.isdecimal():
        raise UserError(f"feature {feature!r} was given; give a number, or neuronpedia:model/source/number")
    return with_feature(sae, int(feature))


def _ground(given: dict[str, Any]) -> Any:
    """What a search stands on, from the options of a command; the fit check is left to `elicit run`."""
    from elicit.cli.terminal import run_bars
    from elicit.methods import options_of
    from elicit.methods.sae_steer.forecast import search
    from elicit.methods.sae_steer.options import Search
    from elicit.methods.sae_steer.pipeline import FALSIFIED_ON, load_saes, search_data
    from elicit.models.prompts import named_prompt
    from elicit.tasks.registry import load_task
    from probes.sae.autoencoder import check_feature

    task = load_task(given["task"] or task_for(given["model"]), limit=given["read"])
    loaded = load_given(given, quiet=given["as_json"])
    asked = {k: v for k, v in options_of("sae-steer").items() if k != "prompt"}
    asked |= {k: given[k] for k in ("sae", "words", "read", "max_new_tokens")}
    asked |= {"feature": given.get("index", -1), "find": given["how"], "checked": False}
    options = Search(**asked)
    put = named_prompt(given["prompt"], loaded.tokenizer)
    saes = load_saes(options.sae, loaded)
    if options.feature >= 0:
        for one in saes:
            check_feature(options.feature, one.d_sae)
    site = max((one.site for one in saes), key=lambda site: site.layer)
    needed = search(
        loaded, task.fit[: options.read], put, options.instruction, options.max_new_tokens, site, card="index" in given
    )
    foretold(
        needed, given.get("out") or Path("runs"), loaded.lm.device, what="the search",
        for_memory="give a smaller --read or --max-new-tokens", for_disk="give another --out",
        dry_run=given["dry_run"], as_json=given["as_json"],
    )  # fmt: skip
    with run_bars(quiet=given["as_json"]) as bars:
        on = search_data(loaded, task.fit, put, options, progress=bars)
    return on, options, loaded, task.fit[:FALSIFIED_ON]
