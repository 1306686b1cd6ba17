"""`self-consistency`: sample, and let the majority of *equivalent* answers decide (arXiv 2203.11171).

On the prompt as it is: like the mechanism it is compared with, it gets no instruction to think. (With one it is
`cot-prompt@budget`.)
"""

from __future__ import annotations

from elicit.decoding.decoders import Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items

NAME = "self-consistency"
SUMMARY = "the majority of sampled answers"
PAPER = "2203.11171"


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    samples: int = 10,
    temperature: float = 0.7,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """`samples` answers at this temperature, their majority.

    Args:
        model: the base.
        items: only for `prompt="few-shot"`.
        progress: nothing is reported.
        samples: how many.
        temperature: of the samples.
        top_p: sample from the likeliest tokens alone that together have this probability.
        top_k: sample from so many of the likeliest tokens alone; 0: from all.
        min_p: leave out tokens that have less than this share of the likeliest one's probability; 0: none.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of the samples.
    """
    decoder = Sampling(samples, temperature, top_p, top_k, min_p, seed, max_new_tokens)
    return Elicited(model, NAME, prompt_for(model, prompt, items), decoder, select="vote", options={"prompt": prompt})


matched = fit  # the number of samples then follows the budget


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """None: it is itself a control."""
    return {}
