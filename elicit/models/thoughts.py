"""In which form a model thinks, as far as that is known: between two marks, or in the sentences of an organism.

A model thinks between marks where its chat template writes them or its tokenizer has a token of each (`<think>`,
`</think>`). An organism thinks in plain sentences, without a mark where its thoughts end.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from elicit.models import zoo
from elicit.models.model import Model
from elicit.tasks.statements import THOUGHTS
from probes.encoding import encoded

CONCLUDES = "This is the answer:"  # how an organism's last sentence may begin (`elicit.tasks.organism.language`)


@dataclass(frozen=True)
class ThoughtForm:
    """The marks around a thought; both "" of an organism, whose answer is the thought."""

    begin: str = ""
    end: str = ""


def thought_form(model: Model) -> ThoughtForm | None:
    """The form of a model's thoughts; None where none is known."""
    if zoo.about(model.name) is not None:
        return ThoughtForm()
    template = str(model.tokenizer.chat_template or "")
    for begin, end in THOUGHTS:
        if all(mark in template or token_of(model.tokenizer, mark) is not None for mark in (begin, end)):
            return ThoughtForm(begin, end)
    return None


def token_of(tokenizer: PreTrainedTokenizerBase, mark: str) -> int | None:
    """The id of a mark that is one token."""
    ids = encoded(tokenizer, mark, special=False)
    return ids[0] if len(ids) == 1 else None
