"""Texts as something to train thought on: every position of every document is an item, whose answer is the next token.

    document   x₁ x₂ … x_n
    item t     x₁ … x_t, the opening of a thought  →  thought, its closing  →  x_{t+1}

Token ids are the document's own at every position: nothing is written out and read again. The positions of a document
stand together and in order, so that those of one rollout share its text (`elicit.decoding.trunk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from elicit.decoding.trunk import Trunk, shares
from elicit.models.prompts import Prompt
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.free_text import Ungraded
from elicit.training.rl.policy import Batch
from probes.batching import left_pad
from probes.encoding import encoded
from probes.errors import UserError
from probes.files import digest
from probes.offsets import decoded

# Which positions a filter leaves: the second and third are controls of the first.
FILTERS = {
    "entropy": "those whose next token the proxy is unsure of",
    "random": "as many of all, drawn at random",
    "first": "as many of all, the first ones: all positions of fewer documents",
}

ORDERS = {"text": "as they stand in the documents", "drawn": "drawn at random, each once before any comes again"}


@dataclass(frozen=True)
class Positions(Prompt):
    """What a thought is begun after: the beginning of a document, and the opening.

    Args:
        documents: token ids of each.
        opening: token ids that begin a thought, at least one.
        closing: token ids that are put after a thought that did not write the end itself.
        closed_by: the closing as a string; in `ends` as well where it is all that is waited for.
    """

    documents: tuple[tuple[int, ...], ...] = ()
    opening: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    closed_by: str = ""

    def ids(self, question: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Of a position, as `positions` names it in an item's question."""
        return self.before(question)

    def before(self, question: str) -> list[int]:
        """The same; a position needs no tokenizer."""
        document, _, position = question.partition("@")
        return [*self.documents[int(document)][: int(position)], *self.opening]

    def begun(self, question: str, tokenizer: PreTrainedTokenizerBase | None = None) -> str:
        """None: what is sampled is a thought from its first token, and is read as it is."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """With the documents' hash in their place."""
        return {
            "base": "positions", "documents": digest(self.documents), "opening": list(self.opening),
            "closing": list(self.closing), "ends": list(self.ends),
        }  # fmt: skip

    def trunk(self, items: Sequence[Item], beyond: int = 0) -> Trunk:
        """How the prompts of some positions share their documents, each up to so many tokens beyond the last one."""
        parts = [list(some) for _, some in groupby(items, key=lambda item: int(item.metadata["document"]))]
        cut = [[int(item.metadata["position"]) for item in some] for some in parts]
        texts = [
            self.documents[some[0].metadata["document"]][: max(cuts) + beyond]
            for some, cuts in zip(parts, cut, strict=True)
        ]
        of = [n for n, some in enumerate(parts) for _ in some]
        return Trunk(texts, of, [one for cuts in cut for one in cuts])


def batch_of(
    lm: PreTrainedModel,
    prompt: Positions,
    items: Sequence[Item],
    question: Sequence[int],
    completions: Sequence[Sequence[int]],
    limit: int,
) -> Batch:
    """Completions after positions as tensors, row r after item `question[r]`; documents are computed once where the
    model can."""
    trunk = prompt.trunk(items)
    if shares(lm, max(map(len, trunk.texts)) + len(prompt.opening) + limit):
        return Batch.leaving(trunk, prompt.opening, question, completions, limit, lm.device)
    prompts = left_pad([prompt.before(item.question) for item in items], lm.device)
    return Batch.of(prompts, question, completions, limit)


def tokenized(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int, shortest: int
) -> list[tuple[int, ...]]:
    """Token ids of documents; one of more than `longest` tokens in as few parts of nearly one length as hold it.

    Raises:
        UserError: an empty document, or one of fewer than `shortest` tokens; it is named.
    """
    out: list[tuple[int, ...]] = []
    for number, text in enumerate(texts, 1):
        if not text.strip():
            raise UserError(f"document {number} of {len(texts)} is empty; give it text or leave it out")
        ids = encoded(tokenizer, text)
        if len(ids) < shortest:
            raise UserError(
                f"document {number} ({text.strip()[:40]!r}) has {len(ids)} tokens, fewer than a thought may have "
                f"({shortest}); give longer texts or smaller thought_tokens"
            )
        parts = -(-len(ids) // longest)
        ends = [len(ids) * n // parts for n in range(parts + 1)]
        out += [tuple(ids[start:end]) for start, end in pairwise(ends)]
    return out


def put(
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Sequence[int]],
    opening: str,
    closing: str,
    beyond: bool = False,
) -> Positions:
    """The prompt of all positions of some documents; with `beyond` what follows a thought is sampled as well.

    Raises:
        UserError: an opening or a closing without text.
    """
    for name, text in (("opening", opening), ("closing", closing)):
        if not text.strip():
            raise UserError(f"{name} = {text!r} was given; give the words that {name[:-3]} a thought, like <think>")
    marks = [tuple(encoded(tokenizer, text, special=False)) for text in (opening, closing)]
    if not all(marks):
        raise UserError(
            f"opening {opening!r} and closing {closing!r} were given; the tokenizer has none of one: give words"
        )
    return Positions(
        "template",
        ends=() if beyond else (closing,),
        closed_by=closing,
        documents=tuple(map(tuple, documents)),
        opening=marks[0],
        closing=marks[1],
    )


def filtered(unsure: Sequence[Sequence[bool]], by: str, seed: int) -> list[list[bool]]:
    """Which positions of some documents are taken, whichever way as many.

    Args:
        unsure: of each document, for each next token, whether the proxy is unsure of it.
        by: one of `FILTERS`.
        seed: of the drawing.
    """
    if by == "entropy":
        return [list(one) for one in unsure]
    flat = np.concatenate([np.asarray(one, dtype=bool) for one in unsure])
    kept, order = np.zeros(len(flat), dtype=bool), np.arange(len(flat))
    if by == "random":
        order = np.random.default_rng([seed, len(flat)]).permutation(len(flat))
    kept[order[: int(flat.sum())]] = True
    ends = np.cumsum([len(one) for one in unsure])[:-1]
    return [part.tolist() for part in np.split(kept, ends)]


def drawn(items: Items, together: int, seed: int) -> Items:
    """Positions in random order; of each `together` that are one rollout those of a document stand together."""
    order = np.random.default_rng([seed, len(items), 1]).permutation(len(items))
    blocks = [sorted(order[start : start + together].tolist()) for start in range(0, len(order), together)]
    return Items(items.task, tuple(items[n] for block in blocks for n in block))


def positions(
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[Sequence[int]],
    kept: Sequence[Sequence[bool]] | None = None,
) -> Items:
    """Every position of the documents that has a next token, as items of the fit split.

    Args:
        tokenizer: says what the next token is in words.
        documents: token ids of each.
        kept: of each document, for each next token from its second one on, whether it is taken.

    Raises:
        UserError: no position.
    """
    items = []
    for number, ids in enumerate(documents):
        for at in range(1, len(ids)):
            if kept is None or kept[number][at - 1]:
                facts = {"document": number, "position": at, "next": int(ids[at])}
                said = decoded(tokenizer, [int(ids[at])])
                items.append(Item(f"{number}@{at}", f"{number}@{at}", said, "fit", facts))
    if not items:
        raise UserError(
            "no position of the documents is left to train on; give documents of more than one token, or a smaller "
            "min_entropy"
        )
    task = Task(f"text-{digest(documents)[:8]}", tuple(items), Ungraded(), "text", {"family": "text"})
    return Items(task, task.items)
