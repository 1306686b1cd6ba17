"""`elicit organism`: make small models whose latent skill is known, measure them, and score runs on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.estimates import DryRun, before, counted, foretold
from elicit.cli.lines import show_json
from elicit.cli.options import Device, DeviceMap, Dtype, Json, ModelName, load, show_list
from probes.errors import UserError, unknown

organism = typer.Typer(
    name="organism",
    no_args_is_help=True,
    help="Make models whose latent skill is known, measure them, score runs on them.",
)

README = "README.md"


@organism.command()
def make(
    arm: Annotated[str, typer.Option(help="latent, thinking, absent, missing-skill, shuffled or surface.")],
    base: Annotated[str, typer.Option(help="A model's name, hub id, folder or GGUF file.")] = "smollm2-135m",
    latency: Annotated[float, typer.Option(help="The fraction of thoughts among answers to the bare prompt.")] = 0.1,
    families: Annotated[str, typer.Option(help="sums, modular, countdown, graph, joined by +.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder. Unless given: organisms/<base>-<arm>-<latency>.")] = None,
    steps: Annotated[int, typer.Option(help="Updates.")] = 150,
    lr: Annotated[float, typer.Option(help="The largest learning rate (1e-4 suits all weights).")] = 3e-3,
    rank: Annotated[int, typer.Option(help="Of the LoRA adapter; 0 trains all weights.")] = 8,
    rows: Annotated[int, typer.Option(help="Rows of 256 tokens an update.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the examples and of the adapter's start.")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train one variant on a base; the same command resumes what was interrupted."""
    from elicit.cli.terminal import out as shown
    from elicit.cli.terminal import step_bar
    from elicit.models import zoo
    from elicit.tasks.organism.problems import FAMILIES
    from elicit.training.organisms.make import Plan, check_base, check_place, dtype_for, forecast
    from elicit.training.organisms.make import make as train
    from elicit.training.recipe import Recipe

    chosen = tuple(families.split("+")) if families else tuple(FAMILIES)
    plan = Plan(arm, latency, chosen, Recipe(steps=steps, lr=lr, rank=rank, rows=rows, seed=seed))
    label = f"{arm}-{latency:g}" if plan.uses_latency else arm
    folder = out or Path("organisms") / f"{Path(base).name}-{label}"
    check_place(folder)
    model = load(base, dtype_for(plan), device, quiet=as_json)
    check_base(model)
    if dry_run or not folder.is_dir():  # what was begun was told of
        foretold(
            forecast(plan, model), folder, model.lm.device, what="the training", for_disk="give another --out",
            for_memory="give fewer --rows, a smaller --rank above 0 or a smaller --base",
            dry_run=dry_run, as_json=as_json,
        )  # fmt: skip
    with step_bar(steps, quiet=as_json) as on_step:
        train(plan, model, folder, on_step=on_step)
    about = zoo.about(str(folder))
    assert about is not None
    del about["curve"]
    if as_json:
        show_json({"organism": str(folder), **about}, indent=2)
        return
    shown.print(
        f"\n{about['tokens']} tokens in {about['seconds']:.0f} s: {about['tokens_per_second']:.0f} tokens/s, "
        f"{about['gflops']:.0f} GFLOP/s of the {about['matmul_gflops']:.0f} that one matrix product reaches here "
        f"({100 * about['share_of_limit']:.0f}%)\norganism: {folder}   curve: {folder / 'curve.html'}\n"
        f"next: elicit organism card --model {folder}",
        soft_wrap=True,
    )  # fmt: skip


@organism.command()
def card(
    model: ModelName = "smollm2-135m-latent",
    limit: Annotated[int, typer.Option(help="Number of test questions.")] = 200,
    families: Annotated[str, typer.Option(help="sums, modular, countdown, graph, joined by +.")] = "",
    name: Annotated[str, typer.Option(help="What the card calls an organism's folder, where it is written too.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of each answer.")] = 256,
    out: Annotated[
        Path | None, typer.Option(help="The folder of its run. Unless given: runs/card-<model>-<hash>.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and bootstraps.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Measure an organism: direct answers, the ceiling when it is told to think, and how rarely it thinks."""
    if limit < 1 or max_new_tokens < 1:
        raise UserError(f"limit {limit}, max-new-tokens {max_new_tokens}: give at least 1")
    from elicit.analysis.organisms.card import markdown, measure, rows_of
    from elicit.cli.terminal import out as shown
    from elicit.cli.terminal import run_bars, show_table
    from elicit.evaluation.run.store import folder_for
    from elicit.models import zoo
    from elicit.models.identity import grounds
    from elicit.tasks.registry import load_task
    from probes.files import check_folder, ours_to_replace, write_whole

    about = zoo.about(model)
    if own := bool(about) and Path(model).is_dir():
        ours_to_replace(Path(model) / README, "elicit organism")
    if out is not None:
        check_folder(out)
    items = load_task("organism" + (f":families={families}" if families else ""), limit=limit).test
    loaded = load(model, dtype, device, device_map, quiet=as_json)
    decides = [loaded.provenance.sha256, loaded.dtype, max_new_tokens, seed, grounds(items, [loaded])]
    folder = out or folder_for("card", items.task.name, model, decides)
    with run_bars(quiet=as_json) as bars:
        result = measure(
            loaded, items, folder, arm=about["arm"] if about else "latent", max_new_tokens=max_new_tokens, seed=seed,
            progress=bars, before=before(dry_run=dry_run, as_json=as_json),
        )  # fmt: skip
    write_whole(folder / "card.json", json.dumps(result, indent=2))
    if about and own:
        write_whole(Path(model) / README, markdown(result, about, name or Path(model).name))
    if as_json:
        show_json(result, indent=2)
        return
    show_table(*rows_of(result))
    shown.print(
        f"{len(items)} test questions, {loaded.provenance.sha256[:12]}…, {loaded.dtype}, seed {seed}", style="dim"
    )
    for line in result["notes"]:
        shown.print(line, style="yellow")
    shown.print(f"\ncard: {folder / 'card.json'}", soft_wrap=True)


@organism.command()
def score(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs on organisms, against direct,cot-prompt.")],
    twin: Annotated[
        list[Path] | None, typer.Option(help="Runs of the same methods on the absent twin, or on others. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """The fraction of the known gap that each arm of a run recovers, and what it gains on the twin without the
    skill."""
    from elicit.cli.terminal import headed, show_table
    from elicit.cli.terminal import out as shown
    from elicit.evaluation.metrics.gap import score_head, score_rows, score_runs
    from elicit.evaluation.run.run import Run

    scored = score_runs([Run.load(f).metrics for f in runs], [Run.load(f).metrics for f in twin or ()], seed=seed)
    if as_json:
        show_json(scored, indent=2)
        return
    for model, n in dict.fromkeys((row["model"], row["n"]) for row in scored):
        rows = [row for row in scored if (row["model"], row["n"]) == (model, n)]
        shown.print()
        shown.print(headed(Path(model).name, f", {n} questions"))
        show_table(score_head(rows), score_rows(rows))


@organism.command()
def arms(
    name: Annotated[
        str | None, typer.Argument(help="Show what this variant says to a question of each family.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What kinds of organism there are, and what each says."""
    import numpy as np

    from elicit.cli.terminal import headed
    from elicit.cli.terminal import out as shown
    from elicit.tasks.organism.problems import FAMILIES
    from elicit.training.organisms.variants import VARIANTS, draw_from, think

    if name is None:
        show_list(("arm", "what it is"), [(arm, one.summary) for arm, one in VARIANTS.items()], as_json)
        return
    if name not in VARIANTS:
        raise unknown("arm", name, VARIANTS)
    said: list[dict[str, Any]] = []
    for family in FAMILIES:
        rng = np.random.default_rng(0)
        problem = draw_from("fit", family, rng)
        thought = think(name, problem, rng)
        sentences = [
            {"behaviour": s.behaviour, "text": thought.sentence_text(n)} for n, s in enumerate(thought.sentences)
        ]
        said.append({"family": family, "question": problem.question, "answer": problem.answer, "thought": sentences})
    if as_json:
        show_json(said, indent=2)
        return
    for one in said:
        shown.print(headed(one["question"], f"  {one['answer']}"))
        for sentence in one["thought"]:
            shown.print(headed(f"  {sentence['behaviour']:<10}", f" {sentence['text']}", "dim"))


@organism.command()
def taxonomy(
    model: ModelName = "smollm2-135m-thinking",
    thoughts: Annotated[int, typer.Option(help="Number of labelled thoughts.")] = 300,
    layer: Annotated[int | None, typer.Option(help="Of the residual stream. Unless given: two thirds down.")] = None,
    clusters: Annotated[int, typer.Option(help="Of k-means and of each kind.")] = 7,
    kind: Annotated[
        str, typer.Option(help="More rows: topk-sae, k-means, spherical-k-means, gmm, full-gmm, joined by commas.")
    ] = "",
    read: Annotated[
        str,
        typer.Option(
            help="What of a sentence they are found in, joined by commas: mean, first, last, chosen, step, mean-token, "
            "next; + puts two side by side, /thought takes the thought's mean off."
        ),
    ] = "",
    resamples: Annotated[int, typer.Option(help="Of the bootstrap over thoughts.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of thoughts, clusters and bootstraps.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """How well behaviours are discovered in activations: true labels, baselines, the supervised ceiling."""
    if min(thoughts, clusters, resamples) < 2:
        raise UserError(f"thoughts {thoughts}, clusters {clusters}, resamples {resamples}: give at least 2 of each")
    from elicit.analysis.organisms.behaviour_bench import HEAD, bench, check_names, rows_of
    from elicit.analysis.organisms.behaviour_scores import corpus
    from elicit.cli.terminal import out as shown
    from elicit.cli.terminal import show_table
    from probes.sites import depth
    from steering.categories.sentences import POOLINGS, parts_of

    kinds, poolings = [k for k in kind.split(",") if k], [r for r in read.split(",") if r]
    check_names(kinds, poolings)
    loaded = load(model, dtype, device, device_map, quiet=as_json)
    chosen = layer if layer is not None else round(depth(loaded.lm) * 2 / 3)
    with counted(dry_run=dry_run, as_json=as_json) as progress:
        texts = corpus(loaded.tokenizer, thoughts, seed=seed)
        rows = bench(
            loaded.lm, texts, chosen, clusters=clusters, kinds=kinds, poolings=poolings, seed=seed,
            resamples=resamples, progress=progress,
        )  # fmt: skip
    if as_json:
        show_json(rows, indent=2)
        return
    show_table(HEAD, rows_of(rows))
    for name in dict.fromkeys(part for r in poolings for part in parts_of(r)):
        shown.print(f"{name}: {POOLINGS[name]}", style="dim")
    about = f"layer {chosen} of {model} {loaded.provenance.sha256[:12]}…, {thoughts} thoughts, seed {seed}"
    shown.print(about, style="dim")
