"""What the methods share."""

from __future__ import annotations

from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.prompts import Prompt, named_prompt
from elicit.tasks.base import Items
from probes.errors import UserError


def prompt_for(model: Model, name: str, items: Items | None) -> Prompt:
    """The named prompt; `few-shot` takes its solved questions from the items given to `fit`."""
    solved = [(i.question, i.answer) for i in items or () if i.answer is not None]
    return named_prompt(name, model.tokenizer, solved)


def check_own(handle: Elicited, name: str) -> None:
    """Refuse controls of a handle that another method made.

    Raises:
        UserError: it is another's.
    """
    if handle.method != name:
        raise UserError(
            f"controls of {name} were asked for a handle of {handle.method!r}; give one that {name}.fit made"
        )
