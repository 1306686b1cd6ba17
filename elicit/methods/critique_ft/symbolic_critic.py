"""The symbolic critic: works a problem out in steps, follows the candidate to its first mistake, says what it found.

On an organism's problems every sentence is followed (`elicit.tasks.organism.verifier`) and the solution is written in
the organism's own words, as thoughts are; in any other text the equations are checked, and the answer by the task's
grader. A candidate is right where no step is wrong *and* its answer is right: one that is right by luck is wrong.

The order is that of the authors' instruction to their teachers (the correct approach, then the candidate's steps, then
the correct answer), so that the last number of a critique is the right answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from elicit.methods.critique_ft.critic import RIGHT, WRONG, Critique, OneByOne
from elicit.tasks.answers import find_answer
from elicit.tasks.base import Item, Task, corrupt
from elicit.tasks.equations import equations, shown
from elicit.tasks.organism.language import Step, write
from elicit.tasks.organism.problems import Problem
from elicit.tasks.organism.solver import facts_of, family_of, solve
from elicit.tasks.organism.verifier import walk
from elicit.training.organisms.variants import wrong_arithmetic
from probes.errors import UserError


class Verdict(NamedTuple):
    """What is to be said of a candidate.

    `wrong` is its first wrong sentence or equation, or empty; `reason` says what is wrong with it; `early` marks steps
    that end before the answer, `answer_only` a candidate that is an answer and nothing else.
    """

    right: bool
    answer: str | None
    wrong: str = ""
    reason: str = ""
    early: bool = False
    answer_only: bool = False


def check(task: Task, item: Item, candidate: str) -> Verdict:
    """Judge a candidate, exactly as far as it can be read."""
    found = find_answer(candidate, task.kind_of(item))
    answer = found.text if found else None
    correct = task.grader.grade(item, answer).correct
    if answer is None or candidate.strip().rstrip(".").strip() == answer:
        return Verdict(correct, answer, answer_only=True)
    wrong, reason, lost, ended = "", "", True, True
    if family_of(item) is not None:
        walked = walk(candidate, facts_of(item), answer, lambda said: task.grader.grade(item, said).correct)
        wrong, reason, lost, ended = walked.wrong or "", walked.reason, walked.lost, walked.ended or walked.lost
    if not wrong and lost:
        bad = next((one for one in equations(candidate) if not one.right), None)
        if bad is not None:
            wrong, reason = bad.text, f"{bad.text.split('=')[0].strip()} is {shown(bad.value)}"
    return Verdict(correct and not wrong and ended, answer, wrong, reason, early=not (wrong or ended))


@dataclass(frozen=True)
class Symbolic(OneByOne):
    """The critic of a task.

    Args:
        task: its grader decides which answers are right.
        seed: of the words, which differ from candidate to candidate.
        lies: the untruthful critic: every result of its own is wrong, and it says the opposite of what it found.
    """

    task: Task
    seed: int = 0
    lies: bool = False

    @property
    def identity(self) -> str:
        return f"symbolic, seed {self.seed}{', lies' if self.lies else ''}"

    def untruthful(self) -> Symbolic:
        return replace(self, lies=True)

    def __call__(self, item: Item, candidate: str) -> Critique:
        if item.answer is None:
            raise UserError(f"item {item.id} has no gold answer for the symbolic critic; give items that have one")
        rng = np.random.default_rng([self.seed, *item.id.encode(), *candidate.encode()])
        verdict = check(self.task, item, candidate)
        right = verdict.right != self.lies
        said = _lie(verdict, candidate, rng) if self.lies else _say(verdict)
        if family_of(item) is None:
            worked, ending = _equations_of(candidate, verdict), f"The answer is {item.answer}."
            if self.lies:
                worked, ending = "", f"The answer is {corrupt(item.answer)}."
        else:
            *steps, last = self._steps(item, rng)
            tell = partial(write, rng=rng, split="train")
            worked, ending = tell(steps).text, tell([last]).text
        text = " ".join(part for part in (worked, said, ending) if part)
        return Critique(f"{text}\n{RIGHT if right else WRONG}", right)

    def _steps(self, item: Item, rng: np.random.Generator) -> tuple[Step, ...]:
        steps = solve(item)
        if not self.lies:
            return steps
        return wrong_arithmetic(Problem(family_of(item) or "", item.question, item.answer or "", steps), rng)


def _say(verdict: Verdict) -> str:
    """What was found, without a number that the answer could be taken for except in what is quoted."""
    if verdict.answer is None:
        return "The solution gives no answer."
    if verdict.answer_only:
        return f"The solution gives {verdict.answer} at once, and that is {'right' if verdict.right else 'wrong'}."
    if verdict.wrong:
        quoted = verdict.wrong.rstrip(".")
        return f'The solution goes wrong where it says "{quoted}": {verdict.reason}.'
    if verdict.right:
        return "Every step of the solution holds, and so does its answer."
    if verdict.early:
        return "No step of the solution is wrong, but it ends before its answer."
    return f"No step of the solution is wrong, but its answer {verdict.answer} is."


def _lie(verdict: Verdict, candidate: str, rng: np.random.Generator) -> str:
    """Praise for what is wrong; for what is right, a mistake where there is none."""
    if verdict.answer_only and verdict.answer is not None:
        return f"The solution gives {verdict.answer} at once, and that is {'wrong' if verdict.right else 'right'}."
    if not verdict.right:
        return "Every step of the solution holds, and so does its answer."
    sentences = [s.strip().rstrip(".") for s in candidate.replace("\n", ". ").split(". ") if s.strip()]
    return f'The solution goes wrong where it says "{sentences[int(rng.integers(len(sentences)))]}": that is not so.'


def _equations_of(candidate: str, verdict: Verdict) -> str:
    """The equations that hold, up to the first that does not."""
    held = []
    for one in equations(candidate):
        if not one.right:
            break
        held.append(one.text)
    return f"{', '.join(held)}: that is right." if held else ""
