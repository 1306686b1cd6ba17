"""Prompts that are decoded part by part, by a policy that follows all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from probes.confidence import Top2


def of_one_length(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of the prompts of each length."""
    lengths = sorted({len(prompt) for prompt in prompts})
    return [[i for i, prompt in enumerate(prompts) if len(prompt) == length] for length in lengths]


class Part:
    """A policy of the loop, as it is asked about some of its prompts.

    Args:
        policy: follows all prompts.
        numbers: of those that are asked about.
        of: how many prompts there are.
    """

    def __init__(self, policy: Any, numbers: Sequence[int], of: int) -> None:
        self.policy, self.numbers, self.of = policy, np.array(numbers), of
        self.rows: tuple[Any, Any] = (None, None)  # as the loop and as the policy knows them

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        every = logits.new_zeros(self.of, logits.shape[1])
        every[self.numbers] = logits
        chosen: Tensor = self.policy.first(every)
        return chosen[self.numbers]

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Any, step: int) -> Int[Tensor, " rows"]:
        if rows is not self.rows[0]:
            self.rows = rows, replace(rows, question=self.numbers[rows.question])
        chosen: Tensor = self.policy.next(logits, top, self.rows[1], step)
        return chosen


def without(logits: Float[Tensor, "*rows vocab"], ids: Int[Tensor, " ids"]) -> Float[Tensor, "*rows vocab"]:
    """The logits, in which these ids are put to −inf, so that no rule can choose them and they have no probability."""
    return logits.index_fill_(-1, ids.to(logits.device), float("-inf")) if len(ids) else logits
