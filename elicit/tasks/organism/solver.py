"""The facts of a problem, read from its question, and its solution from the facts alone.

`problems` draws a problem and solves it in one go; here an item is solved that only has its question. The steps are
the same without what is drawn: the subgoals that some sums are told with, and the checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from elicit.tasks.base import Item
from elicit.tasks.organism.language import Step
from elicit.tasks.organism.problems import FAMILIES, computed
from probes.errors import UserError

Edge = tuple[str, str, int]
_TERM = re.compile(r"(?:([+-]) )?(\d+)")
_EDGE = re.compile(r"\b([A-Z])-([A-Z]) (\d+)")
_ENDS = re.compile(r"from ([A-Z]) to ([A-Z])")


@dataclass(frozen=True)
class SumFacts:
    """A sum: its signed terms, and the modulus where it has one."""

    terms: tuple[tuple[str, int], ...]
    modulus: int | None = None


@dataclass(frozen=True)
class Numbers:
    """Countdown: the numbers, and what two of them make."""

    numbers: tuple[int, ...]
    target: int

    def beside(self, n: int) -> int:
        """What is needed beside n to make the target."""
        return abs(n - self.target)

    def there(self, n: int, partner: int) -> bool:
        left = list(self.numbers)
        left.remove(n)
        return partner in left


@dataclass(frozen=True)
class Roads:
    """A graph: its roads in the order in which they are given, start and goal."""

    edges: tuple[Edge, ...]
    start: str
    goal: str

    def on(self, node: str) -> list[Edge]:
        return [edge for edge in self.edges if edge[0] == node]


Facts = SumFacts | Numbers | Roads


def family_of(item: Item) -> str | None:
    """The family of an organism's item; None of any other item."""
    family = item.metadata.get("family")
    return family if family in FAMILIES else None


def facts_of(item: Item) -> Facts:
    """What the question says.

    Raises:
        UserError: a question that is not of the item's family.
    """
    family, question = family_of(item), item.question
    out: Facts | None = None
    if family == "countdown":
        out = Numbers(tuple(item.metadata["numbers"]), item.metadata["target"])
    elif family == "graph":
        ends = _ENDS.search(question)
        edges = tuple((a, b, int(cost)) for a, b, cost in _EDGE.findall(question))
        out = Roads(edges, *ends.groups()) if ends and edges else None
    elif family is not None:
        found = [(sign or "+", int(n)) for sign, n in _TERM.findall(question)]
        modulus = found.pop()[1] if family == "modular" and found else None
        out = SumFacts(tuple(found), modulus) if len(found) > 1 else None
    if out is None:
        raise UserError(f"question {question!r} is not one of {family or 'the families'}; give items of task organism")
    return out


def solve(item: Item) -> tuple[Step, ...]:
    """The steps that lead from the question to its answer, the conclusion last.

    Raises:
        UserError: as `facts_of`; a problem without a solution.
    """
    facts = facts_of(item)
    if isinstance(facts, SumFacts):
        return _sum(facts)
    if isinstance(facts, Numbers):
        return _countdown(facts)
    return _way(facts)


def _sum(facts: SumFacts) -> tuple[Step, ...]:
    total, modulus = facts.terms[0][1], facts.modulus
    steps = [Step("initialise", str(total))]
    for sign, term in facts.terms[1:]:
        steps.append(computed(total, sign, term))
        total += term if sign == "+" else -term
        if modulus is None:
            continue
        steps.append(Step("deduce", f"{total} is {'not ' if total >= modulus else ''}below {modulus}"))
        if total >= modulus:
            steps.append(computed(total, "-", modulus))
            total -= modulus
    return (*steps, Step("conclude", str(total)))


def _countdown(facts: Numbers) -> tuple[Step, ...]:
    target = facts.target
    steps = [Step("initialise", str(target))]
    for n in facts.numbers:
        partner = facts.beside(n)
        steps += [Step("subgoal", str(n)), computed(max(n, target), "-", min(n, target))]
        if facts.there(n, partner):
            steps.append(Step("deduce", f"{partner} is there"))
            return (*steps, Step("conclude", f"{n} {'-' if n > target else '+'} {partner}"))
        steps += [Step("deduce", f"{partner} is not there"), Step("backtrack", str(target))]
    raise UserError(f"no two of {facts.numbers} make {target}; give a problem that has a solution")


def _way(facts: Roads) -> tuple[Step, ...]:
    steps = [Step("initialise", facts.start)]
    for first in facts.on(facts.start):
        chain = [first]
        while chain[-1][1] != facts.goal and (further := facts.on(chain[-1][1])) and len(chain) <= len(facts.edges):
            chain.append(further[0])
        steps += [Step("deduce", f"{a} goes to {b} for {cost}") for a, b, cost in chain]
        end = chain[-1][1]
        if end == facts.goal:
            steps.append(Step("deduce", f"{end} is the end"))
            break
        steps += [Step("deduce", f"{end} goes nowhere"), Step("backtrack", facts.start)]
    else:
        raise UserError(f"no way leads from {facts.start} to {facts.goal}; give a problem that has a solution")
    costs = [cost for _, _, cost in chain]
    steps.append(Step("subgoal", " + ".join(str(c) for c in costs)))
    total = costs[0]
    for cost in costs[1:]:
        steps.append(computed(total, "+", cost))
        total += cost
    return (*steps, Step("conclude", str(total)))
