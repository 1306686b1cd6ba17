"""From critiques to examples: the prompt holds question and candidate, the target is the critique alone.

The text is the authors' (arXiv 2501.17703), put as every question is put: in the chat template where the prompt is
`chat`, as they do, and after `Q:` where it is bare. Every control is the same training with other targets, of the same
rows of tokens: critiques of another candidate, right solutions after the question, an untruthful critic, everyday text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from elicit.decoding.continuing import continuing_ids
from elicit.methods.critique_ft.critic import Critique
from elicit.methods.taught import example, in_cycle
from elicit.models.prompts import Prompt
from elicit.tasks.everyday_text import SENTENCES
from elicit.training.recipe import Example
from probes.errors import UserError, unknown

INSTRUCTION = "Please critique whether the following solution to the question is correct."
TARGETS = {
    "critiques": "what the critic says of the candidate",
    "shuffled": "what it says of another candidate of the problem",
    "solutions": "right candidates, after the question alone: supervised fine-tuning",
    "untruthful": "the opposite of what the critic found",
    "unrelated": "everyday sentences of as many tokens",
}


@dataclass(frozen=True)
class Row:
    """A candidate with its critique and with what the untruthful twin says; `correct` is the grade of its answer."""

    item: str
    question: str
    candidate: str
    critique: str
    right: bool
    untruthful: str
    correct: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Our fields with the authors': the file loads with their tools, and as a critique source."""
        theirs = {"instruction": f"{INSTRUCTION}\n\n", "input": asked(self), "output": self.critique}
        return {**asdict(self), **theirs}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Row:
        return Row(**{k: v for k, v in data.items() if k not in ("instruction", "input", "output")})


def asked(row: Row) -> str:
    """Question and candidate, as the authors put them."""
    return f"Question:\n{row.question}\nSolution:\n{row.candidate}\n"


def row_of(
    item: str, question: str, candidate: str, critique: Critique, lie: Critique, correct: bool | None = None
) -> Row:
    return Row(item, question, candidate, critique.text, critique.right, lie.text, correct)


def targets(kind: str, rows: Sequence[Row], seed: int = 0) -> list[tuple[str, str]]:
    """For each row the question that is put and the response that is learned, as text; of `unrelated` text none yet.

    Raises:
        UserError: an unknown kind, a shuffle of one row, solutions where no candidate is right.
    """
    if kind not in TARGETS:
        raise unknown("kind of targets", kind, TARGETS)
    if kind == "solutions":
        found = [(row.question, row.candidate) for row in rows if row.right]
        if not found:
            raise UserError(f"none of {len(rows)} candidates is right, so there is no solution to learn; give more")
        return found
    puts = [f"{INSTRUCTION}\n\n{asked(row)}".rstrip() for row in rows]
    if kind == "untruthful":
        return [(put, row.untruthful) for put, row in zip(puts, rows, strict=True)]
    if kind == "shuffled":
        return [(put, rows[other].critique) for put, other in zip(puts, _others(rows, seed), strict=True)]
    return [(put, row.critique) for put, row in zip(puts, rows, strict=True)]


def _others(rows: Sequence[Row], seed: int) -> list[int]:
    """For each row another row of its problem, each taken once; of all rows where a problem has one alone."""
    if len(rows) < 2:
        raise UserError("1 row was given where critiques are shuffled; give two candidates or more")
    groups: dict[str, list[int]] = {}
    for n, row in enumerate(rows):
        groups.setdefault(row.question, []).append(n)
    parts = list(groups.values()) if min(map(len, groups.values())) > 1 else [list(range(len(rows)))]
    rng = np.random.default_rng(seed)
    out = [0] * len(rows)
    for part in parts:
        for here, there in in_cycle(part, rng):
            out[here] = there
    return out


def examples(
    kind: str, rows: Sequence[Row], prompt: Prompt, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> list[Example]:
    """Token ids of every row's prompt and target, the end token last.

    Raises:
        UserError: as `targets`.
    """
    bare = replace(prompt, trigger="", begin="", shots=())
    out = []
    for n, (put, said) in enumerate(targets(kind, rows, seed)):
        one = example(tokenizer, bare, put, said)
        if kind == "unrelated":
            *text, end = one.target
            one = one._replace(target=[*_everyday(len(text), tokenizer, np.random.default_rng([seed, n])), end])
        out.append(one)
    return out


def _everyday(tokens: int, tokenizer: PreTrainedTokenizerBase, rng: np.random.Generator) -> list[int]:
    """So many tokens of everyday sentences."""
    ids: list[int] = []
    while len(ids) < tokens:
        sentence = " " + SENTENCES[int(rng.integers(len(SENTENCES)))]
        ids += continuing_ids(tokenizer, sentence)
    return ids[:tokens]


def fitting(some: Sequence[Example], width: int) -> list[Example]:
    """Those that a row of training holds.

    Raises:
        UserError: none does.
    """
    out = [one for one in some if one.tokens <= width]
    if not out:
        least = min((one.tokens for one in some), default=0)
        raise UserError(
            f"no usable row: of {len(some)} the shortest has {least} tokens and a row of training holds {width}; give "
            "more candidates or a larger width"
        )
    return out
