"""Walk a solution of an organism's problem sentence by sentence, to its first mistake.

A sentence is read by the paraphrases of `elicit.tasks.organism.language`, as every step that it could stand for; it is
a mistake where none of them may follow what was said before. What may follow is decided by the facts of the question
and
not by one order: terms may be added in any order and roads tried in any order, but nothing may be added twice, an
equation must hold and begin where the last one ended, one goes back from a dead end alone, and the conclusion is what
the steps came to. A sentence with content that no paraphrase fits ends the walk without a verdict: from there on only
equations are graded (`elicit.methods.critique_ft.symbolic_critic`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from elicit.tasks.equations import equations
from elicit.tasks.organism.language import PARAPHRASES, Behaviour, Step
from elicit.tasks.organism.solver import Facts, Numbers, Roads, SumFacts

_N, _EQ = r"\d+", r"\d+ [+-] \d+ = -?\d+"
# What a behaviour's content looks like, by the kind of problem: a paraphrase that is bare ("{x}") fits any sentence.
CONTENT: dict[type, dict[Behaviour, str]] = {
    SumFacts: {
        "initialise": _N, "subgoal": rf"[+-] {_N}", "deduce": rf"{_N} is (?:not )?below {_N}", "compute": _EQ,
        "check": _EQ, "conclude": rf"-?{_N}",
    },
    Numbers: {
        "initialise": _N, "subgoal": _N, "deduce": rf"{_N} is (?:not )?there", "compute": _EQ, "check": _EQ,
        "backtrack": _N, "conclude": rf"{_N} [+-] {_N}",
    },
    Roads: {
        "initialise": "[A-Z]", "subgoal": rf"{_N}(?: \+ {_N})*",
        "deduce": rf"[A-Z] goes to [A-Z] for {_N}|[A-Z] is the end|[A-Z] goes nowhere", "compute": _EQ, "check": _EQ,
        "backtrack": "[A-Z]", "conclude": _N,
    },
}  # fmt: skip
_SENTENCE = re.compile(r"[^.!?\n]*[^.!?\s][^.!?\n]*(?:[.!?]|(?=\n)|$)")


class Sum(NamedTuple):
    """Where a sum stands: the total so far, the terms that are left, the newest equation."""

    total: int | None
    left: tuple[tuple[str, int], ...]
    last: tuple[int, str, int] | None = None


class Try(NamedTuple):
    """Where a search for two numbers stands: the number tried, what is needed beside it, whether that is there."""

    n: int | None = None
    partner: int | None = None
    there: bool | None = None


class Way(NamedTuple):
    """Where a search for a way stands: the node, the costs to it, whether it is a dead end, and their sum so far."""

    node: str | None = None
    costs: tuple[int, ...] = ()
    dead: bool = False
    added: int = 0
    last: tuple[int, str, int] | None = None


class Walked(NamedTuple):
    """How far the walk came: the sentences that hold, the first that does not and why.

    `lost` where a sentence could not be read; `ended` where the steps came to the answer.
    """

    held: list[str]
    wrong: str | None
    reason: str
    lost: bool
    ended: bool


def walk(text: str, facts: Facts, answer: str, right: Callable[[str], bool]) -> Walked:
    """Follow a solution to its first mistake.

    Args:
        text: the solution.
        facts: of its question.
        answer: what it answers.
        right: whether an answer is right.
    """
    sentences = [found.group().strip() for found in _SENTENCE.finditer(text)]
    states: set[Any] = {_start(facts)}
    held: list[str] = []
    ended = False
    for n, sentence in enumerate(sentences):
        last = n + 1 == len(sentences)
        steps = readings(sentence, type(facts))
        if not steps:
            if _says_nothing(sentence, facts):
                held.append(sentence)
                continue
            return Walked(held, None, "", True, False)
        following = [(step, _after(facts, state, step, last, right)) for state in states for step in steps]
        states = {state for _, state in following if state is not None}
        if not states:
            return Walked(held, sentence, _why(sentence, steps), False, False)
        held.append(sentence)
        ended = any(step.behaviour == "conclude" for step, state in following if state is not None)
    if not ended and re.fullmatch(CONTENT[type(facts)]["conclude"], answer):  # unsaid, but is it what they came to?
        said = Step("conclude", answer)
        ended = any(_after(facts, state, said, True, right) is not None for state in states)
    return Walked(held, None, "", False, ended)


def readings(sentence: str, kind: type) -> list[Step]:
    """Every step that a sentence could stand for."""
    said = sentence.strip().rstrip(".")
    out = []
    for behaviour, pattern in CONTENT[kind].items():
        found = {m.group(1) for wording in _patterns(behaviour) if (m := wording.fullmatch(said))}
        out += [Step(behaviour, content) for content in sorted(found) if re.fullmatch(pattern, content)]
    return out


@cache
def _patterns(behaviour: Behaviour) -> list[re.Pattern[str]]:
    return [re.compile(re.escape(p).replace(re.escape("{x}"), "(.+)"), re.I) for p in PARAPHRASES[behaviour]]


def _says_nothing(sentence: str, facts: Facts) -> bool:
    """A sentence without a number, and without a node where there are nodes."""
    return not re.search(r"\d" if not isinstance(facts, Roads) else r"\d|\b[A-Z]\b", sentence)


def _why(sentence: str, steps: list[Step]) -> str:
    """Why none of a sentence's readings may follow."""
    for one in equations(sentence):
        if not one.right:
            return f"{one.text.split(' =')[0]} is {one.value}"
    behaviours = {step.behaviour for step in steps}
    if behaviours == {"deduce"}:
        return "that is not so"
    if behaviours == {"backtrack"}:
        return "there is no dead end"
    return "the steps do not end there" if behaviours == {"conclude"} else "it does not follow"


def _start(facts: Facts) -> Any:
    if isinstance(facts, SumFacts):
        return Sum(None, facts.terms)
    return Try() if isinstance(facts, Numbers) else Way()


def _after(facts: Facts, state: Any, step: Step, last: bool, right: Callable[[str], bool]) -> Any:
    """The state after a step; None where it may not follow."""
    if isinstance(facts, SumFacts):
        return _after_sum(facts, state, step, last)
    if isinstance(facts, Numbers):
        return _after_try(facts, state, step, right)
    return _after_way(facts, state, step)


def _equation(content: str) -> tuple[int, str, int, int] | None:
    """An equation's parts, where it holds."""
    a, sign, b, _, c = content.split()
    return (int(a), sign, int(b), int(c)) if int(c) == _made(int(a), sign, int(b)) else None


def _made(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b


def _takes_back(equation: tuple[int, str, int, int], last: tuple[int, str, int] | None) -> bool:
    """Whether an equation checks the newest one: back from its result to what it came from, or the same again."""
    if last is None:
        return False
    a, sign, b, c = equation
    before, done, term = last
    other = "-" if done == "+" else "+"
    return (a, sign, b, c) == (_made(*last), other, term, before) or (a, sign, b) == last


def _after_sum(facts: SumFacts, state: Sum, step: Step, last: bool) -> Sum | None:
    kind, content = step.behaviour, step.content
    modulus = facts.modulus
    if kind == "initialise":
        start = ("+", int(content))
        return Sum(start[1], _without(state.left, start)) if state.total is None and start in state.left else None
    if kind == "subgoal":
        return state if (content[0], int(content[2:])) in state.left else None
    if kind == "conclude":
        reduced = state.total if modulus is None or state.total is None else state.total % modulus
        if not state.left and int(content) == reduced:
            return state
        return state if not last and int(content) == state.total else None
    if kind == "deduce":
        n, bound = (int(x) for x in re.findall(r"\d+", content))
        fits = n == state.total and bound == modulus
        return state if fits and ("not" in content) == (n >= bound) else None
    equation = _equation(content)
    if equation is None:
        return None
    if kind == "check":
        return state if _takes_back(equation, state.last) else None
    a, sign, b, c = equation
    if modulus is not None and (sign, b) == ("-", modulus) and a == state.total and a >= modulus:
        return Sum(c, state.left, (a, sign, b))
    for total, term in ((a, b), (b, a)) if sign == "+" else ((a, b),):
        left = state.left
        if state.total is None and ("+", total) in left:  # the first equation may begin without saying so
            left = _without(left, ("+", total))
        elif total != state.total:
            continue
        if (sign, term) in left:
            return Sum(c, _without(left, (sign, term)), (total, sign, term))
    return None


def _without(terms: tuple[tuple[str, int], ...], one: tuple[str, int]) -> tuple[tuple[str, int], ...]:
    at = terms.index(one)
    return terms[:at] + terms[at + 1 :]


def _after_try(facts: Numbers, state: Try, step: Step, right: Callable[[str], bool]) -> Try | None:
    kind, content = step.behaviour, step.content
    if kind == "initialise":
        return state if int(content) == facts.target and state == Try() else None
    if kind == "subgoal":
        n = int(content)
        free = state.n is None or state.there is False
        return Try(n) if free and n in facts.numbers else None
    if kind == "backtrack":
        return Try() if state.there is False and int(content) == facts.target else None
    if kind == "deduce":
        partner, there = int(content.split()[0]), "not" not in content
        if state.n is None or partner != state.partner or state.there is not None:
            return None
        return state._replace(there=there) if facts.there(state.n, partner) == there else None
    if kind == "conclude":
        return state if right(content) else None
    equation = _equation(content)
    if equation is None:
        return None
    a, sign, b, c = equation
    if c == facts.target and a in facts.numbers and facts.there(a, b):  # a pair, tried and found at once
        return Try(a, b, True)
    if kind == "check" or state.n is None or state.partner is not None:
        return None
    wanted = (max(state.n, facts.target), "-", min(state.n, facts.target))
    return state._replace(partner=c) if (a, sign, b) == wanted else None


def _after_way(facts: Roads, state: Way, step: Step) -> Way | None:
    kind, content = step.behaviour, step.content
    if kind == "initialise":
        return Way(facts.start) if state == Way() and content == facts.start else None
    if kind == "backtrack":
        return Way(facts.start) if state.dead and content == facts.start else None
    if kind == "deduce":
        return _after_road(facts, state, content)
    if state.node != facts.goal:
        return None
    if kind == "subgoal":
        return state if [int(c) for c in re.findall(r"\d+", content)] == list(state.costs) else None
    if kind == "conclude":
        return state if int(content) == sum(state.costs) else None
    equation = _equation(content)
    if equation is None:
        return None
    if kind == "check":
        return state if _takes_back(equation, state.last) else None
    a, sign, b, _ = equation
    at = max(1, state.added)
    if sign == "-" or at >= len(state.costs) or (a, b) != (sum(state.costs[:at]), state.costs[at]):
        return None
    return state._replace(added=at + 1, last=(a, sign, b))


def _after_road(facts: Roads, state: Way, content: str) -> Way | None:
    words = content.split()
    node = words[0]
    if "to" in words:
        other, cost = words[3], int(words[5])
        fresh = node == facts.start and (state.node is None or state.dead)
        if (node, other, cost) not in facts.edges or not (node == state.node or fresh):
            return None
        return Way(other, (cost,) if node == facts.start else (*state.costs, cost))
    if node != state.node:
        return None
    if "nowhere" in words:
        return state._replace(dead=True) if node != facts.goal and not facts.on(node) else None
    return state if node == facts.goal else None
