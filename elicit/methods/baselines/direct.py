"""`direct`: greedy decoding of the bare prompt. The baseline of every mechanism."""

from __future__ import annotations

from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items

NAME = "direct"
SUMMARY = "greedy decoding of the bare prompt"
PAPER = ""


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    prompt: str = "qa",
    max_new_tokens: int = 256,
) -> Elicited:
    """Greedy answers to the prompt as it is.

    Args:
        model: the base.
        items: only for `prompt="few-shot"`.
        progress: nothing is reported.
        prompt: one of `elicit.models.prompts.FORMATS`; FILE is a template.
        max_new_tokens: limit of each answer.
    """
    options = {"prompt": prompt}
    return Elicited(model, NAME, prompt_for(model, prompt, items), Greedy(max_new_tokens), options=options)


def matched(
    model: Model,
    items: Items | None = None,
    *,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    seed: int = 0,
) -> Elicited:
    """`direct` with a budget: answers are drawn until the tokens are spent; the likeliest is kept
    (log-probability a token). No answer is compared with another."""
    decoder = Sampling(temperature=temperature, seed=seed, max_new_tokens=max_new_tokens)
    return Elicited(model, NAME, prompt_for(model, prompt, items), decoder, select="mean-logprob")


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """None: it is itself the control."""
    return {}
