"""`power-sampling`: answers drawn from a power of the model's own distribution (arXiv 2510.14901).

Karan and Du, "Reasoning with Sampling". Nothing is trained and nothing is added to the prompt: whole answers are drawn
with probability proportional to p(answer)ᵅ by Metropolis–Hastings, whose proposals are the model's own samples at
temperature 1/α. That is not sampling at temperature 1/α, which sharpens each token by itself and knows nothing of what
follows: it is a control here, at as many tokens.

The chain and every departure from the paper's stand at `elicit.decoding.power`. Beside those:
- the paper gives one sample; `samples` chains of a question vote.
- blocks and limits are of this suite's answers; the paper's are 192 and 3,072 tokens, with α = 4 and 10 moves.

`form="rollouts"` draws from the same distribution without chains (arXiv 2601.21590): each next token is weighed by what
rollouts find behind it. It and its departures stand at `elicit.decoding.rollouts`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from elicit.decoding.decoders import Decoder, Power, PowerRollouts, Sampling
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.budget import MATCHED
from elicit.methods.base import check_own
from elicit.methods.baselines.at_budget import at_budget
from elicit.models.model import Model
from elicit.models.prompts import prompt_for
from elicit.tasks.base import Items
from probes.errors import unknown

NAME = "power-sampling"
SUMMARY = "draws whole answers from a power of the model's own distribution, by Metropolis–Hastings"
PAPER = "2510.14901"
FORMS = ("chains", "rollouts")


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    form: str = "chains",
    alpha: float = 4.0,
    block: int = 64,
    moves: int = 10,
    candidates: int = 8,
    rollouts: int = 8,
    horizon: int = 64,
    samples: int = 1,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Nothing is fitted: the handle is the decoder, and with several samples their majority.

    Args:
        model: the base.
        items: only for `prompt="few-shot"`.
        form: `chains` of Metropolis–Hastings, or `rollouts` before each token.
        alpha: the power; 1 samples the model as it is.
        block: of chains, tokens by which answers grow before they are moved again.
        moves: of chains, after each block, each a new end from a position of the answer on.
        candidates: of rollouts, the likeliest next tokens that are weighed; others are never drawn.
        rollouts: of each candidate.
        horizon: tokens of a rollout at most.
        samples: answers a question.
        prompt: a name of `elicit.models.prompts.FORMATS` or a template file.
        max_new_tokens: limit of each answer.
        seed: of all random numbers.

    Raises:
        UserError: an unknown form, a power that is not above 0, a block, a horizon or a number of samples or candidates
            below 1, moves or rollouts below 0.
    """
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    shared = {"samples": samples, "prompt": prompt, "seed": seed}
    decoder: Decoder
    if form == "chains":
        options = {"alpha": alpha, "block": block, "moves": moves, **shared}
        decoder = Power(alpha, block, moves, samples, seed, max_new_tokens)
    else:
        ahead = {"candidates": candidates, "rollouts": rollouts, "horizon": horizon}
        options = {"form": form, "alpha": alpha, **ahead, **shared}
        decoder = PowerRollouts(alpha, candidates, rollouts, horizon, samples, seed, max_new_tokens)
    select = "greedy" if samples == 1 else "vote"
    return Elicited(model, NAME, prompt_for(model, prompt, items), decoder, select=select, options=options)


def controls(handle: Elicited, items: Items | None = None, *, seed: int = 0) -> dict[str, Elicited]:
    """Low temperature with as many tokens, chains or rollouts that know nothing, and the baselines at budget.

    `low-temperature@budget` is the likeliest of independent samples at temperature 1/α, and
    `low-temperature vote@budget` their majority: what the acceptance, or the look ahead, adds to drawing as often.
    Of chains: those that take no move, or every one. Of rollouts: none, and those of another candidate.
    """
    check_own(handle, NAME)
    decoder = handle.decoder
    assert isinstance(decoder, Power | PowerRollouts)
    drawn: Any = Sampling(temperature=decoder.temperature, seed=seed, max_new_tokens=decoder.max_new_tokens)
    likeliest = replace(handle, method="low-temperature", decoder=drawn, select="logprob", options={})
    others: dict[str, Decoder]
    if isinstance(decoder, Power):
        others = {"no moves": replace(decoder, moves=0), "every move": replace(decoder, accept="always")}
    else:
        others = {
            "no rollouts": replace(decoder, rollouts=0), "exchanged futures": replace(decoder, futures="exchanged"),
        }  # fmt: skip
    return {
        likeliest.method + MATCHED: likeliest,
        f"low-temperature vote{MATCHED}": replace(likeliest, method="low-temperature vote", select="vote"),
        **{name: replace(handle, method=name, decoder=other, options={}) for name, other in others.items()},
        **at_budget(handle, items, seed),
    }


def notes(options: dict[str, Any]) -> list[str]:
    """What was drawn."""
    of = f"Answers are drawn from the power {options['alpha']:g} of the model's distribution"
    if options.get("form") == "rollouts":
        return [
            f"{of}, each token among {options['candidates']} by {options['rollouts']} rollouts of each, of at most "
            f"{options['horizon']} tokens; all tokens of rollouts count."
        ]
    return [
        f"{of} by chains of {options['moves']} moves a block of {options['block']} tokens; tokens of moves that were "
        "not taken count."
    ]
