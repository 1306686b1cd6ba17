"""`power-sampling`: answers drawn from a power of the model's own distribution (arXiv 2510.14901).

Karan and Du, "Reasoning with Sampling". Nothing is trained and nothing is added to the prompt: whole answers are drawn
with probability proportional to p(answer)ᵅ by Metropolis–Hastings, whose proposals are the model's own samples at
temperature 1/α. That is not sampling at temperature 1/α, which sharpens each token by itself and knows nothing of what
follows: it is a control here, at as many tokens.

The chain and every departure from the paper's stand at `elicit.decoding.power`. Beside those:
- the paper gives one sample; `samples` chains of a question vote.
- blocks and limits are of this suite's answers; the paper's are 192 and 3,072 tokens, with α = 4 and 10 moves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Power, Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.base import check_own
from elicit.methods.baselines.at_budget import at_budget
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items

NAME = "power-sampling"
SUMMARY = "draws whole answers from a power of the model's own distribution, by Metropolis–Hastings"
PAPER = "2510.14901"


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    alpha: float = 4.0,
    block: int = 64,
    moves: int = 10,
    samples: int = 1,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Nothing is fitted: the handle is the decoder, and with several chains their majority.

    Args:
        model: the base.
        items: only for `prompt="few-shot"`.
        alpha: the power; 1 samples the model as it is.
        block: tokens by which answers grow before they are moved again.
        moves: after each block, each a new end from a position of the answer on.
        samples: chains a question.
        prompt: a name of `elicit.models.prompts.FORMATS` or a template file.
        max_new_tokens: limit of each answer.
        seed: of all random numbers.

    Raises:
        UserError: a power that is not above 0, a block or number of samples below 1, moves below 0.
    """
    options = {"alpha": alpha, "block": block, "moves": moves, "samples": samples, "prompt": prompt, "seed": seed}
    decoder = Power(alpha, block, moves, samples, seed, max_new_tokens)
    select = "greedy" if samples == 1 else "vote"
    return Elicited(model, NAME, prompt_for(model, prompt, items), decoder, select=select, options=options)


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """Low temperature with the chains' tokens, chains that take no move or every one, and the baselines at budget.

    `low-temperature@budget` is the likeliest of independent samples at temperature 1/α, and
    `low-temperature vote@budget` their majority: what the acceptance adds to drawing as often.
    """
    check_own(handle, NAME)
    decoder = handle.decoder
    assert isinstance(decoder, Power)
    drawn: Any = Sampling(temperature=decoder.temperature, seed=seed, max_new_tokens=decoder.max_new_tokens)
    likeliest = replace(handle, method="low-temperature", decoder=drawn, select="logprob", options={})
    return {
        likeliest.method + MATCHED: likeliest,
        f"low-temperature vote{MATCHED}": replace(likeliest, method="low-temperature vote", select="vote"),
        "no moves": replace(handle, method="no moves", decoder=replace(decoder, moves=0), options={}),
        "every move": replace(handle, method="every move", decoder=replace(decoder, accept="always"), options={}),
        **at_budget(handle, items, seed),
    }


def notes(options: dict[str, Any]) -> list[str]:
    """What was drawn."""
    return [
        f"Answers are drawn from the power {options['alpha']:g} of the model's distribution by chains of "
        f"{options['moves']} moves a block of {options['block']} tokens; tokens of moves that were not taken count."
    ]
