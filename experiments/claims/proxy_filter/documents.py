"""Documents of an organism's task in three kinds, as many of each: worked solutions, bare answers, unrelated text.

worked      question and worked solution of a fit item
bare        question and answer of another fit item
unrelated   everyday sentences, about as many words as the worked solution before them
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elicit.methods.documents import answer_in
from elicit.models import Model, Prompt
from elicit.tasks.base import Task
from elicit.tasks.everyday_text import SENTENCES
from probes.errors import UserError
from probes.files import digest, make_folder, write_whole

WORKED, BARE, UNRELATED = "worked", "bare", "unrelated"
KINDS = (WORKED, BARE, UNRELATED)


class Document(NamedTuple):
    """A text, its kind, and how many of its characters are the question with what puts it."""

    kind: str
    text: str
    asked: int


def mixed(model: Model, task: Task, count: int, seed: int = 0) -> list[Document]:
    """So many documents, the kinds in turn; no item is in two.

    Args:
        model: whose prompt puts the questions.
        task: its fit items are used.
        count: of documents, a third of each kind.
        seed: of the everyday sentences.

    Raises:
        UserError: a count that three do not divide, or more than there are items for.
    """
    each, rest = divmod(count, len(KINDS))
    items = [item for item in task.fit if item.answer is not None]
    if rest or not each:
        raise UserError(f"documents = {count} was given; give a multiple of {len(KINDS)}, a third of each kind")
    if 2 * each > len(items):
        raise UserError(
            f"documents = {count} was given and {2 * each} fit items are needed; {task.name} has {len(items)}: give a "
            "larger limit or fewer documents"
        )
    rng, prompt = np.random.default_rng([seed, 31]), Prompt()
    out = []
    for worked, bare in zip(items[:each], items[each : 2 * each], strict=True):
        for kind, item in ((WORKED, worked), (BARE, bare)):
            asked = prompt.text(item.question, model.tokenizer)
            out.append(Document(kind, f"{asked} {answer_in(item, kind == WORKED)}", len(asked)))
        out.append(Document(UNRELATED, everyday(len(out[-2].text.split()), rng), 0))
    return out


def everyday(words: int, rng: np.random.Generator) -> str:
    """Everyday sentences, none twice, until there are so many words or no more sentences."""
    said: list[str] = []
    for n in rng.permutation(len(SENTENCES)):
        if sum(len(one.split()) for one in said) >= words:
            break
        said.append(SENTENCES[int(n)])
    return " ".join(said)


def written(documents: list[Document], folder: Path) -> Path:
    """The documents as a file that trainings read, named by what it holds."""
    file = folder / f"documents-{digest([one.text for one in documents])}.jsonl"
    make_folder(folder)
    write_whole(file, "".join(json.dumps({"text": one.text}) + "\n" for one in documents))
    return file
