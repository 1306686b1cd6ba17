"""Trainings on critiques of one problem, update by update, as they are and with one thing changed.

    python -m experiments.critique_ft                                           # greedy answers, seed 0, dev items
    python -m experiments.critique_ft --changes "as it is" --samples 4          # sampled answers

Every training and every look at it resumes. Beside the answers of each saved step stands how probable an answer at
once is on the bare question. Tables are printed as Markdown and kept as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from elicit import Run, evaluate
from elicit.cli.terminal import run_bars
from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.metrics.format import with_interval
from elicit.evaluation.metrics.gap import gap_cell, recovered
from elicit.evaluation.seeds import summarised
from elicit.methods import cot_prompt, critique_ft, direct, fit
from elicit.models import Model, load_model
from elicit.tasks import load_task
from elicit.tasks.base import Items, Task
from elicit.tasks.equations import equations
from elicit.training.saved import saved_steps
from experiments.command import called
from experiments.critique_ft.critics import AtOnce
from experiments.markdown import markdown
from probes.errors import unknown
from probes.files import make_folder, write_whole
from steering.adapters import applied

NAME = critique_ft.NAME
ANCHORS = (direct, cot_prompt)
# What may be in the way; each with all else as it is.
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "at once": {"critic": AtOnce, "ask": "plain", "candidates": 50},
    "at once in own words": {"critic": partial(AtOnce, own=True), "ask": "plain", "candidates": 50},
}


def trained(
    model: Model, task: Task, given: argparse.Namespace, bars: Progress, change: str, **shared: Any
) -> Elicited:
    options = {"candidates": given.candidates, "steps": given.steps, "max_new_tokens": given.max_new_tokens}
    if change not in CHANGES:
        raise unknown("change", change, CHANGES)
    changed = dict(CHANGES[change])
    if critic := changed.pop("critic", None):
        changed["source"] = critic(task, shared["seed"])
    return fit(NAME, model, task.solved, bars, **{**options, **shared, **changed})


def looks(model: Model, task: Task, given: argparse.Namespace) -> None:
    """Saved steps of trainings on dev items: what is answered, and how probable an answer at once is."""
    items = task.split(given.split)[: given.limit]
    seed = given.seed
    greedy = Greedy(given.max_new_tokens)
    decoder = Sampling(given.samples, 1.0, seed=seed, max_new_tokens=given.max_new_tokens) if given.samples else greedy
    anchors = {m.NAME: m.fit(model, task.solved, max_new_tokens=given.max_new_tokens) for m in ANCHORS}
    rows: list[tuple[str, ...]] = []
    known: dict[str, np.ndarray] = {}
    with run_bars(quiet=False) as bars:
        for change in given.changes.split(","):
            for kind in given.targets.split(","):
                shared = {"targets": kind, "seed": seed, "save_every": given.every}
                handle = trained(model, task, given, bars, change, **shared)
                wanted = {int(n) for n in given.at.split(",") if n}
                saved = {str(n): one for n, one in saved_steps(handle).items() if n in wanted or not wanted}
                for name, one in {**({} if known else anchors), **saved}.items():
                    select = "vote" if given.samples else one.select
                    run = evaluate(replace(one, method="step", decoder=decoder, select=select), items, progress=bars)
                    right = scored(run)
                    if name in anchors:
                        known[name] = right
                    of_gap = "" if name in anchors else _gap(right, known)
                    training = "" if name in anchors else f"{kind}, {change}"
                    rows.append((training, name, _right(right), of_gap, *looked_at(run), f"{at_once(one, items):.2f}"))
                    write_whole(make_folder(given.out.parent) / given.out.name, json.dumps(rows, indent=1))
    said = ("right [95%]", "gap recovered [95%]", "think", "true equations", "critic's words", "right of these")
    head = ("training", "update", *said, *_families(items), "P(at once)")
    how = f"{given.samples} samples a question at temperature 1" if given.samples else "greedy"
    about = f"{len(items)} {given.split} items, seed {seed}, {how}"
    print(f"\n{model.name} {model.provenance.sha256[:12]}…, {model.dtype}, {about}\n\n{markdown(head, rows)}")


def _families(items: Items) -> list[str]:
    return sorted({item.metadata["family"] for item in items.items})


def scored(run: Run) -> Float[np.ndarray, " items"]:
    """Of each question the fraction of its answers that are right."""
    return np.array([np.mean([trace.correct for trace in run.traces["step"][item.id]]) for item in run.store.items()])


def _right(values: Float[np.ndarray, " items"]) -> str:
    found = summarised(values[None], low=0.0, high=1.0)
    return with_interval(found.mean, found.interval.pair)


def _gap(values: Float[np.ndarray, " items"], known: Mapping[str, Float[np.ndarray, " items"]]) -> str:
    found = recovered(values, known[direct.NAME], known[cot_prompt.NAME])
    return gap_cell(found.share, found.interval and found.interval.pair, found.gain, found.gain_interval.pair)


def looked_at(run: Run) -> tuple[str, ...]:
    """Fractions: that think; of equations that hold; in critic's words; right of these; right, by family."""
    said: list[bool] = []
    every: dict[str, list[tuple[bool, bool, bool]]] = {}
    for item in run.store.items():
        for trace in run.traces["step"][item.id]:
            found = equations(trace.text)
            said += [one.right for one in found]
            of_one = (trace.correct, bool(found), "olution" in trace.text)
            every.setdefault(item.metadata["family"], []).append(of_one)
    answers = np.array([one for some in every.values() for one in some])
    _, think, words = answers.mean(0)
    of_these = answers[answers[:, 2], 0]
    parts = [np.mean([one[0] for one in every[name]]) for name in sorted(every)]
    nothing = np.nan
    shown = [think, np.mean(said) if said else nothing, words, of_these.mean() if len(of_these) else nothing, *parts]
    return tuple("" if np.isnan(v) else f"{v:.2f}" for v in shown)


@torch.no_grad()
def at_once(handle: Elicited, items: Items) -> float:
    """The probability that the answer begins with its number, mean of the questions."""
    model = handle.model
    number = model.tokenizer(" 1", add_special_tokens=False)["input_ids"][0]  # type: ignore[index]
    found = []
    with applied(model.lm, handle.adapter):
        for item in items.items:
            logits = model.lm(torch.tensor([handle.prompt_ids(item)], device=model.lm.device)).logits[0, -1]
            found.append(float(logits.float().softmax(-1)[number]))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=critique_ft.MODEL)
    parser.add_argument("--changes", default=",".join(CHANGES), help="what is changed, joined by commas")
    parser.add_argument("--targets", default="critiques", help="critiques, shuffled, solutions, joined by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=32, help="questions")
    parser.add_argument(
        "--at", default="", help="updates that are looked at, joined by commas; unless given: all saved"
    )
    parser.add_argument("--samples", type=int, default=0, help="of each question at temperature 1; 0: greedy answers")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40, help="updates, unless a change says how many")
    parser.add_argument("--every", type=int, default=5, help="updates between two that are saved")
    parser.add_argument("--max-new-tokens", type=int, default=192)
    parser.add_argument("--out", type=Path, default=Path("runs/critique-ft-steps.json"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    looks(load_model(given.model), load_task("organism", limit=given.limit), given)


if __name__ == "__main__":
    called("critique_ft", main)
