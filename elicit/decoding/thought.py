"""A budget for chains of thought: after so many tokens of thought the mark that ends it (`</think>`) is written.

A row is within a thought from an opening mark, which its prompt may end in, to the closing one
(`elicit.tasks.statements.THOUGHTS`). Tokens between them count, over all thoughts of an answer. When they are spent the
closing mark's tokens are written in place of what the decoder chooses, and it goes on after them; their statistics are
the model's own. As the budgets of arXiv 2501.19393 (section 3.1) and of vLLM's `thinking_token_budget`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from elicit.tasks.statements import THOUGHTS
from probes.confidence import Top2
from probes.offsets import decoded

LONGEST = max(len(mark) for pair in THOUGHTS for mark in pair)


class Thought:
    """What one row has thought so far.

    Args:
        tokenizer: of the model.
        budget: tokens of thought.
        begun: the opening mark that its prompt ends in, or "".
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, budget: int, begun: str) -> None:
        self.tokenizer, self.budget = tokenizer, budget
        self.within = begun
        self.spent = 0
        self.tail: list[int] = []
        self.forced: list[int] = []

    def token(self, chosen: int) -> int:
        """The token that is written where the decoder chose one."""
        if self.within and not self.forced and self.spent >= self.budget:
            end = dict(THOUGHTS)[self.within]
            self.forced = [int(i) for i in self.tokenizer(end, add_special_tokens=False)["input_ids"]]  # type: ignore[union-attr]
            self.tail = []  # a mark that the model had begun to write is no part of this one
        written = self.forced.pop(0) if self.forced else chosen
        self.tail = [*self.tail, written][-LONGEST:]
        self.spent += bool(self.within)
        text = decoded(self.tokenizer, self.tail)
        if self.within:
            if dict(THOUGHTS)[self.within].lower() in text.lower():
                self.within, self.tail, self.forced = "", [], []
        else:
            self.within = next((mark for mark, _ in THOUGHTS if mark.lower() in text.lower()), "")
            if self.within:
                self.tail = []
        return written


def begun_in(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> str:
    """The opening mark that a prompt ends in, or ""."""
    text = decoded(tokenizer, [int(token) for token in prompt[-LONGEST:]]).rstrip().lower()
    return next((mark for mark, _ in THOUGHTS if text.endswith(mark.lower())), "")


class Budgeted:
    """A policy whose rows end their thoughts.

    Args:
        policy: chooses the tokens.
        prompts: token ids of each.
        branches: that the policy opens for each.
        tokenizer, budget: as `Thought`.
    """

    def __init__(
        self,
        policy: Any,
        prompts: Sequence[Sequence[int]],
        branches: int,
        tokenizer: PreTrainedTokenizerBase,
        budget: int,
    ) -> None:
        self.policy, self.branches, self.tokenizer, self.budget = policy, branches, tokenizer, budget
        self.marks = [begun_in(tokenizer, prompt) for prompt in prompts]
        self.thoughts: list[list[Thought]] = []

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        chosen = self.policy.first(logits)
        # Prompts may be decoded part by part: each part begins here, and ends before the next.
        self.thoughts = [
            [Thought(self.tokenizer, self.budget, mark) for _ in range(self.branches)] for mark in self.marks
        ]
        written = [
            [one.token(token) for one, token in zip(thoughts, tokens, strict=True)]
            for thoughts, tokens in zip(self.thoughts, chosen.tolist(), strict=True)
        ]
        return torch.tensor(written, device=chosen.device)

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Any, step: int) -> Int[Tensor, " rows"]:
        chosen = self.policy.next(logits, top, rows, step)
        written = [
            self.thoughts[question][branch].token(token)
            for question, branch, token in zip(rows.question, rows.branch, chosen.tolist(), strict=True)
        ]
        return torch.tensor(written, device=chosen.device)
