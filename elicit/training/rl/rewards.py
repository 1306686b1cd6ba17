"""Rewards of rollouts: each looks at all rollouts of one item and says a number for each; they add up with weights.

| reward | 1 for | reads nothing where |
| --- | --- | --- |
| `exact` | the answer that the task's grader grades as correct | no answer is found |
| `boxed` | the same, of what stands in the last closed `\\boxed{}` alone | there is none |
| `incorrect` | the base's most frequent wrong answer (arXiv 2506.10947) | no answer is found |
| `majority` | the most frequent answer among the item's rollouts (arXiv 2504.16084) | no answer is found |
| `format` | an equation that is written out; `format:boxed` a box | |
| `random:p` | nothing: heads with probability p | |
| `information-gain` | nats a token of the gold answer that the thought brings (arXiv 2510.01265) | |
| `length` | the fraction of the limit that was used; with a negative weight, brevity | |
| `none` | nothing | |

A reward that reads nothing counts 0 and is counted: a run whose reward is never read is refused before its first
update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from elicit.decoding.decoders.sampling import rng_stream
from elicit.decoding.selection import with_majority
from elicit.models.prompts import Prompt
from elicit.tasks.answers import find_answer, find_boxed
from elicit.tasks.base import Item, Task
from elicit.tasks.equations import holds_equation
from elicit.training.rl.information_gain import gains
from probes.errors import UserError, unknown

FORMATS: dict[str, Callable[[str], bool]] = {
    "equation": holds_equation,
    "boxed": lambda text: find_boxed(text) is not None,
}


@dataclass(frozen=True)
class Rollout:
    """One sampled answer. `sample` numbers the item's rollouts over the whole training; `tokens` hold the end token.

    `logprob` is what the decoding loop gave each token (the end token aside), at temperature 1. `written` are places of
    tokens that the model did not choose: what ends a thought whose budget is spent.
    """

    item: Item
    sample: int
    tokens: list[int]
    text: str
    answer: str | None
    span: tuple[int, int] | None
    score: float
    finish: str
    logprob: list[float]
    unjudged: str = ""  # why the answer has no verdict and so scores 0; see `elicit.tasks.base.Grade`
    written: list[int] = field(default_factory=list)

    @property
    def chain_of_thought(self) -> list[int]:
        """The tokens before the answer (all of them where none was found), the end token aside."""
        said = self.tokens[:-1] if self.finish == "eos" else self.tokens
        return said if self.span is None else said[: self.span[0]]


@dataclass(frozen=True)
class RewardContext:
    """What rewards may look at beside the rollouts."""

    task: Task
    prompt: Prompt
    tokenizer: Any
    reference: Callable[[], AbstractContextManager[Any]]
    limit: int
    seed: int
    wrong: Mapping[str, str]  # for each item the base's most frequent wrong answer


@runtime_checkable
class Reward(Protocol):
    """The rewards of one item's rollouts; None where there is nothing to read."""

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> Sequence[float | None]: ...


@runtime_checkable
class Moving(Reward, Protocol):
    """A reward that moves with what is trained, and looks at all rollouts of an update before it grades any."""

    def identity(self) -> dict[str, Any]:
        """What of it decides the weights, as JSON."""
        ...

    def begin(self, student: Any, kept: Mapping[str, Tensor]) -> None:
        """Called once, with the `Learner` as it is at the beginning, or as it was resumed with the tensors kept."""
        ...

    def look(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        """For each item its rollouts, which it is asked for item by item after this."""
        ...

    def stepped(self) -> None:
        """An update was made."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What is kept with the state."""
        ...


def _exact(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    return [None if r.answer is None else r.score for r in rollouts]


def _boxed(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    out: list[float | None] = []
    for r in rollouts:
        box = find_boxed(context.prompt.begun(r.item.question, context.tokenizer) + r.text)
        found = find_answer(f"\\boxed{{{box.text}}}", context.task.kind_of(r.item)) if box else None
        out.append(context.task.grader.grade(r.item, found.text).score if found else None)
    return out


def _incorrect(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    label = context.wrong.get(rollouts[0].item.id)
    if label is None:
        raise UserError(f"the base answers {rollouts[0].item.id} never wrongly; give reward incorrect another example")
    return [None if r.answer is None else _same(context.task, r.answer, label) for r in rollouts]


def _same(task: Task, answer: str, label: str) -> float:
    return float(task.grader.groups([label, answer])[1] == 0)


def _majority(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    found = with_majority([r.answer for r in rollouts], context.task.grader)
    return [None if one is None else float(one) for one in found]


def _none(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    return [0.0] * len(rollouts)


def _length(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    return [len(r.tokens) / context.limit for r in rollouts]


def _information_gain(rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
    with context.reference() as lm:
        found = gains(
            lm, context.tokenizer, context.prompt, [r.item for r in rollouts], [r.chain_of_thought for r in rollouts]
        )
    return list(found)


@dataclass(frozen=True)
class _Format:
    holds: Callable[[str], bool]

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        return [float(self.holds(r.text)) for r in rollouts]


@dataclass(frozen=True)
class _Random:
    """Heads or tails by (seed, item, sample): the same after a resume, and in whatever batch."""

    p: float

    def __call__(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[float | None]:
        drawn = [rng_stream(context.seed, f"reward {r.item.id}", r.sample, 1)[0] for r in rollouts]
        return [float(u < self.p) for u in drawn]


def _format(argument: str) -> Reward:
    if argument and argument not in FORMATS:
        raise unknown("format", argument, FORMATS)
    return _Format(FORMATS[argument or "equation"])


def _random(argument: str) -> Reward:
    p = _number(argument or "0.5", "probability of reward random")
    if not 0 < p < 1:
        raise UserError(f"random:{argument} was given; give a probability between 0 and 1, like random:0.5")
    return _Random(p)


PLAIN: dict[str, Reward] = {
    "exact": _exact, "boxed": _boxed, "incorrect": _incorrect, "majority": _majority, "none": _none,
    "length": _length, "information-gain": _information_gain,
}  # fmt: skip
WITH_ARGUMENT: dict[str, Callable[[str], Reward]] = {"format": _format, "random": _random}
NAMES = (*PLAIN, *WITH_ARGUMENT)


class Graded(NamedTuple):
    """The total of a rollout, its parts by name, and whether any part but `none` read something."""

    total: float
    parts: dict[str, float]
    read: bool


@dataclass(frozen=True)
class Rewards:
    """Rewards with their weights, by the name that each was given under."""

    terms: tuple[tuple[str, float, Reward], ...]

    @property
    def moving(self) -> list[Moving]:
        """Those that move with what is trained."""
        return [reward for _, _, reward in self.terms if isinstance(reward, Moving)]

    def look(self, rollouts: Sequence[Sequence[Rollout]]) -> None:
        """Show all rollouts of an update to those that wait for them."""
        for reward in self.moving:
            reward.look(rollouts)

    def grade(self, rollouts: Sequence[Rollout], context: RewardContext) -> list[Graded]:
        """All parts of all rollouts of one item.

        Raises:
            UserError: a reward that fails or is no finite number; it is named, with the item.
        """
        columns = {name: _checked(name, reward, rollouts, context) for name, _, reward in self.terms}
        out = []
        for n in range(len(rollouts)):
            found = {name: column[n] for name, column in columns.items()}
            parts = {name: 0.0 if value is None else float(value) for name, value in found.items()}
            total = sum(weight * parts[name] for name, weight, _ in self.terms)
            out.append(Graded(total, parts, any(value is not None for value in found.values())))
        return out


def _checked(name: str, reward: Reward, rollouts: Sequence[Rollout], context: RewardContext) -> Sequence[float | None]:
    item = rollouts[0].item.id
    try:
        values = list(reward(rollouts, context))
        finite = [value is None or math.isfinite(value) for value in values]
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"reward {name!r} failed on {item} ({type(error).__name__}: {error}); what was trained so far is kept: "
            "mend the reward and run the same command again"
        ) from error
    if len(values) != len(rollouts):
        raise UserError(
            f"reward {name!r} gave {len(values)} values for {len(rollouts)} rollouts of {item}; give one each"
        )
    if not all(finite):
        raise UserError(
            f"reward {name!r} is {values[finite.index(False)]!r} on {item}; give finite numbers (what was trained so "
            "far is kept)"
        )
    return values


def parse(text: str, known: Mapping[str, Reward] | None = None) -> Rewards:
    """Rewards from words: `exact`, `exact+0.5*format`, `random:0.3`, `exact+-0.1*length`.

    Args:
        text: terms joined by +, each `[weight*]name[:argument]`.
        known: rewards of one's own, by name.

    Raises:
        UserError: an unknown name, a weight that is no number, a name twice.
    """
    known = known or {}
    terms: list[tuple[str, float, Reward]] = []
    for term in text.split("+"):
        weight, star, rest = term.strip().rpartition("*")
        name, _, argument = rest.strip().partition(":")
        if name in WITH_ARGUMENT:
            reward = WITH_ARGUMENT[name](argument)
        elif name in (PLAIN | dict(known)) and not argument:
            reward = (PLAIN | dict(known))[name]
        else:
            raise unknown("reward", rest, [*NAMES, *known], hint="(terms are joined by +, like exact+0.5*format)")
        terms.append((rest.strip(), _number(weight, f"weight of reward {name}") if star else 1.0, reward))
    if len({name for name, _, _ in terms}) < len(terms):
        raise UserError(f"reward {text!r} names a term twice; give each once, with one weight")
    return Rewards(tuple(terms))


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{what} = {text!r} was given; give a number") from error
    if not math.isfinite(value):
        raise UserError(f"{what} = {text!r} was given; give a finite number")
    return value
