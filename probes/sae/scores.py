"""Which SAE features stand for a way of answering: scores of all features at once, on one interface.

- *Contrast* (arXiv 2601.08058): s_f = mean z_f(with) − mean z_f(without), at one position of each prompt.
- *ReasonScore* (arXiv 2503.18878, section 3.1): s_f = (μ⁺_f / Σμ⁺) · H_f^0.7 − μ⁻_f / Σμ⁻. μ⁺ is the mean activation
  in windows around reasoning words, one token to the left and two to the right, μ⁻ the mean elsewhere; H_f is the
  entropy of a feature's means over the words, between 0 and 1: a feature of one word alone stays down.
- *Both*: what stands high in both, by the worse of its two ranks.

A score ranks candidates and proves nothing: candidates are then steered one by one, and the best is rarely the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.errors import UserError
from probes.sae.autoencoder import SAE

ENTROPY_POWER = 0.7
LEFT, RIGHT = 1, 2
CHUNK = 1024  # positions encoded at once
SAME = 1e-6  # of a mean: sums in another order differ by less
REASONING_WORDS = (
    "alternatively", "but", "check", "first", "hmm", "however", "maybe", "next", "perhaps", "so", "then", "therefore",
    "though", "thus", "verify", "wait",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Scores:
    """A score for each feature; `about` says from what."""

    name: str
    values: Float[Tensor, " d_sae"]
    about: dict[str, Any] = field(default_factory=dict)

    def top(self, n: int) -> list[int]:
        """The features with the n largest scores above 0, best first."""
        order = self.values.argsort(descending=True, stable=True)[:n]
        return [int(i) for i in order if self.values[i] > 0]

    def rank(self) -> Int[Tensor, " d_sae"]:
        """Each feature's place, 0 the best."""
        return self.values.argsort(descending=True, stable=True).argsort()


@dataclass(frozen=True, eq=False)
class Firing:
    """How a feature fires over many positions: the fraction of them, and its largest activation."""

    density: Float[Tensor, " d_sae"]
    maximum: Float[Tensor, " d_sae"]
    positions: int

    def alike(self, sae: SAE, index: int, count: int, seed: int, avoid: Sequence[int] = ()) -> list[int]:
        """Random features that fire about as often as this one: drawn from the nearest in log density that fire at all.

        Raises:
            UserError: too few features that fire.
        """
        log = self.density.clamp(min=0.5 / self.positions).log()
        far = (log - log[index]).abs()
        far[self.density == 0] = torch.inf
        far[[index, *avoid]] = torch.inf
        alive = int(far.isfinite().sum())
        if alive < count:
            raise UserError(
                f"{count} random features were asked for and {alive} of {sae.d_sae} fire here; ask for fewer"
            )
        near = far.topk(min(alive, 8 * count), largest=False).indices
        order = torch.randperm(len(near), generator=torch.Generator().manual_seed(seed))
        return [int(i) for i in near[order[:count]]]


def encoded(sae: SAE, acts: Float[Tensor, "positions d_model"]) -> Float[Tensor, "positions d_sae"]:
    """Feature activations, computed where the SAE is, on the CPU."""
    return sae.encode(acts.to(sae.W_enc.device)).cpu()


def contrast(
    sae: SAE, positive: Float[Tensor, "n_positive d_model"], negative: Float[Tensor, "n_negative d_model"]
) -> Scores:
    """Mean activation on the positive prompts minus mean activation on the negative ones.

    Args:
        sae: the SAE of the site.
        positive, negative: activations there, one position of each prompt.

    Raises:
        UserError: nothing on a side, or no feature that differs.
    """
    if not len(positive) or not len(negative):
        raise UserError(
            f"{len(positive)} positive and {len(negative)} negative prompts were given; give at least one each"
        )
    more, less = encoded(sae, positive).mean(0), encoded(sae, negative).mean(0)
    difference = torch.where((more - less).abs() > SAME * more.abs().maximum(less.abs()), more - less, 0.0)
    if not bool((difference > 0).any()):
        raise UserError(
            f"no feature of {sae.name!r} fires more on the positive prompts than on the negative ones; "
            "give prompts that differ where they are read"
        )
    return Scores("contrast", difference, {"prompts": [len(positive), len(negative)]})


def word_windows(
    texts: Sequence[Sequence[str]], words: Sequence[str] = REASONING_WORDS
) -> tuple[list[list[int]], list[str]]:
    """For each token the number of the word whose window it lies in, −1 outside all; and the words that occur.

    A word is found where a token begins it and the tokens spell it, in any case, whatever punctuation follows.

    Raises:
        UserError: none of the words occurs.
    """
    spelled = [word.strip().lower() for word in words]
    found: list[str] = []
    out = []
    for tokens in texts:
        label = [-1] * len(tokens)
        for place, number in _occurrences(tokens, spelled):
            if spelled[number] not in found:
                found.append(spelled[number])
            for near in range(max(0, place - LEFT), min(len(tokens), place + RIGHT + 1)):
                label[near] = found.index(spelled[number])
        out.append(label)
    if not found:
        raise UserError(f"none of the words {', '.join(spelled)} occurs in {len(texts)} answers; give words that do")
    return out, found


def _occurrences(tokens: Sequence[str], words: Sequence[str]) -> list[tuple[int, int]]:
    """(token, word) where a word begins."""
    lowered = [token.lower() for token in tokens]  # one by one: in lower case some letters are two
    text = "".join(lowered)
    starts, at = {}, 0
    for i, token in enumerate(lowered):
        starts[at + len(token) - len(token.lstrip())] = i
        at += len(token)
    out = []
    for begin, place in starts.items():
        if begin and text[begin - 1].isalnum():
            continue
        for number, word in enumerate(words):
            end = begin + len(word)
            if text.startswith(word, begin) and not text[end : end + 1].isalnum():
                out.append((place, number))
    return out


def reason_score(
    sae: SAE,
    acts: Float[Tensor, "positions d_model"],
    word: Int[Tensor, " positions"],
    *,
    power: float = ENTROPY_POWER,
) -> Scores:
    """ReasonScore of every feature.

    Args:
        sae: the SAE of the site.
        acts: activations of thoughts, position by position.
        word: for each position the number of the word whose window it lies in, −1 outside.
        power: of the entropy.

    Raises:
        UserError: no position inside a window, or none outside; nothing that fires there.
    """
    inside = word >= 0
    if not bool(inside.any()) or bool(inside.all()):
        raise UserError(f"{int(inside.sum())} of {len(word)} positions lie in windows of words; give texts with both")
    count = int(word.max()) + 1
    sums = torch.zeros(count + 1, sae.d_sae)
    numbers = torch.zeros(count + 1)
    for start in range(0, len(acts), CHUNK):
        here = word[start : start + CHUNK] % (count + 1)  # −1 is the last row
        # Of an SAE whose activations have either sign those above 0 count, as in `firing`: μ is a share of a sum.
        sums.index_add_(0, here, encoded(sae, acts[start : start + CHUNK]).clamp(min=0))
        numbers.index_add_(0, here, torch.ones(len(here)))
    plus = sums[:count].sum(0) / numbers[:count].sum()
    minus = sums[count] / numbers[count]
    if not bool(plus.any()) or not bool(minus.any()):
        where = "outside" if bool(plus.any()) else "inside"
        raise UserError(f"no feature of {sae.name!r} fires {where} the windows of words; give more texts")
    means = sums[:count] / numbers[:count, None].clamp(min=1)
    share = means / means.sum(0).clamp(min=1e-12)
    entropy = -(share * share.clamp(min=1e-12).log()).sum(0) / torch.tensor(float(max(2, count))).log()
    values = plus / plus.sum() * entropy.clamp(0, 1) ** power - minus / minus.sum()
    return Scores("reason", values, {"words": count, "positions": [int(inside.sum()), int((~inside).sum())]})


def both(first: Scores, second: Scores) -> Scores:
    """What stands high in both: the score is 1 / (1 + the worse rank), and 0 where either score is not above 0."""
    worse = torch.maximum(first.rank(), second.rank())
    kept = (first.values > 0) & (second.values > 0)
    return Scores(f"{first.name} and {second.name}", kept / (1.0 + worse), {**first.about, **second.about})


def firing(sae: SAE, acts: Float[Tensor, "positions d_model"]) -> Firing:
    """How often every feature fires over these positions, and its largest activation."""
    count, maximum = torch.zeros(sae.d_sae), torch.zeros(sae.d_sae)
    for start in range(0, len(acts), CHUNK):
        z = encoded(sae, acts[start : start + CHUNK])
        count += (z > 0).sum(0)
        maximum = torch.maximum(maximum, z.amax(0))
    return Firing(count / len(acts), maximum, len(acts))
