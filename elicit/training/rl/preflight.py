"""Pre-flight: whether the reward has anything to teach, measured on the base before the first update.

A group of G rollouts moves the policy only if their rewards differ. For a reward of 0 or 1 that is given with
probability p, a fraction 1 − p^G − (1 − p)^G of groups is mixed. A run whose reward is never read, or never differs, is
refused here and says why, instead of training for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from elicit.decoding.decoders import Sampling
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from elicit.training.rl.rewards import Graded, RewardContext, Rewards, Rollout
from elicit.training.rl.rollouts import sample
from elicit.training.rl.settings import Settings
from probes.at_k import pass_at_k
from probes.errors import UserError
from steering.adapters import Tuned


@dataclass(frozen=True)
class Preflight:
    """What the base does with the reward.

    Args:
        answers: rollouts that were looked at.
        read: the fraction of them in which the reward found something to read.
        reward: the mean reward.
        mixed: the fraction of groups whose rewards differ.
        expected: the same from each example's p, for a reward of 0 and 1 (else −1).
        right: the fraction of right answers.
        pass_at_k: of the base, by k.
        wrong: each example's most frequent wrong answer, the label of reward `incorrect`.
    """

    answers: int
    read: float
    reward: float
    mixed: float
    expected: float
    right: float
    pass_at_k: dict[str, float]
    wrong: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, reward: str) -> None:
        """Refuse a run without a signal.

        Raises:
            UserError: the reward is read nowhere, or no group is mixed.
        """
        if self.read == 0:
            raise UserError(
                f"pre-flight: reward {reward!r} could be read in none of {self.answers} answers of the base, so "
                "nothing would be learned; give another reward or prompt, or a larger limit (checked=false trains all "
                "the same)"
            )
        if self.mixed == 0:
            raise UserError(
                f"pre-flight: reward {reward!r} is {self.reward:.2f} in every group of {self.answers} answers of the "
                f"base ({self.right:.0%} right), so no group has a difference to learn from; give another reward or "
                "example, a higher temperature or larger groups (checked=false trains all the same)"
            )


def first_samples(
    model: Model, items: Items, prompt: Prompt, settings: Settings, adapter: Tuned | None = None
) -> list[list[Rollout]]:
    """The base's answers to each example, of random numbers that training never draws."""
    count = -(-settings.preflight // settings.group) * settings.group  # whole groups
    decoder = Sampling(
        count, settings.temperature, seed=settings.seed, max_new_tokens=settings.max_new_tokens, first_sample=-count
    )
    return sample(model, items, prompt, decoder, settings.rollout_rows, adapter=adapter)


def wrong_answers(items: Items, rollouts: Sequence[Sequence[Rollout]]) -> dict[str, str]:
    """The most frequent wrong answer to each item; an item that was never answered wrongly is left out."""
    out: dict[str, str] = {}
    for item, some in zip(items, rollouts, strict=True):
        wrong = [r.answer for r in some if r.answer is not None and r.score < 1]
        if wrong:
            groups = items.task.grader.groups(wrong)
            out[item.id] = wrong[Counter(groups).most_common(1)[0][0]]
    return out


def measured(
    model: Model,
    items: Items,
    prompt: Prompt,
    settings: Settings,
    rewards: Rewards,
    reward_context: Callable[[Mapping[str, str]], RewardContext],
    adapter: Tuned | None = None,
) -> Preflight:
    """Sample, grade, report; `reward_context` says what rewards may look at, given the wrong answers."""
    rollouts = first_samples(model, items, prompt, settings, adapter)
    wrong = wrong_answers(items, rollouts)
    context = reward_context(wrong)
    graded = [rewards.grade(some, context) for some in rollouts]
    return report(rollouts, graded, wrong, settings.group)


def report(
    rollouts: Sequence[Sequence[Rollout]], graded: Sequence[Sequence[Graded]], wrong: Mapping[str, str], group: int
) -> Preflight:
    """The figures of a pre-flight, from the rollouts of each example."""
    totals = np.array([[one.total for one in some] for some in graded])
    right = np.array([[float(r.score >= 1) for r in some] for some in rollouts])
    groups = totals.reshape(-1, group)
    expected = -1.0
    if np.isin(totals, (0, 1)).all():
        p = totals.mean(1)
        expected = float(np.mean(1 - p**group - (1 - p) ** group))
    n = right.shape[1]
    counts = right.sum(1).astype(int)
    return Preflight(
        answers=totals.size,
        read=float(np.mean([one.read for some in graded for one in some])),
        reward=float(totals.mean()),
        mixed=float(np.mean(groups.max(1) > groups.min(1))),
        expected=expected,
        right=float(right.mean()),
        pass_at_k={
            str(k): float(pass_at_k(np.full(len(counts), n), counts, k).mean()) for k in (1, 2, 4, 8, 16, 32) if k <= n
        },
        wrong=dict(wrong),
    )
