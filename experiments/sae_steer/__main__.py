"""Dose, layer and position: what an intervention does as its strength, its layer and its time are changed.

    python -m experiments.sae_steer                            # on smollm2-135m-latent, 64 dev questions
    python -m experiments.sae_steer --model … --task gsm8k --sae release:id

The feature is found as `elicit run --method sae-steer` finds it, with the same options. Three resumable runs, one page,
`sae-steer.html`, and their rows as JSON beside it. The table of controls on the organisms is
`python -m experiments.organisms --method sae-steer`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch

from elicit.cli.terminal import run_bars, show_table
from elicit.elicited import Elicited
from elicit.evaluation.strength_sweep import UNSTEERED, Series, dose, sweep
from elicit.methods import fit, sae_steer
from elicit.methods.sae_steer.options import Search
from elicit.methods.sae_steer.pipeline import matched_features, pick, search_data, size_of
from elicit.models import load_model, named_prompt, zoo
from elicit.report.dose_response import dose_response
from elicit.tasks import load_task
from experiments.command import called
from probes.figures import BLUE, MUTED, page, styled, table
from probes.files import write_whole
from probes.sites import Site, depth
from probes.sweep import Band, layer_sweep
from steering.find import contrast
from steering.interventions import Add, Intervention, When

WHENS = ("prompt", "last-prompt-token", "steps:2", "steps:4", "steps:16", "decaying:0.8", "every-step", "everywhere")
DOSES = (-1.0, 0.25, 0.5, 1.0, 1.5, 2.0, 4.0)  # times the strength that dev chose


def layers_of(model: Any, step: int) -> list[int]:
    return list(range(step - 1, depth(model.lm), step))


def by_layer(
    model: Any, fit_items: Any, prompt: Any, instruction: str, layers: Sequence[int], when: When
) -> list[Series]:
    """The difference of means at each layer, as long as it is, and random directions of its length."""
    sides = [
        [shape.ids(item.question, model.tokenizer) for item in fit_items]
        for shape in (prompt.asked(instruction), prompt)
    ]
    out = []
    for layer in layers:
        found = contrast(model.lm, sides[0], sides[1], Site(layer), name=f"layer {layer}")
        out.append(Series(f"layer {layer}", (Intervention(Add(found), 1.0, "raw", when),)))
        for seed in range(3):
            other = found.random_like(seed)
            out.append(
                Series(f"layer {layer} random {seed}", (Intervention(Add(other), 1.0, "raw", when),), control=True)
            )
    return out


def layer_figure(rows: Sequence[dict[str, Any]], layers: Sequence[int]) -> go.Figure:
    named = {row["series"]: row for row in rows}
    found = [named[f"layer {n}"] for n in layers]
    others = [[named[f"layer {n} random {seed}"]["accuracy"] for seed in range(3)] for n in layers]
    band = Band([r["accuracy"] for r in found], [r["interval"][0] for r in found], [r["interval"][1] for r in found])
    null = Band([sum(o) / 3 for o in others], [min(o) for o in others], [max(o) for o in others])
    return layer_sweep(
        {"difference of means": band}, nulls={"random, as long": null}, layers=[str(n) for n in layers],
        references={UNSTEERED: named[UNSTEERED]["accuracy"]}, y="accuracy",
    )  # fmt: skip


def when_figure(rows: Sequence[dict[str, Any]]) -> go.Figure:
    figure = go.Figure()
    for control, name, colour in ((False, "the feature", BLUE), (True, "a random feature", MUTED)):
        some = [row for row in rows if row["control"] == control and row["series"] != UNSTEERED]
        figure.add_bar(
            x=[row["series"].removesuffix(" random") for row in some], y=[row["accuracy"] for row in some], name=name,
            marker={"color": colour},
            error_y={
                "type": "data", "symmetric": False, "array": [r["interval"][1] - r["accuracy"] for r in some],
                "arrayminus": [r["accuracy"] - r["interval"][0] for r in some], "thickness": 1,
            },
        )  # fmt: skip
    figure.add_hline(y=rows[0]["accuracy"], line={"color": MUTED, "dash": "dot", "width": 1})
    figure.update_layout(barmode="group", legend={"orientation": "h", "y": -0.3}, yaxis={"tickformat": ".0%"})
    return styled(figure)


HEAD = ("series", "strength", "right [95%]", "tokens", "degenerate")


def rows_of(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            row["series"], f"{row['strength']:g}",
            f"{100 * row['accuracy']:.1f} [{100 * row['interval'][0]:.1f}, {100 * row['interval'][1]:.1f}]",
            f"{row['tokens']:.0f}", f"{row['degenerate']}/{row['n']}",
        )
        for row in rows
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=sae_steer.MODEL)
    parser.add_argument("--task", default="")
    parser.add_argument("--sae", default="")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--layer-step", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = load_model(given.model)
    task = load_task(given.task or zoo.task_for(given.model), limit=given.limit)
    items = task.dev
    with run_bars(quiet=False) as bars:
        handle: Elicited = fit(
            sae_steer.NAME,
            model,
            task.solved,
            bars,
            sae=given.sae,
            max_new_tokens=given.max_new_tokens,
            seed=given.seed,
        )
        found, asked = handle.options["found"], handle.options["asked"]
        options = Search(**{**asked, "feature": found["feature"]})
        on = search_data(model, task.solved, handle.prompt, options, handle.fitted)
        best = next(one for one in pick(on, options, 1) if one.sae.site.layer == found["layer"])
        (intervention,) = handle.interventions
        random = matched_features(best, intervention, size_of(model, intervention, on), 5, given.seed)
        doses = [Series(f"feature {best.index}", (intervention,))]
        doses += [Series(name, (one,), control=True) for name, one in random.items()]
        other = next(iter(random.values()))
        whens = [Series(when, (replace(intervention, when=When.parse(when)),)) for when in WHENS]
        whens += [Series(f"{w} random", (replace(other, when=When.parse(w)),), control=True) for w in WHENS]
        layers = layers_of(model, given.layer_step)
        sweeps = {
            "dose": (doses, DOSES),
            "layer": (by_layer(model, task.fit, handle.prompt, options.instruction, layers, intervention.when), (1.0,)),
            "position": (whens, (1.0,)),
        }
        rows = {}
        label = f"{Path(given.model).name}-{given.limit}"
        for name, (series, strengths) in sweeps.items():
            run = sweep(
                model, items, series, strengths, prompt=named_prompt(handle.options["prompt"], model.tokenizer),
                max_new_tokens=given.max_new_tokens, out=given.runs / f"sae-steer-{name}-{label}",
                seed=given.seed, progress=bars,
            )  # fmt: skip
            rows[name] = dose(run, model, items, series, strengths)["rows"]
    note = (
        f"{len(items)} dev questions of {task.name}, {model.name} {model.provenance.sha256[:12]}…, {model.dtype}, "
        f"seed {given.seed}; feature {best.index} of {found['sae']} at {best.sae.site}, {found['strength']:g} "
        f"{options.unit} at {found['when']}."
    )  # fmt: skip
    parts: list[Any] = [
        ("Dose", "Multiples of the strength that dev chose; grey: five random features that fire as often, as far.",
         dose_response({"rows": rows["dose"]})),
        table(HEAD, rows_of(rows["dose"])),
        ("Layer", "The difference of means at each layer, as long as it is, at the same time.",
         layer_figure(rows["layer"], layers)),
        table(HEAD, rows_of(rows["layer"])),
        ("Position", "The same intervention at other positions.", when_figure(rows["position"])),
        table(HEAD, rows_of(rows["position"])),
    ]  # fmt: skip
    out = given.runs / f"sae-steer-{label}"
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "sae-steer.html", page("How hard, where and when", note, parts))
    write_whole(out / "sae-steer.json", json.dumps({"note": note, **rows}, indent=2))
    print(note)
    for some in rows.values():
        show_table(HEAD, rows_of(some))
    print(f"page: {out / 'sae-steer.html'}")


if __name__ == "__main__":
    called("sae_steer", main)
