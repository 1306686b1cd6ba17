"""What claims about fine-tuning share: answers that a model draws to fit questions, and adapters trained on some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elicit.decoding import Sampling, Trace
from elicit.elicited import Elicited
from elicit.methods.critique_ft.examples import fitting
from elicit.models import Prompt
from elicit.tasks.base import Item
from elicit.training import Example, Recipe, train
from elicit.training.lora import save_adapter
from elicit.training.sft import batches
from experiments.claims.base import Study
from probes.errors import UserError
from probes.files import digest
from steering.adapters import CONFIG, Adapter, borrowed

WIDTH = 384  # tokens of a row of training
ASKED = Prompt().thinking()
Drawn = tuple[Item, Trace]


def drawn(study: Study) -> list[Drawn]:
    """Answers to the fit questions, asked to think and sampled; those that were cut at the limit are left out.

    Raises:
        UserError: none is right, or none wrong: there is nothing to filter.
    """
    sampling = Sampling(study["draws"], study["temperature"], max_new_tokens=study["max_new_tokens"], seed=study.seed)
    run = study.evaluated(Elicited(study.model, "drawn", ASKED, sampling, select="vote"), {}, "drawn", split="fit")
    out = [(item, trace) for item in run.items for trace in run.traces["drawn"][item.id] if trace.finish != "length"]
    right = sum(trace.correct for _, trace in out)
    if not 0 < right < len(out):
        raise UserError(f"of {len(out)} answers that were drawn {right} are right; give a task of another difficulty")
    return out


def some_of(answers: Sequence[Drawn], count: int, seed: int) -> list[Drawn]:
    """So many of the answers, without repetition."""
    order = np.random.default_rng([seed, 10]).permutation(len(answers))
    return [answers[int(n)] for n in order[:count]]


def examples(study: Study, answers: Sequence[Drawn], *, thoughts: bool = True) -> list[Example]:
    """Question and answer as they are trained on; with its thought, or the answer alone."""
    tokenizer = study.model.tokenizer
    end = int(tokenizer.eos_token_id)
    out = []
    for item, trace in answers:
        said = trace.text.strip() if thoughts else trace.answer or ""
        target = [*tokenizer(f" {said}", add_special_tokens=False)["input_ids"], end]
        out.append(Example(ASKED.ids(item.question, tokenizer), target))
    return fitting(out, WIDTH)


def tuned(study: Study, some: Sequence[Example], seed: int = 0) -> Adapter:
    """An adapter trained on these examples; found where another claim has trained it."""
    model, steps = study.model, study["steps"]
    recipe = Recipe(steps=steps, rows=4, width=WIDTH, part=4, lr=study["lr"], warmup=max(1, steps // 10), seed=seed)
    identity = {"base": model.provenance.sha256, "dtype": model.dtype, "examples": digest(list(some))}
    name = f"tuned-{Path(model.name).name}-{digest([recipe.kept(), identity])}"
    folder = study.runs / "claims" / name
    if not (folder / "adapter" / CONFIG).is_file():
        study.log(f"training on {len(some)} answers, {recipe.steps} steps: {name}")
        study.progress.arm(f"training on {len(some)} answers", recipe.steps, 0)
        with borrowed(model.lm):
            train(
                model.lm, batches(some, recipe.rows, WIDTH, seed), recipe, folder, identity=identity,
                on_step=lambda step, loss, rate: study.progress.advance(1, 0),
            )  # fmt: skip
            save_adapter(model.lm, recipe, folder / "adapter", model.name)
    return Adapter(folder / "adapter")
