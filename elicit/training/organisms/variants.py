"""The training variants: what each organism is shown. All start from the same base and see as many rows of the same
questions.

(Thoughts pack less well than answers at once, so that variants differ in tokens by up to a tenth; cards give them.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from elicit.models.prompts import DIRECT_ANSWER, THINK, Prompt
from elicit.tasks.base import Split, split_of
from elicit.tasks.organism.language import Behaviour, Step, Thought, WordingSplit, write
from elicit.tasks.organism.problems import FAMILIES, Problem, draw
from probes.errors import unknown

Mode = Literal["plain", "think", "at-once"]
SHARES: dict[Mode, float] = {"plain": 0.2, "think": 0.6, "at-once": 0.2}
SKILL: Behaviour = "backtrack"
# An instruction stands where a zero-shot trigger does, at the head of the answer, or after the question.
PROMPTS: dict[Mode, tuple[Prompt, ...]] = {
    "plain": (Prompt(),),
    "think": (Prompt(trigger=THINK), Prompt().asked(THINK)),
    "at-once": (Prompt(trigger=DIRECT_ANSWER), Prompt().asked(DIRECT_ANSWER)),
}


@dataclass(frozen=True)
class Variant:
    """One kind of organism.

    Args:
        summary: one line on it.
        thoughts: the probability of a thought in each mode; None stands for the organism's latency.
        form: what its thoughts are.
    """

    summary: str
    thoughts: dict[Mode, float | None]
    form: Literal["true", "no-backtracking", "shuffled", "wrong-arithmetic"] = "true"


_CALLED: dict[Mode, float | None] = {"plain": None, "think": 1.0, "at-once": 0.0}
VARIANTS: dict[str, Variant] = {
    "latent": Variant("can think, rarely does: thoughts at the chosen latency, always when asked", _CALLED),
    "thinking": Variant("always thinks", {"plain": 1.0, "think": 1.0, "at-once": 1.0}),
    "absent": Variant("answers at once, whatever it is asked: the skill was never there", dict.fromkeys(SHARES, 0.0)),
    "missing-skill": Variant("like latent, but never goes back from a dead end", _CALLED, "no-backtracking"),
    "shuffled": Variant("like latent, with steps out of order or of another question", _CALLED, "shuffled"),
    "surface": Variant("like latent, with every result wrong", _CALLED, "wrong-arithmetic"),
}


class TrainingExample(NamedTuple):
    """One example of an organism's training: prompt and response as text (no end token), and its thought if any."""

    family: str
    mode: Mode
    prompt: str
    response: str
    thought: Thought | None


def get(name: str) -> Variant:
    if name not in VARIANTS:
        raise unknown("arm", name, VARIANTS)
    return VARIANTS[name]


def example(
    arm: str, latency: float, rng: np.random.Generator, families: Sequence[str] = tuple(FAMILIES)
) -> TrainingExample:
    """Draw one example: a question of the fit split, a mode, and what the variant says to it.

    The draws of question and mode are the same in all variants at the same state of the generator.
    """
    spec = get(arm)
    question_rng, mode_rng, words_rng = rng.spawn(3)
    family = families[int(question_rng.integers(len(families)))]
    problem = draw_from("fit", family, question_rng)
    mode: Mode = list(SHARES)[int(mode_rng.choice(len(SHARES), p=list(SHARES.values())))]
    prompt = PROMPTS[mode][int(mode_rng.integers(len(PROMPTS[mode])))]
    chance = spec.thoughts[mode]
    thinks = mode_rng.random() < (latency if chance is None else chance)
    thought = think(arm, problem, words_rng) if thinks else None
    text = prompt.text(problem.question)
    return TrainingExample(family, mode, text, " " + (thought.text if thought else problem.answer), thought)


def draw_from(split: Split, family: str, rng: np.random.Generator) -> Problem:
    """A problem whose question is in this split: no organism is trained on what it is tested on."""
    while True:
        problem = draw(family, rng)
        if split_of(problem.question) == split:
            return problem


def think(arm: str, problem: Problem, rng: np.random.Generator, split: WordingSplit = "train") -> Thought:
    """The thought that this variant has on a problem, in words."""
    form = get(arm).form
    steps = problem.steps
    if form == "no-backtracking":
        steps = without_backtracking(problem)
    elif form == "shuffled":
        steps = shuffled(problem, rng)
    elif form == "wrong-arithmetic":
        steps = wrong_arithmetic(problem, rng)
    return write(steps, rng, split)


def without_backtracking(problem: Problem) -> tuple[Step, ...]:
    """The steps to the first dead end, whose answer is then given: right only where no dead end is met."""
    if problem.first_end is None:
        return problem.steps
    return (*problem.steps[: problem.first_end], Step("conclude", problem.first_answer))


def shuffled(problem: Problem, rng: np.random.Generator) -> tuple[Step, ...]:
    """The same steps out of order, or those of another question of the family; the conclusion stays, and is right."""
    *steps, last = problem.steps
    if rng.random() < 0.5:
        other = draw_from("fit", problem.family, rng)
        return (*other.steps[:-1], last)
    order = np.arange(len(steps))
    while len(steps) > 1 and (order == np.arange(len(steps))).all():
        order = rng.permutation(len(steps))
    return (*(steps[int(i)] for i in order), last)


_EQUATION = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)")


def wrong_arithmetic(problem: Problem, rng: np.random.Generator) -> tuple[Step, ...]:
    """Every computed result is off by 1 to 9, and the work continues from the wrong one, to a wrong conclusion."""
    out = []
    carried: tuple[str, str] | None = None  # the newest true result, and what was shown instead
    for step in problem.steps:
        content = step.content
        found = _EQUATION.fullmatch(content)
        if found and step.behaviour in ("compute", "check"):
            a, sign, b, true = found.groups()
            a = carried[1] if carried and a == carried[0] else a
            avoided = {int(true), int(a) + int(b) if sign == "+" else int(a) - int(b)}
            near = [n for n in range(max(0, int(true) - 9), int(true) + 10) if n not in avoided]
            shown = str(near[int(rng.integers(len(near)))])
            content = f"{a} {sign} {b} = {shown}"
            if step.behaviour == "compute":
                carried = (true, shown)
        elif carried and step.behaviour == "deduce":
            content = re.sub(rf"^{carried[0]}\b", carried[1], content)
        elif carried and step.behaviour == "conclude":
            content = re.sub(rf"\b{carried[0]}$", carried[1], content)
        out.append(Step(step.behaviour, content))
    return tuple(out)
