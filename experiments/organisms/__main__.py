"""Score a mechanism and its controls on every organism: the fraction of the known gap that each recovers.

    python -m experiments.organisms                 # cot-decoding on all arms, 200 questions
    python -m experiments.organisms --limit 40 --models smollm2-135m-latent,smollm2-135m-absent

Each organism is one run in runs/; an interrupted call resumes from there. The table is printed as Markdown and kept as
JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from elicit import evaluate
from elicit.cli.terminal import run_bars
from elicit.elicited import Elicited
from elicit.evaluation.metrics.gap import SCORE_HEAD, score_rows, score_runs
from elicit.methods import fit, get, options_of
from elicit.models import load_model, zoo
from elicit.tasks import load_task
from elicit.tasks.base import Items
from experiments.command import called
from experiments.markdown import markdown
from probes.files import make_folder, write_whole

TWIN = "smollm2-135m-absent"
READINGS = ("sum", "vote", "mean-logprob")


def arms_of(method: str, handle: Elicited, items: Items, seed: int) -> dict[str, Elicited]:
    """The method's controls; where it chooses among branches, the other ways to choose from the same ones as well."""
    controls = get(method).controls(handle, items, seed=seed)
    if handle.decoder.branches > 1:
        controls |= {f"{method}: {rule}": replace(handle, select=rule) for rule in READINGS if rule != handle.select}
    return controls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="cot-decoding")
    parser.add_argument("--models", default=",".join(zoo.ORGANISMS))
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    task = load_task("organism", limit=given.limit)
    metrics: dict[str, Any] = {}
    options = {"max_new_tokens": given.max_new_tokens, "seed": given.seed}
    options = {k: v for k, v in options.items() if k in options_of(given.method)}
    for name in given.models.split(","):
        model = load_model(name)
        folder = given.runs / f"organisms-{given.method}-{name}-{given.limit}"
        with run_bars(quiet=False) as bars:
            handle = fit(given.method, model, task.solved, bars, **options)
            arms = arms_of(given.method, handle, task.solved, given.seed)
            run = evaluate(handle, task.test, against=arms, out=folder, seed=given.seed, progress=bars)
        metrics[name] = run.metrics
    twins = [metrics[TWIN]] if TWIN in metrics else []
    scored = score_runs(list(metrics.values()), twins, seed=given.seed)
    make_folder(given.runs)
    write_whole(given.runs / f"organisms-{given.method}.json", json.dumps(scored, indent=2))
    for name, one in metrics.items():
        about = f"{one['items']} questions, {one['model']['dtype']}, seed {given.seed}"
        print(f"\n**{name}** {one['model']['sha256'][:12]}, {about}\n")
        print(markdown(SCORE_HEAD, score_rows([row for row in scored if row["model"] == name])))


if __name__ == "__main__":
    called("organisms", main)
