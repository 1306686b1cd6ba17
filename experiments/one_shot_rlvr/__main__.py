"""One example on an organism: five of them with five seeds, beside rewards that know nothing, and after saturation.

    python -m experiments.one_shot_rlvr                             # five examples with five seeds, and all arms
    python -m experiments.one_shot_rlvr --model smollm2-135m-absent --fits 1 --unchecked
    python -m experiments.one_shot_rlvr --part after --updates 60            # what happens after the example is solved

Every fit and every run is resumed where it was stopped. The first part is one run: all fits answer the same questions
beside direct, the ceiling and the arms with spurious rewards. The second trains longer and looks at held-out dev items
on the way, as it is and with one thing changed that may keep what was learned. Tables are printed as Markdown and kept
as JSON; figures as a page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch

from elicit import Run, evaluate
from elicit.cli.terminal import run_bars
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.metrics.gap import format_gap
from elicit.methods import cot_prompt, direct, fit, one_shot_rlvr
from elicit.methods.one_shot_rlvr.decomposition import copied
from elicit.methods.one_shot_rlvr.example_selection import choose
from elicit.models import Model, Prompt, load_model
from elicit.tasks import load_task
from elicit.tasks.base import Task
from elicit.training.rl.settings import Settings
from experiments.command import called
from experiments.markdown import markdown
from probes.figures import page, styled, table
from probes.files import write_whole

NAME = one_shot_rlvr.NAME
POOL = 32  # fit items that examples are chosen from
# What might keep, or lose, what was learned once the groups have no variance; each with all else as it is.
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no entropy bonus": {"entropy": 0.0},
    "KL 0.05": {"kl": 0.05},
    "Dr. GRPO (advantages not divided)": {"advantage": "dr-grpo"},
    "two and a half times the learning rate": {"lr": 1e-3},
}
HEAD = ("arm", "accuracy [95%]", "gap recovered [95%]", "tokens", "saturated at", "fit, s", "example's answer")


def several(model: Model, task: Task, examples: list[str], bars: Progress, **options: Any) -> dict[str, Elicited]:
    """A training on each example, with a seed of its own."""
    return {
        f"{example}, seed {seed}": fit(NAME, model, task.solved, bars, example=example, seed=seed, **options)
        for seed, example in enumerate(examples)
    }


def asked(model: Model, task: Task, given: argparse.Namespace, count: int) -> list[str]:
    """The examples that were named, or the best of the pool."""
    if given.examples:
        return [str(name) for name in given.examples.split(",")]
    found = choose(model, task.solved, Settings(), count=count, pool=POOL, prompt=Prompt())
    return [item.id for item in found.items]


def rows_of(run: Run, fits: Mapping[str, Elicited]) -> list[tuple[str, ...]]:
    """One row an arm: what it recovers, and for a trained one when it was saturated and how often it copies."""
    out = []
    for name, arm in run.metrics["arms"].items():
        found = fits[name].options["found"] if name in fits else None
        recovered = format_gap(arm["recovered"], arm["recovered_interval"]) if "recovered" in arm else "not defined"
        row = [name, with_interval(arm["accuracy"], arm["interval"]), recovered, f"{arm['tokens_per_item']:.0f}"]
        if found is not None:
            at = found["summary"]["saturation"]
            row += ["never" if at is None else str(at), f"{found['summary']['seconds']:.0f}"]
            row.append(f"{copied(run, name, found['answers']).mean():.0%}")
        out.append(tuple(row + [""] * (len(HEAD) - len(row))))
    return out


def arms(model: Model, task: Task, given: argparse.Namespace) -> None:
    """All fits beside the controls of the first, on the same questions."""
    options = {"updates": given.updates, "max_new_tokens": given.max_new_tokens}
    with run_bars(quiet=False) as bars:
        examples = asked(model, task, given, given.fits)
        fits = several(model, task, examples, bars, checked=not given.unchecked, **options)
        first, *others = fits
        if given.alone:
            shared = {"max_new_tokens": given.max_new_tokens}
            controls = {m.NAME: m.fit(model, task.solved, **shared) for m in (direct, cot_prompt)}
        else:
            controls = one_shot_rlvr.controls(fits[first], task.solved, seed=0, progress=bars)
        trained = {name: handle for name, handle in controls.items() if handle.adapter is not None}
        folder = given.runs / f"{NAME}-several-{model.name}-{given.limit}{'-alone' if given.alone else ''}"
        beside = {**controls, **{name: fits[name] for name in others}}
        run = evaluate(fits[first], task.test, against=beside, out=folder, progress=bars)
    shown = {NAME: fits[first], **trained, **{name: fits[name] for name in others}}
    rows = [(f"{first} ({NAME})" if row[0] == NAME else row[0], *row[1:]) for row in rows_of(run, shown)]
    write_whole(given.runs / f"{NAME}-several-{model.name}.json", json.dumps(rows, indent=1))
    about = f"{run.metrics['items']} questions, {run.metrics['model']['dtype']}"
    print(f"\n**{model.name}** {run.metrics['model']['sha256'][:12]}, {about}\n\n{markdown(HEAD, rows)}")


def after(model: Model, task: Task, given: argparse.Namespace) -> None:
    """Longer trainings on one example with a look at dev items every few updates."""
    held = go.Figure()
    rows, kept = [], {}
    example = asked(model, task, given, 1)[0]
    with run_bars(quiet=False) as bars:
        for name, change in CHANGES.items():
            handle = fit(
                NAME, model, task.solved, bars, example=example, updates=given.updates, check_every=given.every,
                check=given.check, max_new_tokens=given.max_new_tokens, checked=not given.unchecked, **change,
            )  # fmt: skip
            found = handle.options["found"]
            curve, at = found["curve"], found["summary"]["saturation"]
            held.add_scatter(x=curve["checked at"], y=curve["held out"], mode="lines+markers", name=name)
            kept[name] = {"change": change, "curve": curve, "summary": found["summary"]}
            best, last = max(curve["held out"]), curve["held out"][-1]
            drift = curve["kl"][-1]
            rows.append((name, "never" if at is None else str(at), f"{best:.2f}", f"{last:.2f}", f"{drift:.3f}"))
    held.update_layout(xaxis_title="update", yaxis_title="accuracy on dev items", yaxis_range=[0, 1.02])
    head = ("training", "saturated at", "best on dev", "last on dev", "KL to the base at the end")
    stem = given.runs / f"{NAME}-after-{model.name}"
    write_whole(stem.with_suffix(".json"), json.dumps(kept, indent=1))
    note = f"{given.updates} updates on {example} of {model.name}, {given.check} dev items; seed 0."
    parts = [("Held-out accuracy", "Each line is one training; none chose its checkpoint.", styled(held))]
    write_whole(stem.with_suffix(".html"), page("After saturation", note, [*parts, table(head, rows)]))
    print(f"\n{markdown(head, rows)}\n\npage: {stem.with_suffix('.html')}")


PARTS = {"arms": arms, "after": after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS), default="arms")
    parser.add_argument("--model", default=one_shot_rlvr.MODEL)
    parser.add_argument("--limit", type=int, default=200, help="questions of the test split")
    parser.add_argument("--updates", type=int, default=16)
    parser.add_argument("--fits", type=int, default=5, help="trainings, each on another example with another seed")
    parser.add_argument("--examples", default="", help="ids of fit items, joined by commas, instead of choosing")
    parser.add_argument("--alone", action="store_true", help="leave out the arms with spurious rewards")
    parser.add_argument("--every", type=int, default=5, help="updates between two looks at dev items")
    parser.add_argument("--check", type=int, default=48, help="dev items")
    parser.add_argument("--unchecked", action="store_true", help="train even where the pre-flight finds no signal")
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    PARTS[given.part](load_model(given.model), load_task("organism", limit=given.limit), given)


if __name__ == "__main__":
    called("one_shot_rlvr", main)
