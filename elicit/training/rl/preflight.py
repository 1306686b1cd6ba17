"""Pre-flight: whether the reward has anything to teach, measured on the base before the first update.

A group of G rollouts moves the policy only if their rewards differ. For a reward of 0 or 1 that is given with
probability p, a fraction 1 − p^G − (1 − p)^G of groups is mixed. A run whose reward is never read, or never differs, is
refused here and says why, instead of training for nothing.
"""

from __future__ import annotations

import math
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
        right: the fraction of right answers; −1 where rewards do not say which are.
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

    def check(self, reward: str, otherwise: str = "checked=false trains all the same") -> None:
        """Refuse a run without a signal.

        Args:
            reward: its name.
            otherwise: how one would train all the same.

        Raises:
            UserError: the reward is read nowhere, or no group is mixed.
        """
        if self.read == 0:
            raise UserError(
                f"pre-flight: reward {reward!r} could be read in none of {self.answers} answers of the base, so "
                f"nothing would be learned; give another reward or prompt, or a larger limit ({otherwise})"
            )
        if self.mixed == 0:
            right = f" ({self.right:.0%} right)" if self.right >= 0 else ""
            raise UserError(
                f"pre-flight: reward {reward!r} is {self.reward:.2f} in every group of {self.answers} answers of the "
                f"base{right}, so no group has a difference to learn from; give another reward or example, a higher "
                f"temperature or larger groups ({otherwise})"
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
    rewards.look(rollouts)
    graded = [rewards.grade(some, context) for some in rollouts]
    return report(rollouts, graded, wrong, settings.group)


def report(
    rollouts: Sequence[Sequence[Rollout]], graded: Sequence[Sequence[Graded]], wrong: Mapping[str, str], group: int
) -> Preflight:
    """The figures of a pre-flight, from the rollouts of each example."""
    return _figures(
        [[one.total for one in some] for some in graded],
        [[float(r.score >= 1) for r in some] for some in rollouts],
        float(np.mean([one.read for some in graded for one in some])),
        group,
        wrong,
    )


def of_rewards(rewards: Sequence[Sequence[float | int | None]], group: int = 0) -> Preflight:
    """The figures of a pre-flight, from rewards that anybody gave.

    Args:
        rewards: of the answers to each example, in the order in which they were sampled; None or NaN where there is
            none, which is compared with nothing, as in TRL. All groups of one example in one row tell `expected` apart
            from `mixed`.
        group: generations that are compared with each other; 0: each row is one group.

    Raises:
        UserError: no rewards, a group of one, a row that is no whole number of groups, an infinite reward.
    """
    if not rewards:
        raise UserError("no rewards were given; give a list of groups, each a list of numbers")
    for n, row in enumerate(rewards):
        if len(row) < 2 or group == 1 or (group and len(row) % group):
            groups = f"groups of {group}" if group else "one group"
            raise UserError(f"row {n} holds {len(row)} rewards for {groups}; give whole groups of at least two")
        if any(value is not None and math.isinf(value) for value in row):
            raise UserError(f"row {n} holds an infinite reward; give finite numbers, or None where there is none")
    totals = [[math.nan if value is None else float(value) for value in row] for row in rewards]
    told = all(value in (0, 1) for row in totals for value in row)
    read = float(np.mean([not math.isnan(value) for row in totals for value in row]))
    return _figures(totals, totals if told else None, read, group, {})


def _figures(
    totals: Sequence[Sequence[float]],
    right: Sequence[Sequence[float]] | None,
    read: float,
    group: int,
    wrong: Mapping[str, str],
) -> Preflight:
    rows = [np.array(row, dtype=float) for row in totals]
    every = np.concatenate(rows)
    known = every[~np.isnan(every)]
    groups = [row[n : n + size] for row in rows for size in [group or len(row)] for n in range(0, len(row), size)]
    expected = -1.0
    if np.isin(every, (0, 1)).all():
        apart = [1 - p**size - (1 - p) ** size for row in rows for p, size in [(row.mean(), group or len(row))]]
        expected = float(np.mean(apart))
    at_k: dict[str, float] = {}
    if right is not None:
        n, counts = np.array([len(row) for row in right]), np.array([int(sum(row)) for row in right])
        at_k = {str(k): float(pass_at_k(n, counts, k).mean()) for k in (1, 2, 4, 8, 16, 32) if k <= n.min()}
    return Preflight(
        answers=every.size,
        read=read,
        reward=float(known.mean()) if known.size else 0.0,
        mixed=float(np.mean([len(set(some[~np.isnan(some)])) > 1 for some in groups])),
        expected=expected,
        right=-1.0 if right is None else float(np.mean(np.concatenate([np.array(row) for row in right]))),
        pass_at_k=at_k,
        wrong=dict(wrong),
    )
