"""`no-thinking`: the thought is prefilled as finished, and solutions without one vote (arXiv 2504.09858).

Ma et al., "Reasoning Models Can Be Effective Without Thinking". Nothing is trained: the answer is made to begin with a
thought that says it is over, `<think>\\nOkay, I think I have finished thinking.\\n</think>` (section 2), so that the
model writes its solution at once; several are drawn in parallel, and one answer is taken (section 4). The question is
whether that beats thoughts of as many tokens.

Departures:
- an organism's thoughts have no mark at their end, and no sentence of them ends one. Its answer begins with the words
  after which it was trained to skip the path, where it is else told to think. Other models need `done`, or are refused.
- where no verifier is, the paper weighs votes by self-certainty; here the majority of *equivalent* answers decides,
  and the likeliest solution (log-probability a token) stands beside it. What a verifier would choose, any sample that
  is right, is the reading `oracle` of every run.
- the paper cuts thoughts to a number of tokens; here thinking gets the tokens that were spent, question by question,
  by whole answers (`thinking@budget`), and `no-thinking@budget` those of whatever thinks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.base import check_own
from elicit.methods.baselines.at_budget import at_budget
from elicit.models import zoo
from elicit.models.model import Model
from elicit.models.prompts import DIRECT_ANSWER, THINK, Prompt, prompt_for
from elicit.models.thoughts import thought_form
from elicit.tasks.base import Items
from elicit.tasks.statements import closes_thought
from probes.errors import UserError

NAME = "no-thinking"
SUMMARY = "prefills a finished thought and lets solutions without one vote"
PAPER = "2504.09858"
MODEL = "smollm2-135m-latent"

FINISHED = "Okay, I think I have finished thinking."


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    samples: int = 8,
    select: str = "vote",
    done: str = "",
    temperature: float = 0.7,
    top_p: float = 1.0,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Nothing is fitted: the handle is a prompt whose answers begin after a thought.

    Args:
        model: one that thinks between marks, an organism, or any with `done`.
        items: only for `prompt="few-shot"`.
        samples: solutions a question.
        select: how one is chosen: `vote`, `mean-logprob`, or another of `elicit.decoding.selection.SELECTABLE`.
        done: what answers are made to begin with, instead of what the form of the model's thoughts says.
        temperature, top_p, seed: of the samples.
        prompt: a name of `elicit.models.prompts.FORMATS` or a template file.
        max_new_tokens: limit of each solution.

    Raises:
        UserError: a model whose thoughts have no known form or cannot be skipped, a prompt that begins or ends thoughts
            itself, settings that a sampler refuses.
    """
    put = prompt_for(model, prompt, items)
    if put.begin:
        raise UserError(f"begin = {put.begin!r} was given to {NAME}, which begins answers itself; give done instead")
    found: dict[str, Any] = {"done": done, "others": {"thinking": ""}} if done else _found(model, put)
    decoder = Sampling(samples, temperature, top_p, seed=seed, max_new_tokens=max_new_tokens)
    options = {"prompt": prompt, "samples": samples, "select": select, "found": found}
    return Elicited(model, NAME, replace(put, begin=found["done"]), decoder, select=select, options=options)


matched = fit  # the number of samples then follows the budget


def _found(model: Model, put: Prompt) -> dict[str, Any]:
    """What answers begin with so that no thought is had (`done`), and those of the controls (`others`)."""
    form = thought_form(model)
    if form is None:
        raise UserError(
            f"{NAME} was given {model.name!r}, which has no marks around thoughts and is no organism; give done=… what "
            "a finished thought looks like, or a model that thinks"
        )
    if not form.end:
        if (zoo.about(model.name) or {}).get("arm") == "thinking":
            raise UserError(f"{NAME} was given {model.name!r}, which thinks whatever it is told; give another organism")
        if put.trigger:
            raise UserError(
                f"{NAME} was given a prompt that says {put.trigger!r} where it begins answers; give prompt qa"
            )
        return {"done": DIRECT_ANSWER, "others": {"thinking": THINK, "no words": ""}}
    asked = "What is 1 + 1?"
    text = put.text(asked, model.tokenizer).rpartition(asked)[2]
    if closes_thought(text):
        raise UserError(f"{NAME} was given a prompt that ends a thought itself ({text[-40:]!r}); leave that to it")
    opened = put.begun(asked, model.tokenizer)
    head = ("" if text[-1:].isspace() else "\n") if opened else f"{form.begin}\n"
    return {
        "done": f"{head}{FINISHED}\n{form.end}\n\n",
        "others": {
            "thinking": "",
            "open thought": f"{head}{FINISHED}\n",
            "empty thought": f"{head}\n{form.end}\n\n",
        },
    }


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """The same samples with other words before them, thoughts with as many tokens, and the baselines at budget.

    `thinking` is not told that its thought is over, and `thinking@budget` draws as many thoughts as the tokens allow,
    one at least. Of models with marks `open thought` has the same words and no mark after them, `empty thought` the
    marks alone; of an organism `no words` is its bare prompt. `likeliest` takes the answer with the largest
    log-probability a token among the same solutions, or `vote` the majority where the method takes that.
    """
    check_own(handle, NAME)
    others = {
        name: replace(handle, method=name, prompt=replace(handle.prompt, begin=words), options={})
        for name, words in handle.options["found"]["others"].items()
    }
    name, rule = ("vote", "vote") if handle.select == "mean-logprob" else ("likeliest", "mean-logprob")
    return {
        **others,
        "thinking" + MATCHED: others["thinking"],
        name: replace(handle, method=name, select=rule, options={}),
        **at_budget(handle, items, seed),
    }


def notes(options: dict[str, Any]) -> list[str]:
    """What answers begin with."""
    return [f"Answers begin with {options['found']['done']!r}, which is prefilled and counts as no token spent."]
