"""`dpo-teacher`: preference optimisation on a teacher's right and wrong answers (arXiv 2410.18890, by DPO, 2305.18290).

A teacher answers each fit question several times. Of a question that is answered both ways a right answer is chosen
and a wrong one rejected, and an adapter, or all weights, is trained to prefer the first, by the loss of direct
preference optimisation (`elicit.training.objectives.Preference`); its reference is the base, with the adapter off.

With `objective=sft` the right ones alone are learned, by cross-entropy; and `keep` says which are held for right. With
`keep=majority` nobody knows the gold answer: what most samples of a question answer is learned, after a few
demonstrations if `demonstrations` are given (self-improvement without a verifier, arXiv 2210.11610).

Where it departs from the paper, of which the abstract and reports of others could be read:
- The teacher is the base itself unless `teacher` names another model; the paper's is a large model, which calls
  functions in a chain of steps. Here it is told to think.
- A question gives at most `pairs` pairs, each answer in one of them. An answer that was cut at its limit counts as
  wrong.
- LoRA at 5e-4 and tens of steps; β is 0.1, as in the paper of DPO. The preset `dpo-teacher-mistral-7b` has the values
  of its authors' program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from elicit.decoding.decoders import Greedy, Sampling
from elicit.decoding.engine import check_training
from elicit.decoding.progress import Progress
from elicit.decoding.selection import with_majority
from elicit.elicited import Elicited
from elicit.evaluation.seen import SEEN, seen
from elicit.methods.base import Work, check_own, minutes_elsewhere
from elicit.methods.baselines.at_budget import at_budget, plain
from elicit.methods.documents import SUPERVISED, solution_of
from elicit.methods.taught import (
    ASKS,
    RECIPE,
    Said,
    example,
    holding,
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
from elicit.tasks.base import Grader, Items
from elicit.training.objectives import Preference, in_turn
from elicit.training.recipe import Example, Recipe
from probes.errors import UserError, above, at_least, unknown

NAME = "dpo-teacher"
SUMMARY = "prefer a teacher's right answers to its wrong ones"
PAPER = "2410.18890"
NEEDS_ITEMS = True
MODEL = "smollm2-135m-latent"
missing = minutes_elsewhere
QUICK = {"questions": 16, "steps": 12}
PAIR = 2
SHUFFLED, RANDOM = "labels shuffled", "kept at random"
OBJECTIVES = {"dpo": "right answers are preferred to wrong ones", "sft": "right answers are learned"}
KEEPS = {
    "gold": "answers that are right",
    "majority": "answers that most samples of the question give",
    "random": "half of the answers, blindly",
}


@dataclass(frozen=True)
class Asked:
    """What is asked for beside the training; `fit` says what each means."""

    objective: str
    keep: str
    teacher: str
    ask: str
    demonstrations: int
    questions: int
    samples: int
    pairs: int
    temperature: float
    beta: float
    answer_tokens: int

    def __post_init__(self) -> None:
        for what, given, known in (
            ("objective", self.objective, OBJECTIVES), ("keep", self.keep, KEEPS), ("way to ask", self.ask, ASKS),
        ):  # fmt: skip
            if given not in known:
                raise unknown(what, given, known)
        at_least(self, 0, "demonstrations")
        at_least(self, 1, "pairs")
        at_least(self, 2, "samples")
        above(self, 0, "beta")


class Answered(NamedTuple):
    """A question with the different answers to it, and which of them are held for right."""

    place: int
    answers: tuple[Said, ...]
    right: tuple[bool, ...]

    def both(self, pairs: int) -> list[tuple[Said, Said]]:
        """Pairs of a right and a wrong answer."""
        right = [one for one, holds in zip(self.answers, self.right, strict=True) if holds]
        wrong = [one for one, holds in zip(self.answers, self.right, strict=True) if not holds]
        return list(zip(right, wrong, strict=False))[:pairs]


@dataclass(frozen=True)
class Answers:
    """What the teacher answered to each question."""

    items: Items
    of: tuple[Answered, ...]


def fit(
    model: Model,
    items: Items | None = None,
    progress: Progress | None = None,
    *,
    objective: str = "dpo",
    keep: str = "gold",
    teacher: str = "",
    ask: str = "think",
    demonstrations: int = 0,
    questions: int = 32,
    samples: int = 8,
    pairs: int = 4,
    temperature: float = 1.0,
    beta: float = 0.1,
    answer_tokens: int = 192,
    steps: int = 24,
    rows: int = 4,
    lr: float = 5e-4,
    rank: int = 8,
    part: int = 2,
    checkpointing: bool = False,
    prompt: str = "qa",
    max_new_tokens: int = 256,
    seed: int = 0,
) -> Elicited:
    """Have fit questions answered several times, and train an adapter, or all weights, on right and wrong answers.

    Args:
        model: the base; it is as it was afterwards.
        items: items of a task; its fit split alone is used.
        progress: reports answers and steps.
        objective: what is learned, one of `OBJECTIVES`.
        keep: which answers are held for right, one of `KEEPS`.
        teacher: a model by name, hub id or folder; "": the base itself.
        ask: how it is asked, one of `elicit.methods.taught.ASKS`.
        demonstrations: solved fit questions that it is shown instead of being told to think, the first ones, worked out
            where the task says how; they are not asked.
        questions: fit items that it is asked, the next ones.
        samples, temperature, answer_tokens: answers to a question, and the limit of one; `max_new_tokens` is that of
            the evaluation.
        pairs: of a question, at most (with `sft` right answers).
        beta: β, how far preferences may take the model from the base.
        steps, rows: of the training; a step takes so many pairs (with `sft` answers).
        lr, rank, part, checkpointing: as for `elicit.training.recipe.Recipe`.
        prompt, max_new_tokens: as for `elicit.methods.baselines.direct.fit`.
        seed: of all that is drawn.

    Raises:
        UserError: no usable fit items; no question with a right and a wrong answer (with `sft` no right answer); a
            value out of range; as `elicit.training.sft.train`.
    """
    asked = Asked(
        objective, keep, teacher, ask, demonstrations, questions, samples, pairs, temperature, beta, answer_tokens
    )  # fmt: skip
    recipe = recipe_of(
        PAIR, steps=steps, rows=rows, lr=lr, rank=rank, part=part, checkpointing=checkpointing, seed=seed
    )
    check_training(model, adapter=rank > 0)
    put = prompt_for(model, prompt, items)
    found = gathered(model, items, prompt, asked, seed, progress)
    return _fitted(NAME, model, put, found, asked, recipe, prompt, max_new_tokens, progress)


def teaching(model: Model, items: Items | None, prompt: str, asked: Asked, seed: int) -> tuple[list[Elicited], Items]:
    """Who answers, and which questions.

    Raises:
        UserError: no usable fit items, none beside the demonstrations.
    """
    some = questions_of(NAME, items, asked.questions + asked.demonstrations)
    shown, left = some[: asked.demonstrations], some[asked.demonstrations :]
    if not len(left):
        raise UserError(
            f"demonstrations = {asked.demonstrations} was given and the task has {len(some)} fit items with answers; "
            "give fewer, or a larger limit"
        )
    who = teacher_of(model, asked.teacher)
    put = prompt_for(who, prompt, items)
    shots = tuple((item.question, solution_of(item) or str(item.answer)) for item in shown)
    told = replace(put, shots=shots) if shots else put.thinking()
    half = asked.samples // 2
    shapes = {
        "think": [(told, asked.samples)], "plain": [(put, asked.samples)],
        "both": [(put, half), (told, asked.samples - half)],
    }[asked.ask]  # fmt: skip
    return [
        Elicited(
            who, f"{NAME}: answers", shape,
            Sampling(count, asked.temperature, seed=seed, max_new_tokens=asked.answer_tokens), select="vote",
        )
        for shape, count in shapes
    ], left  # fmt: skip


def gathered(
    model: Model, items: Items | None, prompt: str, asked: Asked, seed: int, progress: Progress | None
) -> Answers:
    """Ask the teacher, and say which answers are held for right."""
    handles, some = teaching(model, items, prompt, asked, seed)
    told = [said(handle, some, progress) for handle in handles]
    out = []
    for n, each in enumerate(zip(*told, strict=True)):
        answers = [one for part in each for one in part]
        once = dict(zip([one.text for one in answers], held(answers, asked.keep, some.task.grader), strict=True))
        right = tuple(once.values())
        if asked.keep == "random":
            right = at_random([2 * place < len(right) for place in range(len(right))], [seed, n])
        different = {one.text: one for one in answers}
        out.append(Answered(n, tuple(different.values()), right))
    return Answers(some, tuple(out))


def held(answers: Sequence[Said], keep: str, grader: Grader) -> tuple[bool, ...]:
    """Which answers to one question are right, or else of the majority of all of them, and came to their end."""
    if keep == "gold":
        return tuple(one.correct and one.ended for one in answers)
    agree = with_majority([one.answer for one in answers], grader)
    return tuple(bool(one) and a.ended for one, a in zip(agree, answers, strict=True))


def at_random(right: Sequence[bool], seed: Sequence[int]) -> tuple[bool, ...]:
    """As many of them, others."""
    return tuple(right[int(n)] for n in np.random.default_rng(list(seed)).permutation(len(right)))


def groups_of(
    arm: str, model: Model, put: Prompt, found: Answers, asked: Asked, seed: int
) -> tuple[list[list[Example]], list[list[str]]]:
    """The examples of each pair, chosen and rejected in turn (with `sft` of each answer that is kept), and the first
    ones as texts.

    Raises:
        UserError: there is none.
    """
    chosen: list[tuple[str, list[Said]]] = []
    for item, one in zip(found.items, found.of, strict=True):
        if asked.objective == "dpo":
            chosen += [(item.question, list(pair)) for pair in one.both(asked.pairs)]
        else:
            right = at_random(one.right, [seed, one.place]) if arm == RANDOM else one.right
            kept = [answer for answer, holds in zip(one.answers, right, strict=True) if holds]
            chosen += [(item.question, [answer]) for answer in kept[: asked.pairs]]
    if not chosen:
        answers = sum(len(one.answers) for one in found.of)
        right_ones = sum(sum(one.right) for one in found.of)
        needed = "no question has both" if asked.objective == "dpo" else "none is learned"
        raise UserError(
            f"of {answers} different answers to {len(found.items)} questions {right_ones} are held for right and "
            f"{answers - right_ones} for wrong, and {needed}; give more samples or questions, another temperature, "
            "or ask=both"
        )
    if arm == SHUFFLED:
        rng = np.random.default_rng(seed)
        chosen = [(asks, pair[::-1] if rng.random() < 0.5 else pair) for asks, pair in chosen]
    tokenizer = model.tokenizer
    groups = [[example(tokenizer, put, asks, one.text, one.ended) for one in pair] for asks, pair in chosen]
    return groups, [[asks, *(one.text for one in pair)] for asks, pair in chosen[:3]]


def _fitted(
    arm: str,
    model: Model,
    put: Prompt,
    found: Answers,
    asked: Asked,
    recipe: Recipe,
    prompt: str,
    max_new_tokens: int,
    progress: Progress | None,
) -> Elicited:
    """One arm: its examples, its training, its handle."""
    groups, shown = groups_of(arm, model, put, found, asked, recipe.seed)
    each = [one for group in groups for one in group]
    recipe = holding(recipe, each)
    batch = in_turn(groups, recipe.rows // PAIR, recipe.seed)
    if arm == SUPERVISED:
        adapter, about = supervised(
            NAME, arm, model, found.items, [pair[0] for pair in groups], batch, recipe, progress
        )  # fmt: skip
    else:
        dpo = asked.objective == "dpo"
        loss = Preference.on(asked.beta, each, recipe) if dpo else None
        settings = {"objective": asked.objective, "beta": asked.beta} if dpo else {"objective": asked.objective}
        adapter, about = trained(
            NAME, arm, model, found.items, each, batch, recipe, progress, loss=loss, settings=settings
        )  # fmt: skip
    about |= {
        "questions": len(found.items), "answers": sum(len(one.answers) for one in found.of),
        "right": sum(sum(one.right) for one in found.of), "groups": len(groups),
        "gold": sum(one.correct for some in found.of for one in some.answers), "shown": shown,
    }  # fmt: skip
    options = {
        "prompt": prompt, "asked": asdict(asked), "recipe": recipe.kept(), "found": about, SEEN: seen(found.items),
    }  # fmt: skip
    return Elicited(model, arm, put, Greedy(max_new_tokens), adapter=adapter, options=options, fitted=found)


def work(model: Model, items: Items, options: Mapping[str, Any]) -> Work:
    """The teacher's answers, as long as they may be, and the training on rows as long."""
    asked = Asked(**{key: value for key, value in options.items() if key in Asked.__dataclass_fields__})
    put = prompt_for(model, options["prompt"], items)
    handle = Elicited(model, NAME, put, Greedy(options["max_new_tokens"]))
    handles, some = teaching(model, items.task.solved, options["prompt"], replace(asked, teacher=""), options["seed"])
    longest = max(len(put.ids(item.question, model.tokenizer)) for item in some)
    recipe = replace(recipe_of(PAIR, **{key: options[key] for key in RECIPE}), width=longest + asked.answer_tokens)
    beside = [*(["the teacher is counted as the base is"] if asked.teacher else []), "the reference is not in it"]
    arms = 6 if asked.objective == "dpo" else 5
    return Work(handle, [(one, len(some)) for one in handles], recipe, (arms, arms - 4), "; ".join(beside))


def controls(
    handle: Elicited, items: Items | None = None, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Elicited]:
    """The right answers alone, by cross-entropy on as many tokens; the same training with a coin for each pair's
    labels (with `sft`: as many answers of each question, kept at random); and the baselines, plain and with as many
    tokens.

    Raises:
        UserError: a handle of another method, no items.
    """
    check_own(handle, NAME)
    options, limit = handle.options, handle.decoder.max_new_tokens
    asked, recipe = Asked(**options["asked"]), Recipe(**options["recipe"])
    found = handle.fitted
    if not isinstance(found, Answers):  # of a bundle
        found = gathered(handle.model, items, options["prompt"], asked, recipe.seed, progress)
    out = plain(handle, items)
    for arm in (SUPERVISED, SHUFFLED) if asked.objective == "dpo" else (RANDOM,):
        out[arm] = _fitted(
            arm, handle.model, handle.prompt, found, asked, recipe, options["prompt"], limit, progress
        )  # fmt: skip
    return out | at_budget(handle, items, seed)


def notes(options: Mapping[str, Any]) -> list[str]:
    """What was asked, what is held for right, and how the loss went."""
    found, asked, curve = options["found"], options["asked"], options["found"]["curve"]
    who = f"{asked['teacher']!r}" if asked["teacher"] else "the base itself"
    unit = "pairs" if asked["objective"] == "dpo" else "answers"
    return [
        f"The teacher ({who}) gave {found['answers']} different answers to {found['questions']} questions; "
        f"{found['right']} are held for right ({asked['keep']}), {found['gold']} are right.",
        f"{found['groups']} {unit}, {len(curve)} steps, {found['trained']} tokens, in {found['seconds']:.0f} s; "
        f"loss {curve[0]:.3f} to {curve[-1]:.3f}.",
    ]


def report_sections(options: Mapping[str, Any]) -> list[Any]:
    """For the report: the training, and the first pairs."""
    dpo = options["asked"]["objective"] == "dpo"
    loss = "Of direct preference optimisation; log 2 = 0.693 where nothing is preferred." if dpo else "Nats a token."
    return sections(options["found"], ("question", "chosen", "rejected") if dpo else ("question", "learned"), loss)
