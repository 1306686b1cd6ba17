"""`budget-forcing`: thoughts are cut at a budget, and those that end before it are made to go on (arXiv 2501.19393).

Muennighoff et al., "s1: Simple test-time scaling", section 3.1. Nothing is trained. A thought that is too long is ended
by the mark that ends thoughts and "Final Answer:"; one that ends too early is not let: its end token is not written,
but "Wait", up to `waits` times. The question is whether that word makes a model look again, or any further tokens do.

What is written when stands at `elicit.decoding.thought`. Departures:
- the paper forces a model that was trained to think between marks. An organism has none: all of its answer is the
  thought, the end token ends it, and where it is cut the words follow with which its own thoughts conclude. Other
  models are refused.
- an end token within a thought is put off as the mark is; the authors' code stops at either.
- answers begin within a thought: where the prompt opens none its mark is prefilled.
- sizes are of this suite's answers; the paper's budgets are up to 32,000 tokens, with 2 to 6 waits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Forced, Greedy, Sampling
from elicit.decoding.progress import Progress
from elicit.decoding.thought import begun_in
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.base import check_own
from elicit.methods.baselines.at_budget import at_budget
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.models.thoughts import CONCLUDES, thought_form, token_of
from elicit.tasks.base import Items
from probes.errors import UserError

NAME = "budget-forcing"
SUMMARY = "cuts thoughts at a budget of tokens, and writes Wait where they would end before it"
PAPER = "2501.19393"
MODEL = "smollm2-135m-latent"

FINAL = "Final Answer:"
OTHER_WORDS = (".", "So", "The")
ASKED = "What is 1 + 1?"


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    thought_tokens: int = 160,
    waits: int = 2,
    word: str = "Wait",
    final: str = "",
    prompt: str = "qa",
    max_new_tokens: int = 256,
) -> Elicited:
    """Nothing is fitted: the handle is the decoder.

    Args:
        model: one that thinks between marks, or an organism.
        items: only for `prompt="few-shot"`.
        thought_tokens: after which a thought is ended; the word's own count.
        waits: ends of a thought that are put off.
        word: written in place of each.
        final: written after an end that was forced, instead of "Final Answer:" or the words of an organism.
        prompt: a name of `elicit.models.prompts.FORMATS` or a template file.
        max_new_tokens: limit of each answer, its thought included.

    Raises:
        UserError: a budget below 1, a negative number of waits, no word; a model whose thoughts have no known form, or
            whose closing mark is several tokens, of which none can be put off.
    """
    decoder = Forced(thought_tokens, waits, word, final or FINAL, max_new_tokens=max_new_tokens)
    form = thought_form(model)
    if form is None:
        raise UserError(
            f"{NAME} was given {model.name!r}, which has no marks around thoughts and is no organism; give a model "
            "that thinks"
        )
    put = prompt_for(model, prompt, items)
    if not form.end:
        decoder = replace(decoder, whole=True, final=final or CONCLUDES)
    elif waits and token_of(model.tokenizer, form.end) is None:
        raise UserError(
            f"waits = {waits} was given and {form.end} is no token of {model.name!r}, so that none can be put off; "
            "give waits=0"
        )
    elif not put.begun(ASKED, model.tokenizer):
        put = replace(put, begin=f"{put.begin}{form.begin}\n")
    if form.end and not begun_in(model.tokenizer, put.ids(ASKED, model.tokenizer)):
        raise UserError(
            f"prompt {prompt!r} was given, which begins a thought with words behind a mark that is no token of "
            f"{model.name!r}, so that nothing can be forced; leave the words out"
        )
    options = {"prompt": prompt, "waits": waits, "word": word, "thought_tokens": thought_tokens}
    return Elicited(model, NAME, put, decoder, options={**options, "found": {"final": decoder.final}})


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """The same without any forcing, without waits, with other words, and samples of as many tokens.

    `parallel samples@budget` are unforced samples of the same prompt, of which the majority answers.
    """
    check_own(handle, NAME)
    decoder = handle.decoder
    assert isinstance(decoder, Forced)

    def beside(name: str, other: Any, select: str = "greedy") -> Elicited:
        return replace(handle, method=name, decoder=other, select=select, options={})

    limit = decoder.max_new_tokens
    waiting = {f"another word {word!r}": replace(decoder, word=word) for word in OTHER_WORDS if word != decoder.word}
    waiting = {"no waits": replace(decoder, waits=0), **waiting} if decoder.waits else {}
    parallel = Sampling(temperature=0.7, seed=seed, max_new_tokens=limit)
    return {
        "no forcing": beside("no forcing", Greedy(limit)),
        **{name: beside(name, other) for name, other in waiting.items()},
        "parallel samples" + MATCHED: beside("parallel samples", parallel, "vote"),
        **at_budget(handle, items, seed),
    }


def notes(options: dict[str, Any]) -> list[str]:
    """What follows a forced end."""
    return [f"Where a thought was cut {options['found']['final']!r} was written; all that is written counts as spent."]
