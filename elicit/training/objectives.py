"""Losses of given texts beside the cross-entropy of all of them: several objectives together, and preference.

- `joint`: the mean of the cross-entropies of k objectives, each the mean over its own tokens (RevThink, arXiv
  2411.19865, where k is 3). A step's examples are one of each objective in turn, over and over.
- `Preference`: direct preference optimisation (arXiv 2305.18290, eq. 7). A step's examples are the chosen and the
  rejected answer of each pair in turn. With r(y) = log π(y | x) − log π_ref(y | x), log-probabilities summed over an
  answer's tokens, the loss is the mean over pairs of

      −log σ(β (r(chosen) − r(rejected)))

  Its derivative by the log-probability of each token of a pair is ∓β σ(−margin), the same for all of them: two passes
  over the output head, one forward of the model, and no logits are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from elicit.training.output_head import logprobs_and_entropy, summed_loss
from elicit.training.recipe import Example, Recipe
from elicit.training.sft import Backward, Key, before_targets, check_some, cross_entropy, key, quick
from probes.errors import above


def joint(objectives: int) -> Backward:
    """The mean of the cross-entropies of so many objectives, whose examples come in turn."""

    def backward(lm: PreTrainedModel, examples: Sequence[Example], recipe: Recipe, together: bool) -> float:
        return sum(
            cross_entropy(lm, examples[n::objectives], recipe, together, 1 / objectives) for n in range(objectives)
        )

    return backward


@dataclass(frozen=True)
class Preference:
    """−log σ(β (r(chosen) − r(rejected))), a `Backward`.

    Args:
        beta: β, how far from the reference preferences may take the model.
        reference: log π_ref of each answer after its prompt (nats), by `key`.

    Raises:
        UserError: a β that is not above 0.
    """

    beta: float
    reference: Mapping[Key, float]

    def __post_init__(self) -> None:
        above(self, 0, "beta")

    @staticmethod
    def on(beta: float, examples: Sequence[Example], recipe: Recipe) -> Callable[[PreTrainedModel], Preference]:
        """With a model as it is before it is trained as the reference of these examples."""
        return lambda lm: Preference(beta, log_probabilities(lm, examples, recipe))

    def __call__(self, lm: PreTrainedModel, examples: Sequence[Example], recipe: Recipe, together: bool) -> float:
        """Chosen and rejected in turn; pairs are computed together as far as a part has rows for both."""
        pairs, each = len(examples) // 2, max(1, recipe.part // 2)
        total = 0.0
        for start in range(0, pairs, each):
            some = examples[2 * start : 2 * (start + each)]
            hidden, ids = before_targets(lm, [[e] for e in some], recipe.width)
            known = torch.tensor([self.reference[key(e)] for e in some], device=hidden.device)
            gains = _summed(lm, hidden.detach(), ids, some) - known
            margin = self.beta * (gains[0::2] - gains[1::2])
            pull = self.beta * torch.sigmoid(-margin) / pairs
            signed = torch.stack([pull, -pull], 1).flatten()
            lengths = torch.tensor([len(e.target) for e in some], device=hidden.device)
            loss = partial(_weighed, signed.repeat_interleave(lengths))
            summed_loss(lm, hidden, ids, 1.0, loss)[0].backward()
            total -= float(nn.functional.logsigmoid(margin).sum()) / pairs
        return total


@torch.no_grad()
def log_probabilities(lm: PreTrainedModel, examples: Sequence[Example], recipe: Recipe) -> dict[Key, float]:
    """Of each target after its prompt (nats), with the kernels of the recipe's training."""
    different = list({key(e): e for e in examples}.values())
    out: dict[Key, float] = {}
    with quick(lm, recipe):
        for start in range(0, len(different), recipe.part):
            some = different[start : start + recipe.part]
            hidden, ids = before_targets(lm, [[e] for e in some], recipe.width)
            out |= zip(map(key, some), _summed(lm, hidden, ids, some).tolist(), strict=True)
    return out


def _summed(lm: PreTrainedModel, hidden: Tensor, ids: Tensor, examples: Sequence[Example]) -> Float[Tensor, " n"]:
    """The log-probability of each example's target."""
    each, _ = logprobs_and_entropy(lm, hidden, ids, 1.0)
    return torch.stack([some.sum() for some in each.split([len(e.target) for e in examples])])


def _weighed(weights: Tensor, logprob: Tensor, entropy: Tensor, at: slice) -> Tensor:
    return -(weights[at] * logprob).sum()


def in_turn(groups: Sequence[Sequence[Example]], count: int, seed: int) -> Callable[[int], list[Example]]:
    """The examples of a step, a function of its number: those of `count` groups, drawn without repetition.

    Raises:
        UserError: no groups.
    """
    check_some(groups)

    def batch(step: int) -> list[Example]:
        out: list[Example] = []
        for n in range(step * count, (step + 1) * count):
            epoch, place = divmod(n, len(groups))
            out += groups[int(np.random.default_rng([seed, epoch]).permutation(len(groups))[place])]
        return out

    return batch


def as_many_tokens(
    some: Sequence[Example], other: Callable[[int], list[Example]], seed: int
) -> Callable[[int], list[Example]]:
    """Other examples with as many tokens as the same step of another training, to within half of one.

    Raises:
        UserError: no examples.
    """
    check_some(some)

    def batch(step: int) -> list[Example]:
        wanted = sum(e.tokens for e in other(step))
        rng = np.random.default_rng([seed, step])
        out: list[Example] = []
        tokens = 0
        while True:
            for i in rng.permutation(len(some)):
                one = some[int(i)]
                if out and tokens + one.tokens / 2 > wanted:
                    return out
                out.append(one)
                tokens += one.tokens

    return batch
