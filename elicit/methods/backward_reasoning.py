"""`backward-reasoning`: train on reasoning to the answer and back from it (RevThink, arXiv 2411.19865).

Of each fit question a teacher gives forward reasoning, a backward question (the answer is told, and something that the
question held is asked) and backward reasoning. A row is kept where the forward answer is right and the backward one
recovers what was held back. An adapter, or all weights, is trained on three objectives at once, and the loss of a step
is the mean of their three cross-entropies (`elicit.training.objectives.joint`):

    question → forward reasoning,  question → backward question,  backward question → backward reasoning

What comes out answers the bare prompt, forward alone.

Where it departs from the paper:
- The teacher is the base itself, told to think, unless `teacher` names another model; the paper's is Gemini 1.5 Pro.
- On organisms the backward question is the task's own (`elicit.tasks.organism.inverse`), with a known answer
  (`inversion=task`); with `inversion=teacher` the teacher writes it. Then what it recovers is looked up and not judged
  by the teacher: the backward answer must stand in the question, and not in the backward question.
- LoRA at 1e-3 and tens of steps; the preset `backward-reasoning-mistral-7b` has the values of the authors' script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from elicit.decoding.answering import by_itself
from elicit.decoding.decoders import Greedy
from elicit.decoding.engine import check_training
from elicit.decoding.progress import Progress
from elicit.elicited import Elicited
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import Work, check_own, minutes_elsewhere
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.documents import SUPERVISED
from elicit.methods.taught import (
    RECIPE,
    Said,
    example,
    holding,
    in_cycle,
    questions_of,
    recipe_of,
    said,
    sections,
    supervised,
    teacher_of,
    trained,
)
from elicit.models.model import Model
from elicit.models.prompts import Prompt, prompt_for
from elicit.tasks.base import Item, Items, Task
from elicit.tasks.free_text import Ungraded
from elicit.tasks.organism.inverse import inverse
from elicit.tasks.organism.solver import family_of
from elicit.training.objectives import in_turn, joint
from elicit.training.recipe import Example, Recipe
from probes.errors import UserError, unknown

NAME = "backward-reasoning"
SUMMARY = "train on reasoning to the answer and on reasoning back from it"
PAPER = "2411.19865"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
missing = minutes_elsewhere
QUICK = {"questions": 16, "steps": 12}
OBJECTIVES = 3
SHUFFLED = "backward questions shuffled"
INVERSIONS = {"task": "the task's own structure, on organisms", "teacher": "the teacher writes them"}
INVERT = "Write the backward question: tell the answer, and ask for something that the question told."


@dataclass(frozen=True)
class Asked:
    """What is asked for beside the training; `fit` says what each means."""

    teacher: str
    inversion: str
    filtered: bool
    questions: int
    answer_tokens: int

    def __post_init__(self) -> None:
        if self.inversion not in INVERSIONS:
            raise unknown("inversion", self.inversion, INVERSIONS)


class Row(NamedTuple):
    """What is learned of one question: forward reasoning, the backward question, and reasoning about that."""

    item: Item
    forward: Said
    backward_question: Said
    backward: Said


@dataclass(frozen=True)
class Rows:
    """The rows that were kept, and what was counted on the way."""

    rows: tuple[Row, ...]
    counts: dict[str, int]


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    teacher: str = "",
    inversion: str = "task",
    filtered: bool = True,
    questions: int = 32,
    answer_tokens: int = 192,
    steps: int = 24,
    rows: int = 4,
    lr: float = 1e-3,
    rank: int = 8,
    part: int = 2,
    checkpointing: bool = False,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Have fit questions answered forward and backward, and train an adapter, or all weights, on both.

    Args:
        model: the base; it is as it was afterwards.
        items: items of a task; its fit split alone is used.
        progress: reports answers and steps.
        teacher: a model by name, hub id or folder; "": the base itself. It is told to think.
        inversion: who makes backward questions, one of `INVERSIONS`.
        filtered: keep the rows alone whose forward answer is right and whose backward answer recovers what was held
            back, both come to their end; without it every row is learned as far as it came.
        questions: fit items that the teacher is asked, the first ones.
        answer_tokens: the limit of the teacher's answers; `max_new_tokens` is that of the evaluation.
        steps, rows: of the training; a step takes so many rows, each with its three examples.
        lr, rank, part, checkpointing: as for `elicit.training.recipe.Recipe`.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.

    Raises:
        UserError: no usable fit items; an unknown inversion, or one that the task does not know; fewer than two rows
            kept; as `elicit.training.sft.train`.
    """
    asked = Asked(teacher, inversion, filtered, questions, answer_tokens)
    recipe = recipe_of(
        OBJECTIVES, steps=steps, rows=rows, lr=lr, rank=rank, part=part, checkpointing=checkpointing, seed=seed
    )
    check_training(model, adapter=rank > 0)
    put, some = prompt_for(model, prompt, items), questions_of(NAME, items, questions)
    put.asked(INVERT)  # a prompt that takes no instruction is refused before anybody is asked
    found = gathered(model, some, prompt, asked, progress)
    return _fitted(NAME, model, put, found, some.task, asked, recipe, prompt, max_new_tokens, progress)


def gathered(model: Model, items: Items, prompt: str, asked: Asked, progress: Progress | None) -> Rows:
    """Ask the teacher forward, for backward questions where the task has none, and backward.

    Raises:
        UserError: fewer than two rows are kept.
    """
    who = teacher_of(model, asked.teacher)
    told = Elicited(who, f"{NAME}: forward", prompt_for(who, prompt, items).thinking(), Greedy(asked.answer_tokens))
    forward = {item.id: some[0] for item, some in zip(items, said(told, items, progress), strict=True) if some}
    usable = [i for i in items if i.id in forward and (not asked.filtered or _holds(forward[i.id]))]
    if asked.inversion == "task":
        back = _of_task(usable, items.task)
        graded = items.task
    else:
        back = _of_teacher(who, prompt, usable, items, asked.answer_tokens, progress)
        graded = replace(items.task, grader=Ungraded())
    asking = Items(graded, tuple(one for _, one, _ in back))
    answers = said(replace(told, method=f"{NAME}: backward"), asking, progress) if back else []
    kept: list[Row] = []
    consistent = 0
    for (item, one, ended), some in zip(back, answers, strict=True):
        if not some:
            continue
        right = some[0].correct if asked.inversion == "task" else recovers(item, one.question, some[0].answer)
        consistent += right
        if not asked.filtered or (right and some[0].ended and ended):
            kept.append(Row(item, forward[item.id], Said(one.question, one.answer, right, ended), some[0]))
    counts = {
        "asked": len(items), "right": sum(_holds(one) for one in forward.values()), "inverted": len(back),
        "consistent": consistent, "kept": len(kept),
    }  # fmt: skip
    if len(kept) < 2:
        raise UserError(
            f"of {len(items)} questions the teacher answers {counts['right']} rightly and to the end, {len(back)} have "
            f"a backward question, {consistent} of those are answered consistently, and {len(kept)} rows are kept; two "
            "are needed: give more questions, a larger answer_tokens or another teacher"
        )
    return Rows(tuple(kept), counts)


def _holds(one: Said) -> bool:
    return one.correct and one.ended


def _of_task(items: Sequence[Item], task: Task) -> list[tuple[Item, Item, bool]]:
    """Items with the backward questions that the task's structure gives, which are whole."""
    for item in items:
        if family_of(item) is None:
            raise UserError(
                f"task {task.name!r} does not say how its questions are inverted; give inversion=teacher, or items of "
                "task organism"
            )
    return [(item, back, True) for item in items if (back := inverse(item)) is not None]


def _of_teacher(
    teacher: Model, prompt: str, usable: Sequence[Item], items: Items, limit: int, progress: Progress | None
) -> list[tuple[Item, Item, bool]]:
    """Items with the backward questions that the teacher writes, and whether those came to their end."""
    writing = Elicited(
        teacher, f"{NAME}: questions", prompt_for(teacher, prompt, items).asked(INVERT), Greedy(limit)
    )  # fmt: skip
    told = tuple(
        replace(item, question=f"{item.question} The answer is {item.answer}.", answer=None, kind="whole")
        for item in usable
    )
    written = said(writing, Items(replace(items.task, grader=Ungraded()), told), progress) if told else []
    return [
        (item, replace(item, question=some[0].text, answer=None, kind=items.task.kind_of(item)), some[0].ended)
        for item, some in zip(usable, written, strict=True)
        if some
    ]


def recovers(item: Item, backward_question: str, answer: str | None) -> bool:
    """Whether an answer to a backward question is something that the question held and the backward one does not."""
    if answer is None:
        return False
    by_self = by_itself(answer)
    return by_self.search(item.question) is not None and by_self.search(backward_question) is None


def groups_of(model: Model, put: Prompt, rows: Sequence[Row], shuffled: int | None = None) -> list[list[Example]]:
    """The three examples of each row, in the order of the objectives.

    Args:
        shuffled: a seed: the backward question that is learned after a question is another row's, for the control;
            what is learned after that backward question stays.
    """
    backward = [row.backward_question for row in rows]
    if shuffled is not None:
        for here, there in in_cycle(range(len(rows)), np.random.default_rng(shuffled)):
            backward[here] = rows[there].backward_question
    tokenizer, inverting = model.tokenizer, put.asked(INVERT)
    return [
        [
            example(tokenizer, put, row.item.question, row.forward.text, row.forward.ended),
            example(tokenizer, inverting, row.item.question, other.text, other.ended),
            example(tokenizer, put, row.backward_question.text, row.backward.text, row.backward.ended),
        ]
        for row, other in zip(rows, backward, strict=True)
    ]


def _fitted(
    arm: str,
    model: Model,
    put: Prompt,
    found: Rows,
    task: Task,
    asked: Asked,
    recipe: Recipe,
    prompt: str,
    max_new_tokens: int,
    progress: Progress | None,
) -> Elicited:
    """One arm: its examples, its training, its handle."""
    items = Items(task, tuple(row.item for row in found.rows))
    groups = groups_of(model, put, found.rows, recipe.seed if arm == SHUFFLED else None)
    each = [one for group in groups for one in group]
    recipe = holding(recipe, each)
    batch = in_turn(groups, recipe.rows // OBJECTIVES, recipe.seed)
    if arm == SUPERVISED:
        forward = [group[0] for group in groups]
        adapter, about = supervised(NAME, arm, model, items, forward, batch, recipe, progress)
    else:
        adapter, about = trained(
            NAME, arm, model, items, each, batch, recipe, progress, loss=lambda lm: joint(OBJECTIVES)
        )  # fmt: skip
    about |= {
        **found.counts,
        "shown": [
            [row.item.question, row.forward.text, row.backward_question.text, row.backward.text]
            for row in found.rows[:3]
        ],
    }
    options = {
        "prompt": prompt, "asked": asdict(asked), "recipe": recipe.kept(), "found": about, SEEN: seen(items),
    }  # fmt: skip
    return Elicited(model, arm, put, Greedy(max_new_tokens), adapter=adapter, options=options, fitted=found)


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The teacher's answers, as long as they may be, and the training on rows as long."""
    put, limit = prompt_for(model, options["prompt"], items), options["answer_tokens"]
    handle = Elicited(model, NAME, put, Greedy(options["max_new_tokens"]))
    asked = max(len(put.ids(item.question, model.tokenizer)) for item in items)
    recipe = replace(
        recipe_of(OBJECTIVES, **{key: options[key] for key in RECIPE}), width=asked + limit
    )  # fmt: skip
    some = questions_of(NAME, items.task.solved, options["questions"])
    told = replace(handle, prompt=put.thinking(), decoder=Greedy(limit))
    asks = (2 if options["inversion"] == "task" else 3) * len(some)
    beside = "the teacher is counted as the base is" if options["teacher"] else ""
    return Work(handle, [(told, asks)], recipe, (6, 2), beside)


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The forward reasoning alone, with as many tokens; the same training with other rows' backward questions after a
    question; and the baselines, plain and with as many tokens.

    Raises:
        UserError: a handle of another method, no items.
    """
    check_own(handle, NAME)
    options, limit = handle.options, handle.decoder.max_new_tokens
    asked, recipe = Asked(**options["asked"]), Recipe(**options["recipe"])
    some = questions_of(NAME, items, asked.questions)
    found = handle.fitted
    if not isinstance(found, Rows):  # of a bundle
        found = gathered(handle.model, some, options["prompt"], asked, progress)
    out = plain(handle, items)
    for arm in (SUPERVISED, SHUFFLED):
        out[arm] = _fitted(
            arm, handle.model, handle.prompt, found, some.task, asked, recipe, options["prompt"], limit, progress
        )  # fmt: skip
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """What was asked and kept, and how the loss went."""
    found, asked = options["found"], options["asked"]
    who = f"{asked['teacher']!r}" if asked["teacher"] else "the base itself, told to think"
    curve = found["curve"]
    return [
        f"Of {found['asked']} questions the teacher ({who}) answered {found['right']} rightly and to the end; of "
        f"{found['inverted']} backward questions (by the {asked['inversion']}) it answered {found['consistent']} "
        f"consistently; {found['kept']} rows were kept{'' if asked['filtered'] else ', unfiltered'}.",
        f"{len(curve)} steps, {found['trained']} tokens, in {found['seconds']:.0f} s; mean loss of the three "
        f"objectives {curve[0]:.2f} to {curve[-1]:.2f} nats a token.",
    ]


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: the training, and the first rows."""
    columns = ("question", "forward reasoning", "backward question", "backward reasoning")
    return sections(options["found"], columns, "The mean of three cross-entropies, each over its own tokens.")
