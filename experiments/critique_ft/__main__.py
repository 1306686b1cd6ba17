"""Critiques of one problem in two places, with their controls, over several seeds; or one training update by update.

    python -m experiments.critique_ft                                  # the table of the page
    python -m experiments.critique_ft --part steps --places instruction --steps 40

Each training answers the same questions in a run of its own, so that what was stopped resumes, and a table of what is
there is printed after each. `--part steps` looks at dev items, from which the number of updates was chosen; the table
is of the test split. Where the loss of a critique lies before any training is `--part loss`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elicit import Run, evaluate
from elicit.cli.terminal import run_bars
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.metrics.format import signed, with_interval
from elicit.evaluation.metrics.gap import format_gap, recovered, scores_of
from elicit.evaluation.seeds import OverSeeds, parse_seeds, summarised
from elicit.methods import cot_prompt, critique_ft, direct, fit
from elicit.methods.critique_ft.examples import PLACES
from elicit.models import Model, load_model
from elicit.tasks import load_task
from elicit.tasks.base import Items, Task
from elicit.tasks.equations import equations
from elicit.training.saved import saved_steps
from experiments.markdown import markdown
from probes.files import make_folder, write_whole

NAME = critique_ft.NAME
KINDS = "critiques,shuffled,solutions"
ANCHORS = (direct, cot_prompt)


def trained(model: Model, task: Task, given: argparse.Namespace, bars: Progress, **changed: Any) -> Elicited:
    options = {"candidates": given.candidates, "steps": given.steps, "max_new_tokens": given.max_new_tokens}
    return fit(NAME, model, task.solved, bars, **{**options, **changed})


def scores(handle: Elicited, name: str, items: Items, bars: Progress) -> np.ndarray:
    """Of one arm in a run of its own."""
    run = evaluate(replace(handle, method=name), items, progress=bars)
    return scores_of(run.metrics, name)


def arms(model: Model, task: Task, given: argparse.Namespace) -> None:
    """Places × targets × seeds on the test split."""
    items, found = task.test, {}
    shared = {"max_new_tokens": given.max_new_tokens}
    with run_bars(quiet=False) as bars:
        anchors = {m.NAME: scores(m.fit(model, task.solved, **shared), m.NAME, items, bars) for m in ANCHORS}
        for seed in parse_seeds(given.seeds):
            for place in given.places.split(","):
                for kind in given.targets.split(","):
                    handle = trained(model, task, given, bars, place=place, targets=kind, seed=seed)
                    name = kind if kind == "solutions" else f"{kind}, {place}"  # which stand after the question anyhow
                    found.setdefault(name, {})[seed] = scores(handle, NAME, items, bars)
                    _keep(given, model, anchors, found)
    print(_keep(given, model, anchors, found))


def _keep(
    given: argparse.Namespace,
    model: Model,
    anchors: Mapping[str, np.ndarray],
    found: Mapping[str, Mapping[int, np.ndarray]],
) -> str:
    """All that is there so far, as JSON; returns it as a page has it."""
    rows = rows_of(anchors, found)
    about = {"model": model.describe(), "questions": len(anchors["direct"]), "steps": given.steps}
    make_folder(given.out.parent)
    write_whole(given.out, json.dumps({**about, "rows": rows}, indent=1))
    head = ("arm", "right [95%]", "by seed", "gap recovered", "less shuffled", "less solutions")
    shown = [[row[key] for key in head] for row in rows]
    line = f"{model.name} {model.provenance.sha256[:12]}…, {model.dtype}, {about['questions']} questions"
    return f"\n{line}, {given.steps} updates\n\n{markdown(head, shown)}"


def rows_of(anchors: Mapping[str, np.ndarray], found: Mapping[str, Mapping[int, np.ndarray]]) -> list[dict[str, str]]:
    """Each arm over its seeds; differences are paired by question, on the seeds that both have."""
    rows = []
    for name, by_seed in {**{n: {0: s} for n, s in anchors.items()}, **found}.items():
        whole = np.stack(list(by_seed.values()))
        right = summarised(whole, low=0.0, high=1.0)
        row = {"arm": name, "right [95%]": with_interval(right.mean, right.interval.pair), "by seed": ""}
        if name not in anchors:
            seeds = ", ".join(map(str, by_seed))
            row["by seed"] = f"{' '.join(f'{100 * v:.0f}' for v in right.by_seed)} (seed {seeds})"
        row["gap recovered"] = _gap(whole.mean(0), anchors)
        own = name.partition(", ")
        for control in ("shuffled", "solutions"):
            other = found.get(control if control == "solutions" else f"shuffled, {own[2]}", {})
            both = [seed for seed in by_seed if seed in other] if own[0] == "critiques" else []
            row[f"less {control}"] = _lead([by_seed[s] - other[s] for s in both]) if both else ""
        rows.append(row)
    return rows


def _gap(mean: np.ndarray, anchors: Mapping[str, np.ndarray]) -> str:
    """The fraction of the gap, of scores that are means over seeds; its interval is over questions."""
    one = recovered(mean, anchors["direct"], anchors["cot-prompt"])
    return "not defined" if one.share is None or one.interval is None else format_gap(one.share, one.interval.pair)


def _lead(apart: Sequence[np.ndarray]) -> str:
    one: OverSeeds = summarised(np.stack(apart), low=-1.0, high=1.0)
    return with_interval(one.mean, one.interval.pair, signed)


def steps(model: Model, task: Task, given: argparse.Namespace) -> None:
    """Each saved step of a training on dev items: how many think, and what becomes of their arithmetic."""
    items = task.dev[: given.dev]
    seed = parse_seeds(given.seeds)[0]
    shared = {"max_new_tokens": given.max_new_tokens}
    with run_bars(quiet=False) as bars:
        for place in given.places.split(","):
            for kind in given.targets.split(","):
                handle = trained(model, task, given, bars, place=place, targets=kind, seed=seed, save_every=given.every)
                found = {str(n): one for n, one in saved_steps(handle).items()}
                found |= {m.NAME: m.fit(model, task.solved, **shared) for m in ANCHORS}
                rows = []
                for name, one in found.items():
                    run = evaluate(replace(one, method="step"), items, progress=bars)
                    rows.append((name, *looked_at(run)))
                head = ("update", "right", "think", "true equations", "critic's words", *_families(items))
                print(f"\n{kind}, {place}: {len(items)} dev items, seed {seed}\n\n{markdown(head, rows)}")


def _families(items: Items) -> list[str]:
    return sorted({item.metadata["family"] for item in items.items})


def looked_at(run: Run) -> tuple[str, ...]:
    """Fractions of answers that are right, hold an equation, hold critic's words; second-last: of equations that hold."""
    scored = run.metrics["arms"]["step"]["scores"]
    texts = {item: traces[0].text for item, traces in run.traces["step"].items()}
    every = [equations(text) for text in texts.values()]
    said = [one.right for some in every for one in some]
    families: dict[str, list[float]] = {}
    for item in run.store.items():
        families.setdefault(item.metadata["family"], []).append(scored[item.id])
    means = [list(scored.values()), [bool(some) for some in every], said, ["olution" in t for t in texts.values()]]
    return tuple(f"{np.mean(v):.2f}" if v else "" for v in [*means, *(families[name] for name in sorted(families))])


PARTS = {"arms": arms, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS), default="arms")
    parser.add_argument("--model", default=critique_ft.MODEL)
    parser.add_argument("--limit", type=int, default=100, help="questions of the test split")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--places", default=",".join(PLACES))
    parser.add_argument("--targets", default=KINDS)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=5, help="updates between two looks at dev items")
    parser.add_argument("--dev", type=int, default=32, help="dev items")
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--out", type=Path, default=Path("runs/critique-ft-places.json"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    limit = max(given.limit, given.dev)
    task = load_task("organism", limit=limit)
    PARTS[given.part](load_model(given.model), task, given)


if __name__ == "__main__":
    main()
