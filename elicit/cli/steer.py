"""`elicit steer`: try a direction, with a sweep of its strength, side by side with what random directions do."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from elicit.cli.directions import contrasted, feature_series, read_plan, transcoder_series
from elicit.cli.estimates import DryRun, before
from elicit.cli.lines import say, show_json
from elicit.cli.options import (
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    EngineSetting,
    Json,
    ModelName,
    TaskName,
    load_given,
    was_given,
)
from elicit.models.zoo import task_for
from probes.errors import UserError, unknown

STRENGTHS = "0.1,0.2,0.4,0.8"


def steer(
    context: typer.Context,
    model: ModelName = "smollm2-135m",
    direction: Annotated[
        Path | None, typer.Option(help="A GGUF control vector or a bundle's folder, instead of a contrast.")
    ] = None,
    contrast: Annotated[
        str, typer.Option(help="Two prompts, positive,negative, on the task's fit items; or two files of texts.")
    ] = "qa-cot,qa",
    sae: Annotated[
        str, typer.Option(help="An SAE or transcoder, whose feature is the direction instead of a contrast.")
    ] = "",
    feature: Annotated[int, typer.Option(help="Its feature; unless given, the best of sae-steer's search.")] = -1,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Steer along it though the SAE does not describe the model here.")
    ] = False,
    how: Annotated[str, typer.Option("--how", help="means, pca or probe.")] = "means",
    layer: Annotated[int | None, typer.Option(help="Of the direction; two thirds of the depth unless given.")] = None,
    point: Annotated[str, typer.Option(help="resid_pre, attn_out, mlp_out or resid_post.")] = "resid_post",
    strength: Annotated[
        str, typer.Option(help=f"Strengths, separated by commas; {STRENGTHS} unless given.", show_default=False)
    ] = "",
    kl: Annotated[
        str,
        typer.Option(
            "--kl", help="Instead of strengths: nats by which they move plain text (95th percentile), like 0.1,0.5."
        ),
    ] = "",
    unit: Annotated[
        str,
        typer.Option(
            help="resid: multiples of the stream's norm; raw: of the direction; feature_max: of the feature's largest "
            "activation."
        ),
    ] = "resid",
    when: Annotated[
        str,
        typer.Option(
            help="every-step, last-prompt-token, steps:8, decaying:0.9, prompt or everywhere; a --direction's own "
            "unless given."
        ),
    ] = "every-step",
    random: Annotated[int, typer.Option(help="Random directions of the same site and length.")] = 3,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text to continue, instead of a task's questions. Repeatable.")
    ] = None,
    task: TaskName = "",
    split: Annotated[str, typer.Option(help="Of the questions; the direction is always from fit.")] = "dev",
    limit: Annotated[int, typer.Option(help="Number of questions, and of texts on each side of the contrast.")] = 32,
    put: Annotated[str, typer.Option("--format", help="How questions are put: qa, chat, …")] = "qa",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of each answer.")] = 64,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Unless given: runs/steer-<name>-<hash>.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming a run.")] = False,
    gguf: Annotated[Path | None, typer.Option(help="Also write the direction as a control vector.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the probe and of the bootstrap.")] = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    engine: EngineName = "hf",
    engine_setting: EngineSetting = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Steer along a direction at several strengths: answers side by side, dose and response, and what it costs."""
    given = {k: v for k, v in locals().items() if k != "context"}
    if direction is not None and sae:
        raise UserError("--direction and --sae were given; give one of them")
    _check_used(context, "--sae" if sae else "" if direction is None else "--direction", prompt)
    if feature < -1:
        raise UserError(
            f"--feature {feature} was given; give a number from 0, or leave it out for the best of a search"
        )
    if strength and kl:
        raise UserError(f"--strength {strength} and --kl {kl} were given; give one of them")
    strengths = _strengths(strength or STRENGTHS)
    if limit < 1 or max_new_tokens < 1 or random < 0:
        raise UserError(f"limit {limit}, max-new-tokens {max_new_tokens}, random {random}: give at least 1, 1 and 0")
    from elicit.cli.terminal import run_bars
    from elicit.evaluation.strength_sweep import Series, dose, series_of, sweep, with_controls
    from elicit.models.prompts import Prompt, named_prompt
    from elicit.tasks.free_text import free_text
    from elicit.tasks.registry import load_task
    from probes.files import check_folder, inner_folder, ours_to_replace
    from probes.sae.transcoder import is_transcoder
    from steering.formats import ARCHITECTURE, control_vectors
    from steering.interventions import UNITS, When
    from steering.strength import parse_budgets

    budgets = parse_budgets(kl)
    if kl and not budgets:
        raise UserError(f"--kl {kl!r} was given; give numbers of nats like 0.1,0.5")
    if out is not None:
        check_folder(out)
    if gguf is not None:
        check_folder(gguf.parent)
        ours_to_replace(gguf, ARCHITECTURE)
    window = When.parse(when)
    known = UNITS if sae else ["raw", "resid"]
    if unit not in known:
        raise unknown("unit", unit, known)
    if direction is not None and was_given(context, "unit"):
        raise UserError("--direction and --unit were given; a plan has units of its own: leave --unit out")
    if gguf is not None and direction is not None:
        raise UserError("--direction and --gguf were given; only a direction that was found here is written")
    source = load_task(task or task_for(model), limit=limit)
    items = free_text(prompt) if prompt else source.split(split)[:limit]
    loaded = load_given(given, quiet=as_json)
    if direction is not None:
        plan = read_plan(direction, loaded)
        if was_given(context, "when"):
            plan = tuple(replace(one, when=window) for one in plan)
        series = with_controls(Series(direction.stem, plan), random)
    elif sae and is_transcoder(Path(sae).expanduser()):
        series = transcoder_series(given, loaded, source, window)
    elif sae:
        series = feature_series(given, loaded, source, window)
    else:
        found = contrasted(given, loaded, source)
        series = series_of(found, when=window, unit=unit, controls=random)
    if gguf is not None:
        control_vectors(_everywhere(series[0].plan))  # refused before anything is decoded
    if budgets:
        strengths = _at_budgets(loaded, series[0].plan, budgets)
    by_nats = dict(zip(budgets, strengths, strict=True)) if budgets else {}
    shape = Prompt("template", template="{question}") if prompt else named_prompt(put, loaded.tokenizer)
    with run_bars(quiet=as_json) as bars:
        run = sweep(
            loaded, items, series, strengths, prompt=shape, max_new_tokens=max_new_tokens, out=out, seed=seed,
            fresh=fresh, progress=bars, before=before(dry_run=dry_run, as_json=as_json),
        )  # fmt: skip
    result = dose(run, loaded, items, series, strengths)
    _save(inner_folder(run.folder / "direction"), series, loaded, shape, gguf)
    _write_page(run, items, result, series, strengths)
    if as_json:
        show_json({"run": str(run.folder), **result, **({"kl": by_nats} if kl else {})}, indent=2)
        return
    _show(run, items, result, series, strengths)
    for nats, found in by_nats.items():
        say(f"strength {found:g} moves plain text by {nats:g} nats (95th percentile)")


def _check_used(context: typer.Context, source: str, prompt: list[str] | None) -> None:
    """Whether what was given says something of where the direction is from, and of what is asked.

    Args:
        source: the option that names it; "" where a contrast finds it.
        prompt: texts to continue, if any.

    Raises:
        UserError: an option that another source has, or that questions have and texts have not.
    """
    others = ("contrast", "how", "layer", "point") if source else ()
    without = () if source == "--sae" else ("feature", "unchecked")
    asked = () if not prompt else ("split",) if source == "--sae" else ("split", "put")  # --sae reads prompts so put
    for keys, told in (
        (without, "without --sae, whose feature they are of: give one with --sae"),
        (others, f"with {source}, which says itself what the direction is: leave out what finds one"),
        (asked, "with --prompt, whose texts are continued as they are: leave out what is of questions"),
    ):
        if found := [f"--{'format' if key == 'put' else key}" for key in keys if was_given(context, key)]:
            raise UserError(f"{', '.join(found)} given {told}")


def _strengths(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--strength {text!r} was given; give numbers separated by commas, like 0.5,1,2") from error


def _at_budgets(model: Any, plan: Any, budgets: list[float]) -> list[float]:
    """The strengths at which a plan moves plain text by so many nats; its random directions get the same ones."""
    from elicit.evaluation.side_effects import plain_texts
    from steering.strength import at_kl

    texts = plain_texts(model)
    return [at_kl(model.lm, plan, nats, texts)[0].strength / plan[0].strength for nats in budgets]


def _save(folder: Path, series: Any, model: Any, prompt: Any, gguf: Path | None) -> None:
    """The direction at strength 1 as a bundle, and as a control vector where asked for."""
    from elicit.decoding.decoders import Greedy
    from elicit.elicited import Elicited
    from steering.formats import to_gguf

    plan = series[0].plan
    Elicited(model, "steer", prompt, Greedy(), interventions=plan).save(folder)
    if gguf is not None:
        to_gguf(_everywhere(plan), gguf, model.lm.config.model_type)


def _everywhere(plan: Any) -> Any:
    """The plan at every position, as a control vector has it."""
    from steering.interventions import When

    return tuple(replace(one, when=When.everywhere()) for one in plan)


HEAD = ("series", "strength", "accuracy [95%]", "difference [95%]", "tokens", "perplexity", "degenerate", "changed")


def _rows(result: Any) -> list[tuple[str, ...]]:
    from elicit.evaluation.metrics.format import not_stated_cell, signed, with_interval

    out: list[tuple[str, ...]] = []
    for r in result["rows"]:
        accuracy = "–" if r["accuracy"] is None else with_interval(r["accuracy"], r["interval"])
        out.append(
            (
                r["series"],
                f"{r['strength']:g}",
                accuracy if r["stated"] else not_stated_cell(r["least"]),
                with_interval(r["difference"], r["difference_interval"], signed)
                if "difference" in r and r["strength"]
                else "",
                f"{r['tokens']:.0f}",
                f"{r['perplexity']:.1f}" if r["perplexity"] is not None else "–",
                f"{r['degenerate']}/{r['n']}",
                f"{r['changed']}/{r['n']}",
            )
        )
    return out


def _side_by_side(run: Any, items: Any, series: Any, strengths: list[float], count: int) -> list[tuple[str, ...]]:
    """For each strength of the first series the answers to the first prompts."""
    from elicit.evaluation.strength_sweep import UNSTEERED, arm_name

    arms = [UNSTEERED, *(arm_name(series[0].name, x) for x in strengths)]
    return [(arm, *(run.traces[arm][item.id][0].text.strip() for item in items[:count])) for arm in arms]


def _write_page(run: Any, items: Any, result: Any, series: Any, strengths: list[float]) -> None:
    from elicit.report.dose_response import dose_response
    from elicit.report.run_section import delivery_sections
    from probes.figures import page, table

    model = result["model"]
    home = series[0].plan[0].home
    note = (
        f"{series[0].name} at {home}, {series[0].plan[0].when.kind}; {len(items)} questions of {result['task']}; "
        f"{model['name']} {model['sha256'][:12]}…, {model['dtype']}, seed {result['seed']}. Differences are to the "
        "unsteered model, paired by question."
    )
    shown = items[:3]
    parts: list[Any] = [
        (
            "Dose and response",
            "Dotted: the unsteered model. Grey: the range of the random directions of the same length. Repetition has "
            "a low perplexity: read it beside degeneration.",
            dose_response(result),
        ),
        table(HEAD, _rows(result)),
        "<h2>Answers side by side</h2>",
        table(
            ("arm", *(_short(i.question, 160) for i in shown)),
            _side_by_side(run, items, series, strengths, 3),
            prose=True,
        ),
        *delivery_sections(run.metrics),
    ]
    run.store.write("steer.html", page(f"Steering with {series[0].name}", note, parts))


def _short(text: str, most: int) -> str:
    flat = re.sub(r"\s+", " ", text).strip()
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def _show(run: Any, items: Any, result: Any, series: Any, strengths: list[float]) -> None:
    from elicit.cli.terminal import headed, out, show_table

    out.print()
    # The page holds all columns; these fit a narrow terminal.
    kept = [i for i, name in enumerate(HEAD) if name not in ("difference [95%]", "changed")]
    show_table([HEAD[i] for i in kept], [[row[i] for i in kept] for row in _rows(result)])
    out.print(f"\n{_short(items[0].question, 200)}", style="dim")
    for arm, text in _side_by_side(run, items, series, strengths, 1):
        out.print(headed(arm, f"  {_short(text, 240)}"))
    out.print(
        f"\nrun: {run.folder}   page: {run.folder / 'steer.html'}   direction: {run.folder / 'direction'}",
        soft_wrap=True,
    )  # fmt: skip
