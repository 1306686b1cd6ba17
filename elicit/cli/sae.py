"""`elicit sae`: train sparse autoencoders on what a model will be steered on, and measure any."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.estimates import DryRun, before, dry, foretold
from elicit.cli.lines import show_json
from elicit.cli.options import Device, DeviceMap, Dtype, Json, ModelName, load
from probes.errors import UserError, as_expected
from probes.estimate import Estimate
from probes.files import read_json

sae = typer.Typer(
    name="sae", no_args_is_help=True, help="Train sparse autoencoders, and measure what they keep of a model."
)

Sources = Annotated[
    str,
    typer.Option(
        help="Tasks, samples, files (txt, jsonl, parquet), hub:owner/name, joined by +, each with *weight if wanted. "
        "Unless given: the model's task and samples."
    ),
]
Context = Annotated[int, typer.Option(help="The most tokens of an answer, a sample or a piece of a file.")]
CARD, README, TEXTS = "card.json", "README.md", "texts.jsonl"
# Columns of the card: kinds of text, and the steps that are measured.
COLUMNS: dict[str, tuple[str, tuple[int | None, int | None]]] = {
    "steering, direct": ("direct", (0, 1)),
    "steering, CoT": ("cot", (0, 1)),
    "plain text": ("plain", (None, None)),
}
ROWS = {
    "explained variance": ("reconstruction_quality", "explained_variance"),
    "cosine": ("reconstruction_quality", "cossim"),
    "cross-entropy kept (zero ablation)": ("model_performance_preservation", "ce_loss_score"),
    "cross-entropy kept (mean ablation)": ("model_performance_preservation", "ce_loss_score_mean_ablation"),
    "cross-entropy without SAE": ("model_performance_preservation", "ce_loss_without_sae"),
    "cross-entropy with SAE": ("model_performance_preservation", "ce_loss_with_sae"),
    "KL kept (zero ablation)": ("model_behavior_preservation", "kl_div_score"),
    "KL kept (mean ablation)": ("model_behavior_preservation", "kl_div_score_mean_ablation"),
    "norm out / in": ("shrinkage", "l2_ratio"),
    "L0": ("sparsity", "l0"),
    "latents that fire in these texts": ("misc_metrics", "frac_alive"),
    "tokens measured": ("token_stats", "total_tokens_eval_sparsity_variance"),
    "first tokens left out": ("token_stats", "first_tokens_left_out"),
    "massive tokens left out": ("token_stats", "massive_tokens_left_out"),
}


@sae.command()
def train(
    model: ModelName = "smollm2-135m",
    layer: Annotated[int | None, typer.Option(help="Unless given: half way down.")] = None,
    point: Annotated[str, typer.Option(help="resid_pre, attn_out, mlp_out or resid_post.")] = "resid_post",
    sources: Sources = "",
    tokens: Annotated[int, typer.Option(help="Of all sources together.")] = 200_000,
    context: Context = 128,
    architecture: Annotated[str, typer.Option(help="topk, batchtopk, jumprelu or standard.")] = "topk",
    width: Annotated[int, typer.Option(help="Number of latents. 0: four times the model's width.")] = 0,
    k: Annotated[int, typer.Option(help="Latents a token (topk), on average (batchtopk), aimed at (jumprelu).")] = 32,
    epochs: Annotated[int, typer.Option(help="Passes over all tokens.")] = 4,
    batch: Annotated[int, typer.Option(help="Tokens a step.")] = 1024,
    lr: Annotated[float, typer.Option(help="The largest learning rate.")] = 1e-3,
    sparsity: Annotated[float, typer.Option(help="Coefficient of the sparsity loss (jumprelu, standard).")] = 1.0,
    autocast: Annotated[bool, typer.Option("--autocast", help="Matrix products of the training in bf16.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of texts, first weights and order.")] = 0,
    half: Annotated[bool, typer.Option("--half/--full", help="Save matrices in 16 bits.")] = True,
    control: Annotated[
        bool, typer.Option("--control", help="Train the same on noise with the activations' mean and covariance too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--estimate", help="Say what it will take, write nothing, and stop.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder. Unless given: saes/<model>-<site>-<width>-k<k>.")] = None,
    activations: Annotated[
        Path | None, typer.Option(help="A folder to keep texts and activations in, for more SAEs of the same site.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    as_json: Json = False,
) -> None:
    """Train an SAE on a model's own texts; the same command resumes what was interrupted."""
    from elicit.cli.terminal import fetch_bar, step_bar
    from elicit.cli.terminal import out as shown
    from elicit.methods.sae_steer.corpus import corpus, identity, sources_of
    from elicit.methods.sae_steer.forecast import writing
    from elicit.models.memory import free_bytes
    from elicit.models.zoo import task_for
    from probes.estimate import check_room
    from probes.files import inner_folder, make_folder
    from probes.sae.cache import cache_activations, remove_cache
    from probes.sae.control import gaussian, spectrum
    from probes.sae.estimate import estimate as estimated
    from probes.sae.train import CONTROL, Recipe, made_of, saelens, standing, tidy
    from probes.sae.train import train as train_sae
    from probes.sites import Site, check_site, depth
    from probes.sites import width as d_model_of

    _check_used(architecture, k, sparsity)
    recipe = Recipe(
        architecture=architecture, d_sae=width, k=k, epochs=epochs, batch=batch, lr=lr, sparsity=sparsity,
        autocast=autocast, seed=seed,
    )  # fmt: skip
    check_amount(tokens, context)
    chosen = sources_of(sources or f"{task_for(model)}+samples")
    loaded = load(model, dtype, device, device_map, quiet=as_json)
    site = Site(depth(loaded.lm) // 2 if layer is None else layer, point)
    check_site(loaded.lm, site, write=True)
    d_model = d_model_of(loaded.lm)
    recipe = recipe.sized(d_model)
    about = {"model": loaded.provenance.sha256, "dtype": loaded.dtype, "site": str(site)}
    about |= {"tokenizer": loaded.encoding_sha256, "ends": sorted(loaded.eos_ids)}
    about |= identity(chosen, tokens, context, seed) | ({"control": True} if control else {})
    folder = out or Path("saes") / f"{Path(model).name}-{site}-{recipe.d_sae}-k{k}"
    if not standing(folder, made_of(recipe, d_model, about, half)):
        saelens()  # before texts are written for it
        needed = estimated(loaded.lm, site, recipe, tokens, context, trainings=1 + control)
        if not folder.is_dir():  # what was begun has its place already
            check_room(
                needed, folder, free_bytes(loaded.lm.device), what="training",
                for_memory="give a smaller --width or --batch",
                for_disk="give fewer --tokens, a smaller --width or another --out",
            )  # fmt: skip
        wrote = writing(loaded, chosen, tokens, context).seconds
        needed = replace(needed, seconds=needed.seconds + wrote, most=wrote > 0, writing_seconds=wrote)
        before(dry_run=dry_run, as_json=as_json)(needed)
        make_folder(folder)
        held = make_folder(activations) if activations else inner_folder(folder / "activations")
        inner_folder(held / str(site))
        with fetch_bar(quiet=as_json) as progress:
            made = corpus(loaded, chosen, tokens, seed=seed, context=context, journal=held / TEXTS, progress=progress)
            cached = cache_activations(
                loaded.lm, *made.of(), site, held / str(site),
                identity={"model": loaded.provenance.sha256, "dtype": loaded.dtype},
                progress=lambda done, total: progress("activations", done, total),
            )  # fmt: skip
        metadata: dict[str, Any] = {
            "model_name": model,
            "model_sha256": loaded.provenance.sha256,
            "context_size": context,
            "prepend_bos": False,
            "tokens_by_source": made.by_source,
        }
        components = spectrum(cached)
        controls: dict[str, Any] = {}
        if architecture != "standard":  # whose number of latents a token is not known before
            controls["components"] = {"rank": k, "explained_variance": components.explained(k)}
        if control:
            noise = gaussian(cached, components, seed)
            with step_bar(recipe.steps(len(noise)), quiet=as_json) as on_step:
                train_sae(
                    noise, recipe, folder / CONTROL, about={**about, "trained_on": "noise"}, metadata=metadata,
                    half=half, device=loaded.lm.device, on_step=on_step,
                )  # fmt: skip
            controls["gaussian"] = _metadata(folder / CONTROL)["training"]
        with step_bar(recipe.steps(len(cached)), quiet=as_json) as on_step:
            train_sae(
                cached, recipe, folder, about=about, metadata=metadata | {"controls": controls}, half=half,
                device=loaded.lm.device, on_step=on_step,
            )  # fmt: skip
    elif dry_run:
        dry(Estimate(0.0, beside=f"{str(folder)!r} holds this SAE, finished"), as_json)
    tidy(folder)
    if activations is None and (held := folder / "activations").is_dir():
        if (held / str(site)).is_dir():
            remove_cache(held / str(site))
        (held / TEXTS).unlink(missing_ok=True)
        if not any(held.iterdir()):
            held.rmdir()
    if not (folder / README).is_file():
        write_readme(folder)
    metadata = _metadata(folder)
    if as_json:
        show_json({"sae": str(folder), **metadata}, indent=2)
        return
    ends = metadata["training"]
    shown.print(
        f"\n{ends['steps']} steps; of the last ones: explained variance {ends['explained_variance']:.3f}, "
        f"{100 * ends['dead']:.1f}% of {recipe.d_sae} latents dead\n"
        + "".join(f"{line}\n" for line in control_lines(metadata))
        + f"sae: {folder}\nnext: elicit sae card --sae {folder} --model {model}\n"
        f"      elicit run --method sae-steer --model {model} --set sae={folder}",
        soft_wrap=True,
    )  # fmt: skip


@sae.command()
def card(
    name: Annotated[str, typer.Option("--sae", help="A shipped name, a folder, release:id, or owner/repo:path.")],
    model: ModelName = "smollm2-135m",
    sources: Sources = "",
    tokens: Annotated[int, typer.Option(help="Of all sources together.")] = 40_000,
    context: Context = 128,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch, padding included.")] = 2048,
    seed: Annotated[int, typer.Option(min=0, help="Of samples.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Measure an SAE on held-out texts, at the positions that would be steered and on plain text."""
    from elicit.cli.terminal import fetch_bar, show_table
    from elicit.cli.terminal import out as shown
    from elicit.methods.sae_steer.corpus import corpus, identity, sources_of
    from elicit.methods.sae_steer.forecast import card as forecast
    from elicit.models.saes import open_sae
    from elicit.models.zoo import task_for
    from probes.files import ours_to_replace, write_whole
    from probes.sae.card import check_model, fit_check, sae_card, similarity

    check_amount(tokens, context)
    if batch_tokens < 1:
        raise UserError(f"batch-tokens {batch_tokens}: give at least 1")
    chosen = sources_of(sources or f"{task_for(model)}+samples")
    one = open_sae(name)
    folder = Path(name).expanduser()
    if own := trained_here(folder):
        ours_to_replace(folder / CARD, '"below floor"')
        ours_to_replace(folder / README, "elicit sae train")
    loaded = load(model, dtype, device, device_map, quiet=as_json)
    check_model(loaded.lm, one)
    one = one.to(loaded.lm.device)
    needed = forecast(loaded, one, chosen, tokens, context, batch_tokens)
    foretold(
        needed, folder if own else Path(), loaded.lm.device, what="the card", for_disk="make room",
        for_memory="give a smaller --batch-tokens", dry_run=dry_run, as_json=as_json,
    )  # fmt: skip
    cards: dict[str, Any] = {}
    about = identity(chosen, tokens, context, seed)
    with fetch_bar(quiet=as_json) as progress:
        made = corpus(loaded, chosen, tokens, split="card", seed=seed, context=context, progress=progress)
        similar = similarity(one)
        for column, (kind, steps) in COLUMNS.items():
            texts, lengths = made.of(kind)  # type: ignore[arg-type]
            if texts:
                cards[column] = sae_card(
                    loaded.lm, one, texts, lengths, steps=steps, batch_tokens=batch_tokens, similar=similar,
                    progress=lambda done, total, what=column: progress(what, done, total),  # type: ignore[misc]
                )  # fmt: skip
    notes = [f"{column}: {line}" for column, one_card in cards.items() for line in fit_check(one_card)]
    result = {
        "command": _line(
            "card", sae=name, model=model, sources=about["sources"], tokens=tokens, context=context, seed=seed,
            dtype=loaded.dtype,
        ),
        "sae": {"name": name, "sha256": one.sha256, "site": str(one.site), "model": one.model},
        "model": loaded.describe(),
        **about,
        "cards": cards,
        "below floor": notes,
    }  # fmt: skip
    if own:
        write_whole(folder / CARD, json.dumps(result, indent=2))
        write_readme(folder)
    if as_json:
        show_json(result, indent=2)
        return
    show_table(("", *cards), rows_of(cards))
    shown.print(
        f"{name}, {one.d_sae} latents at {one.site}; {made.tokens} held-out tokens, "
        f"{loaded.provenance.sha256[:12]}…, {loaded.dtype}, seed {seed}",
        style="dim",
    )
    for line in notes:
        shown.print(line, style="yellow")


def _check_used(architecture: str, k: int, sparsity: float) -> None:
    """Refuse what an architecture does not have; what is given as it stands by default says nothing."""
    from probes.sae.train import Recipe

    for name, given, default, without in (
        ("k", k, Recipe.k, ("standard",)),
        ("sparsity", sparsity, Recipe.sparsity, ("topk", "batchtopk")),
    ):
        if architecture in without and given != default:
            raise UserError(f"--{name} {given:g} was given; {architecture} has none: leave it out")


def check_amount(tokens: int, context: int) -> None:
    """Refuse sizes of a corpus that are none."""
    if tokens < 1 or context < 8:
        raise UserError(f"tokens {tokens}, context {context}: give at least 1 and 8")


def rows_of(cards: Mapping[str, Any]) -> list[list[str]]:
    """The card as rows of a table, a column a kind of position."""
    return [[label, *(_cell(one[group][field]) for one in cards.values())] for label, (group, field) in ROWS.items()]


def _cell(value: int | float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def trained_here(folder: Path) -> bool:
    """Whether `elicit sae train` made this folder."""
    file = folder / "cfg.json"
    metadata = read_json(file, "fetch or save the SAE again").get("metadata") if file.is_file() else None
    return isinstance(metadata, dict) and "made" in metadata


def _metadata(folder: Path) -> dict[str, Any]:
    """What `cfg.json` says of the making of an SAE."""
    found: dict[str, Any] = read_json(folder / "cfg.json", "fetch or save the SAE again")["metadata"]
    return found


def control_lines(metadata: Mapping[str, Any]) -> list[str]:
    """What the controls of a training explain, a line each; none of SAEs that were made before there were any."""
    controls = metadata.get("controls", {})
    lines = []
    if one := controls.get("components"):
        lines.append(f"{one['rank']} principal components explain {one['explained_variance']:.3f}")
    if one := controls.get("gaussian"):
        lines.append(
            "trained alike on noise with the activations' mean and covariance: explained variance "
            f"{one['explained_variance']:.3f}, {_percent(one['dead'])} dead"
        )
    return lines


def command(metadata: Mapping[str, Any]) -> str:
    """The command that trains an SAE again, from its `cfg.json`."""
    made, recipe = metadata["made"], metadata["made"]["recipe"]
    layer, point = made["site"].split(".")
    kept = {} if recipe["architecture"] == "standard" else {"k": recipe["k"]}
    line = _line(
        "train", model=metadata["model_name"], layer=layer, point=point, sources=made["sources"],
        tokens=made["tokens"], context=made["context"], architecture=recipe["architecture"], width=recipe["d_sae"],
        **kept, epochs=recipe["epochs"], batch=recipe["batch"], lr=f"{recipe['lr']:g}",
        sparsity=f"{recipe['sparsity']:g}", seed=recipe["seed"], dtype=made["dtype"],
    )  # fmt: skip
    flags = {"--autocast": recipe["autocast"], "--full": not made["half"], "--control": made.get("control", False)}
    return " ".join([line, *(flag for flag, on in flags.items() if on)])


def _line(name: str, **options: Any) -> str:
    return shlex.join(["elicit", "sae", name, *(word for k, v in options.items() for word in (f"--{k}", str(v)))])


def write_readme(folder: Path) -> None:
    """What the SAE is, how it was made and what was measured, from `cfg.json` and `card.json`.

    Raises:
        UserError: one of them is not as it was written.
    """
    from probes.files import write_whole

    with as_expected(f"the SAE in {str(folder)!r}", f"remove its {CARD} and make the card again, or train it again"):
        write_whole(folder / README, _readme(folder))


def _readme(folder: Path) -> str:
    config = read_json(folder / "cfg.json", "train it again")
    metadata = config["metadata"]
    made, read, last = metadata["made"], metadata["activations"], metadata["training"]
    sources = ", ".join(f"{name} ({tokens})" for name, tokens in metadata["tokens_by_source"].items())
    kept = "" if made["recipe"]["architecture"] == "standard" else f", k {made['recipe']['k']}"
    lines = [
        f"# {folder.resolve().name}",
        "",
        f"A sparse autoencoder ({made['recipe']['architecture']}, {config['d_sae']} latents{kept}) "
        f"of {metadata['model_name']} (SHA-256 {made['model']}), `{metadata['hook_name']}`, in SAELens's format.",
        "",
        "```",
        command(metadata),
        "```",
        "",
        f"Trained on {read['kept']} tokens, from {sources}. Left out: {read['first']} first tokens of texts, with "
        f"{_percent(read['variance_of_first'])} of all variance, and {read['massive']} massive tokens (norm over "
        f"{read['massive_above']:.1f}), with {_percent(read['variance_of_massive'])}. In the last of {last['steps']} "
        f"steps: explained variance {last['explained_variance']:.3f}, {_percent(last['dead'])} of the latents dead.",
        *(f"\nControl: {line}." for line in control_lines(metadata)),
    ]
    if (folder / CARD).is_file():
        measured = read_json(folder / CARD, "remove it and make the card again")
        cards = measured["cards"]
        lines += [
            "",
            f"Measured on held-out texts ({measured['model']['dtype']}; all figures: `{CARD}`):",
            "",
            "```",
            measured["command"],
            "```",
            "",
            "| | " + " | ".join(cards) + " |",
            "| --- |" + " ---: |" * len(cards),
            *("| " + " | ".join(row) + " |" for row in rows_of(cards)),
        ]
        lines += ["", *(f"- {line}" for line in measured["below floor"])] if measured["below floor"] else []
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
