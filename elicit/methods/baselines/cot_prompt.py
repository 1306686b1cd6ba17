"""`cot-prompt`: greedy decoding after "Let's think step by step." (arXiv 2205.11916)."""

from __future__ import annotations

from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items

NAME = "cot-prompt"
SUMMARY = 'greedy decoding after "Let\'s think step by step."'
PAPER = "2205.11916"


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    prompt: str = "qa",
    max_new_tokens: int = 256,
) -> Elicited:
    """Greedy answers to the same prompt with the trigger sentence.

    Args:
        model: the base.
        items: only for `prompt="few-shot"`.
        progress: nothing is reported.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
    """
    put, options = prompt_for(model, prompt, items).thinking(), {"prompt": prompt}
    return Elicited(model, NAME, put, Greedy(max_new_tokens), options=options)


def matched(
    model: Model,
    items: Items | None = None,
    *,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    seed: int = 0,
) -> Elicited:
    """`cot-prompt` with a budget: thoughts are drawn until the tokens are spent; the majority answers."""
    decoder = Sampling(temperature=temperature, seed=seed, max_new_tokens=max_new_tokens)
    return Elicited(model, NAME, prompt_for(model, prompt, items).thinking(), decoder, select="vote")


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """None: it is itself a control."""
    return {}
