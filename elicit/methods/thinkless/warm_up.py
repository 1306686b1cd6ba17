"""The warm-up: a model learns what its two control tokens stand for, from its own short and long answers.

Each question is answered greedily twice, told to answer at once and told to think. What is learned is the bare prompt,
then the control token, then that answer with its end: both for each question, so that the modes begin about equally
likely (arXiv 2505.13379, section 3.1, where two other models write the answers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from elicit.decoding.decoders import Greedy
from elicit.decoding.progress import Progress, Silent, measure
from elicit.decoding.trace import Trace
from elicit.elicited import Elicited
from elicit.evaluation.run.store import folder_for
from elicit.methods.thinkless.control_tokens import ControlTokens
from elicit.methods.thinkless.modes import SHORT, THINK
from elicit.models.identity import grounds
from elicit.models.model import Model
from elicit.models.prompts import DIRECT_ANSWER, Prompt
from elicit.tasks.base import Items
from elicit.training.recipe import Example, Recipe
from elicit.training.saved import train_and_save
from probes.errors import UserError
from probes.files import digest
from steering.adapters import Tuned

CALLED = "thinkless: warm-up"


@dataclass(frozen=True)
class WarmUp:
    """What it made of the base, and the record of it."""

    adapter: Tuned
    found: dict[str, Any]


def answering(model: Model, put: Prompt, limit: int) -> dict[str, Elicited]:
    """Who writes the answers of each mode: the model itself, told to."""
    if put.trigger or put.begin:
        raise UserError(
            f"the prompt says {put.trigger or put.begin!r} where an answer begins, and thinkless says there how to "
            "answer; give a prompt without"
        )
    puts = {SHORT: replace(put, trigger=DIRECT_ANSWER), THINK: put.thinking()}
    return {mode: Elicited(model, f"{CALLED}, {mode}", one, Greedy(limit)) for mode, one in puts.items()}


def examples(
    model: Model, items: Items, put: Prompt, tokens: ControlTokens, said: Mapping[str, Sequence[Trace]]
) -> dict[str, list[Example]]:
    """Of each mode what is learned: answers that came to their end, as they were written up to it.

    Raises:
        UserError: a mode in which no answer came to its end; a tokenizer without an end token.
    """
    end = model.tokenizer.eos_token_id
    if not isinstance(end, int):
        raise UserError(f"the tokenizer of {model.name!r} has no end token, so no end is learned; use another model")
    out: dict[str, list[Example]] = {}
    for mode, control in zip((SHORT, THINK), tokens.ids, strict=True):
        out[mode] = []
        for item, trace in zip(items, said[mode], strict=True):
            ends = trace.ends[: len(trace.tokens)]  # of an answer without tokens there is one
            kept = [token for token, at in zip(trace.tokens, ends, strict=True) if at <= len(trace.text)]
            if trace.finish != "length" and kept:
                kept = kept[1:] if kept[0] == control else kept  # a model that writes its own mark
                out[mode].append(Example(put.ids(item.question, model.tokenizer), [control, *kept, end]))
        if not out[mode]:
            raise UserError(
                f"none of {len(items)} {mode} answers of {model.name!r} came to an end within its limit, so none can "
                "be learned; give a larger rollout_tokens"
            )
    return out


def warm_up(
    model: Model,
    items: Items,
    put: Prompt,
    tokens: ControlTokens,
    recipe: Recipe,
    limit: int,
    progress: Progress | None,
) -> WarmUp:
    """Train an adapter, or all weights, on the model's own answers of both modes; the same call resumes it.

    Args:
        model: the base; it is as it was afterwards.
        items: the questions.
        put: how questions are put afterwards.
        tokens: that say the mode.
        recipe: how; its width is made to hold the longest answer.
        limit: of an answer, its control token among it.
        progress: reports answers and steps.

    Raises:
        UserError: as `answering` and `examples`; a loss that is not finite.
    """
    said = {
        mode: [one for (one,) in handle.answers(items, progress)]
        for mode, handle in answering(model, put, limit - 1).items()
    }
    of = examples(model, items, put, tokens, said)
    every = [one for some in of.values() for one in some]
    recipe = replace(recipe, width=max(one.tokens for one in every))
    about = {
        "base": model.provenance.sha256, "dtype": model.dtype, "examples": digest(every), "tokens": list(tokens.ids),
        **grounds(items, [model]),
    }  # fmt: skip
    folder = folder_for("thinkless-warm-up", items.task.name, model.name, [recipe.kept(), about])

    def on_step(step: int, loss: float, tokens_per_second: float) -> None:
        (progress or Silent()).training(CALLED, step + 1, recipe.steps, f"loss {loss:.2f}")
        measure(progress, CALLED, step, {"loss": loss, "tokens_per_second": tokens_per_second})

    made, curve = train_and_save(model, every, recipe, folder, identity=about, on_step=on_step)
    found = {
        "folder": folder.name,
        "examples": {mode: len(some) for mode, some in of.items()},
        "right": {mode: sum(trace.correct for trace in some) for mode, some in said.items()},
        "questions": len(items),
        "tokens": {mode: round(sum(len(e.target) for e in some) / len(some), 1) for mode, some in of.items()},
        "losses": [round(point.loss, 4) for point in curve],
    }
    return WarmUp(made, found)
