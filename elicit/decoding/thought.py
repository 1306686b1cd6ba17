"""Thoughts that end by a budget, and those whose end is put off.

A row is within a thought from an opening mark, which its prompt may end in, to the closing one
(`elicit.tasks.statements.THOUGHTS`), or all of its answer is one. Tokens of it count, over all thoughts of an answer.

- When the budget is spent the closing mark's tokens are written in place of what the decoder chooses, then `final`.
- Where a token is chosen that ends the thought, that token is not written but those of a `word`, so many times.

The decoder goes on after what was written; the statistics of all tokens are the model's own. As the maximum and the
minimum of arXiv 2501.19393 (section 3.1), and the first as vLLM's `thinking_token_budget`. A word that has begun is
written to its end before the budget is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from elicit.decoding.continuing import continuing_ids
from elicit.tasks.statements import THOUGHTS
from probes.confidence import Top2
from probes.offsets import decoded

LONGEST = max(len(mark) for pair in THOUGHTS for mark in pair)
ANSWER = "the answer"  # is a thought from its first token on, and no mark ends it
ENDS = {**dict(THOUGHTS), ANSWER: ""}


@dataclass(frozen=True)
class Forcing:
    """What is written beside the mark that ends a thought.

    Args:
        waits: how many ends of its own a row's thoughts are not given.
        word: written in place of each.
        final: written after an end that was forced.
        ends: by opening mark, or `ANSWER`, the tokens that end a thought.
        whole: whether all of an answer is a thought.
    """

    waits: int = 0
    word: str = ""
    final: str = ""
    ends: Mapping[str, frozenset[int]] = field(default_factory=dict)
    whole: bool = False


UNFORCED = Forcing()


class Thought:
    """What one row has thought so far.

    Args:
        tokenizer: of the model.
        budget: tokens of thought.
        begun: the opening mark that its prompt ends in, or "".
        forcing: what else is written.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, budget: int, begun: str, forcing: Forcing = UNFORCED
    ) -> None:
        self.tokenizer, self.budget, self.forcing = tokenizer, budget, forcing
        self.within = ANSWER if forcing.whole else begun
        self.spent = self.waited = 0
        self.tail: list[int] = []
        self.forced: list[int] = []

    @property
    def due(self) -> bool:
        """Whether the next token is no choice of the decoder's, its budget being spent or a mark begun."""
        return bool(self.forced) or (bool(self.within) and self.spent >= self.budget)

    def token(self, chosen: int) -> int:
        """The token that is written where the decoder chose one."""
        written = self._written(chosen)
        self._note(written)
        return written

    def read(self, token: int) -> None:
        """A token that stands there already: it counts, and where it begins an end that is due, the rest follows."""
        tail = self.tail
        if self._written(token) != token:
            self.forced, self.tail = [], tail
        self._note(token)

    def _written(self, chosen: int) -> int:
        if self.within and not self.forced:
            if self.spent >= self.budget:
                self._cut()
            elif self.waited < self.forcing.waits and chosen in self.forcing.ends.get(self.within, ()):
                self.waited += 1
                self.forced = self._ids(self._spaced(self.forcing.word))
        if not self.forced:
            return chosen
        written, *self.forced = self.forced  # a new list: a copy of this thought keeps its own
        return written

    def _note(self, written: int) -> None:
        self.tail = [*self.tail, written][-LONGEST:]
        self.spent += bool(self.within)
        if not self.forcing.whole:
            self._marks(decoded(self.tokenizer, self.tail))

    def _cut(self) -> None:
        """The budget is spent."""
        end, final = ENDS[self.within], self.forcing.final
        if self.forcing.whole:
            self.forced, self.within = self._ids(self._spaced(final)), ""
        else:
            self.forced = self._ids(f"{end}\n\n{final}" if final else end)
            self.tail = []  # a mark that the model had begun to write is no part of this one

    def _marks(self, text: str) -> None:
        """Whether the last tokens begin or end a thought."""
        if self.within:
            if ENDS[self.within].lower() in text.lower():
                self.within, self.tail = "", []
        elif not self.forced:
            self.within = next((mark for mark, _ in THOUGHTS if mark.lower() in text.lower()), "")
            if self.within:
                self.tail = []

    def _spaced(self, words: str) -> str:
        """Words with a blank before them, unless one was written."""
        text = decoded(self.tokenizer, self.tail)
        blank = self.forcing.whole if not text else not text[-1].isspace()
        return f" {words}" if blank else words

    def _ids(self, text: str) -> list[int]:
        return continuing_ids(self.tokenizer, text)


def begun_in(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> str:
    """The opening mark that a prompt ends in, or whose token words alone follow (`<think>\\nOkay, so`); else ""."""
    ends = decoded(tokenizer, [int(token) for token in prompt[-LONGEST:]]).rstrip().lower()
    added = {number: str(token).strip().lower() for number, token in tokenizer.added_tokens_decoder.items()}
    last = next((added[token] for token in map(int, reversed(prompt)) if added.get(token)), "")
    return next((mark for mark, _ in THOUGHTS if ends.endswith(mark.lower()) or last == mark.lower()), "")


def written_in(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int], budget: int
) -> list[int]:
    """Which tokens of an answer stand there because the budget was spent, whatever the model would have chosen."""
    thought, found = Thought(tokenizer, budget, begun_in(tokenizer, prompt)), list[int]()
    for place, token in enumerate(tokens):
        if thought.due:
            found.append(place)
        thought.token(token)
    return found


class Budgeted:
    """A policy whose rows end their thoughts.

    Args:
        policy: chooses the tokens.
        prompts: token ids of each.
        branches: that the policy opens for each.
        tokenizer, budget, forcing: as `Thought`.
        lengths: of the question in each prompt, where what follows it was said before, and counts. None: all of it.
    """

    def __init__(
        self,
        policy: Any,
        prompts: Sequence[Sequence[int]],
        branches: int,
        tokenizer: PreTrainedTokenizerBase,
        budget: int,
        forcing: Forcing = UNFORCED,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.policy, self.branches = policy, branches
        self.begun: list[Thought] = []
        for prompt, length in zip(prompts, lengths or [len(prompt) for prompt in prompts], strict=True):
            thought = Thought(tokenizer, budget, begun_in(tokenizer, prompt[:length]), forcing)
            for token in prompt[length:]:
                thought.read(int(token))
            self.begun.append(thought)
        self.thoughts: list[list[Thought]] = []

    def first(self, logits: Float[Tensor, "questions vocab"]) -> Int[Tensor, "questions branches"]:
        chosen = self.policy.first(logits)
        # Prompts may be decoded part by part: each part begins here, and ends before the next.
        self.thoughts = [[copy(one) for _ in range(self.branches)] for one in self.begun]
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
