"""Supervised fine-tuning on the same worked solutions, of a model that has the skill and of one that lacks it.

Each solution is seen once, so that what it costs under the model as it was before it is its prequential code. After
some steps the adapter is kept: its accuracy on test questions, and what it pays for solutions of the dev split, which
stand for those that it was trained on in the excess description length (arXiv 2601.04728).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.evaluator import evaluate
from elicit.methods.baselines import cot_prompt, direct
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.models.zoo import ADAPTER
from elicit.tasks.base import Items, Split
from elicit.tasks.organism.problems import FAMILIES
from elicit.training.organisms import variants
from elicit.training.recipe import Example, Recipe
from elicit.training.saved import save_trained, step_folder
from elicit.training.sft import code_length, keeps_apart, packed, to_train, train
from probes.description import excess
from steering.adapters import Adapter, applied

KEPT = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # steps after which an adapter is kept
HELD_OUT = 32  # solutions
STREAM = 7  # of random numbers, apart from those that organisms are made with


def recipe(steps: int, seed: int) -> Recipe:
    """Of both models: a step has two rows of 256 tokens, some four solutions."""
    return Recipe(steps=steps, rows=2, part=2, warmup=2, seed=seed)


def solution(tokenizer: PreTrainedTokenizerBase, split: Split, rng: np.random.Generator) -> Example:
    """A question as it is put, and after it the solver's thought in words."""
    families = list(FAMILIES)
    problem = variants.draw_from(split, families[int(rng.integers(len(families)))], rng)
    text = f" {variants.think('thinking', problem, rng).text}"
    target = [*tokenizer(text, add_special_tokens=False)["input_ids"], int(tokenizer.eos_token_id)]  # type: ignore[misc,arg-type]
    return Example(Prompt().ids(problem.question, tokenizer), target)


def solutions(tokenizer: PreTrainedTokenizerBase, how: Recipe, step: int) -> list[Example]:
    """Those of a step, which no other step has: as many as its rows hold."""
    rng = np.random.default_rng([STREAM, how.seed, step])
    out: list[Example] = []
    while True:
        one = solution(tokenizer, "fit", rng)
        if one.tokens > how.width:
            continue
        if len(packed([*out, one], how.width)) > how.rows:
            return out
        out.append(one)


def held_out(tokenizer: PreTrainedTokenizerBase, how: Recipe) -> list[Example]:
    rng = np.random.default_rng([STREAM, how.seed])
    drawn = (solution(tokenizer, "dev", rng) for _ in range(4 * HELD_OUT))
    return [one for one in drawn if one.tokens <= how.width][:HELD_OUT]


def curve_of(
    model: Model, questions: Items, how: Recipe, folder: Path, limit: int, progress: Progress
) -> dict[str, Any]:
    """Bits and right answers after each step that is kept.

    Args:
        model: what is trained; it is what it was afterwards.
        questions: that accuracy is measured on.
        how: of the training.
        folder: for the training, which is resumed there, its adapters and the run.
        limit: of tokens of an answer.
        progress: of training and decoding.
    """
    tokenizer = model.tokenizer
    kept = [step for step in KEPT if step <= how.steps]

    def save(step: int, loss: float, tokens_per_second: float) -> None:
        progress.advance(1, 0)
        if step + 1 in kept:
            save_trained(lm, tokenizer, how, step_folder(folder, step + 1), model.name, torch.bfloat16)

    progress.arm(f"solutions: {model.name}", how.steps, 0)
    with to_train(model.lm, how.rank) as lm:
        identity = {"base": model.provenance.sha256, "examples": ["worked solutions", STREAM]}
        points = train(
            lm, lambda step: solutions(tokenizer, how, step), how, folder, identity=identity, save_every=2,
            on_step=save, coded=True,
        )  # fmt: skip
    shared: dict[str, Any] = {"max_new_tokens": limit}
    handles = {
        f"{step} steps": Elicited(
            model, f"{step} steps", decoder=Greedy(limit), adapter=Adapter(step_folder(folder, step) / ADAPTER)
        )
        for step in kept
    }
    first = direct.fit(model, questions, **shared)
    beside = {cot_prompt.NAME: cot_prompt.fit(model, questions, **shared), **handles}
    run = evaluate(first, questions, against=beside, out=folder / "run", progress=progress)
    arms = run.metrics["arms"]
    counts = [len(solutions(tokenizer, how, step)) for step in range(how.steps)]
    rows = []
    for step in (0, *kept):
        name = f"{step} steps" if step else direct.NAME
        paid, seen = _paid(model, handles[name].adapter if step else None, how), sum(counts[:step])
        before = [point.code for point in points[:step] if point.code is not None]
        assert len(before) == step
        bits, right = excess(before, seen * paid), arms[name]["right"]
        rows.append(
            {"steps": step, "solutions": seen, "code": sum(before), "held_out": paid, "bits": bits, "right": right}
        )
    return {
        "model": run.metrics["model"], "n": len(questions), "ceiling": arms[cot_prompt.NAME]["right"], "rows": rows,
        "recipe": how.kept(),
    }  # fmt: skip


def _paid(model: Model, adapter: Any, how: Recipe) -> float:
    """Bits a held-out solution, on average."""
    some = held_out(model.tokenizer, how)
    with applied(model.lm, adapter):
        return code_length(model.lm, some, how, keeps_apart(model.lm)) / len(some)
