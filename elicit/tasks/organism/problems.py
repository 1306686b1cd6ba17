"""Four families of problems, each with a symbolic solver that thinks in steps with true labels.

Every problem is made from a random generator alone. The solver searches as the thoughts say: it backtracks at a real
dead end and nowhere else, and a check is an equation computed another way. Direct answers are hard because no family
has a shortcut that one forward pass could take: four additions, reductions of a running sum, a search whose first
choice is a guess, and a way whose end decides which weights are summed.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from elicit.tasks.answers import Kind
from elicit.tasks.organism.language import Step
from probes.errors import UserError, unknown

MOST = 24  # no result is larger, so that few examples teach the sums
SUM_ASKED = ("What is {x}?", "How much is {x}?", "Compute {x}.")
MODULAR_ASKED = (
    "What is {x} modulo {m}?", "Compute ({x}) mod {m}.", "What is left of {x} when divided by {m}?",
)  # fmt: skip
CHECKED = 0.25  # the fraction of problems whose last result is computed the other way round


@dataclass(frozen=True)
class Problem:
    """A question, its gold answer, and the steps of its solution.

    `facts` are what a grader needs beside the gold answer. `first_end` counts the steps up to the first dead end: what
    a solver that cannot backtrack still does (None where there is none), and `first_answer` is what it then says.
    """

    family: str
    question: str
    answer: str
    steps: tuple[Step, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    first_end: int | None = None
    first_answer: str = ""


class Family(NamedTuple):
    """How problems are made: `make(rng, size)`, with the sizes that are drawn from unless one is asked for."""

    summary: str
    kind: Kind
    sizes: tuple[int, int]
    largest: int
    make: Callable[[np.random.Generator, int], Problem]


def draw(family: str, rng: np.random.Generator, size: int | None = None) -> Problem:
    """One problem of a family.

    Raises:
        UserError: an unknown family, a size that it does not have.
    """
    if family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    one = FAMILIES[family]
    if size is not None and not 2 <= size <= one.largest:
        raise UserError(f"size {size} was given for {family}; give one from 2 to {one.largest}")
    return one.make(rng, size if size is not None else _between(rng, *one.sizes))


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _one_of(rng: np.random.Generator, *texts: str) -> str:
    return texts[int(rng.integers(len(texts)))]


def computed(a: int, sign: str, b: int) -> Step:
    """An equation, with its true result."""
    return Step("compute", f"{a} {sign} {b} = {a + b if sign == '+' else a - b}")


def _check(a: int, sign: str, b: int) -> Step:
    """The last result taken back: what it came from must appear again."""
    total = a + b if sign == "+" else a - b
    return Step("check", f"{total} {'-' if sign == '+' else '+'} {b} = {a}")


def sums(rng: np.random.Generator, size: int) -> Problem:
    """`size` numbers of 2 to 12, added and taken off so that running sums stay between 0 and `MOST`."""
    total = first = _between(rng, 2, 12)
    steps = [Step("initialise", str(first))]
    written = str(first)
    for n in range(size - 1):
        term = _between(rng, 2, 12)
        sign = "-" if total >= term and (total + term > MOST or rng.random() < 0.5) else "+"
        if n and rng.random() < 0.15:
            steps.append(Step("subgoal", f"{sign} {term}"))
        steps.append(computed(total, sign, term))
        before, total = total, total + term if sign == "+" else total - term
        written += f" {sign} {term}"
    if rng.random() < CHECKED:
        steps.append(_check(before, sign, term))
    steps.append(Step("conclude", str(total)))
    question = _one_of(rng, *SUM_ASKED).format(x=written)
    return Problem("sums", question, str(total), tuple(steps))


def modular(rng: np.random.Generator, size: int) -> Problem:
    """A sum of `size` residues, reduced as it goes."""
    modulus = _between(rng, 6, 11)
    terms = [_between(rng, 1, modulus - 1) for _ in range(size)]
    total = terms[0]
    steps = [Step("initialise", str(total))]
    for n, term in enumerate(terms[1:]):
        if n and rng.random() < 0.15:
            steps.append(Step("subgoal", f"+ {term}"))
        steps.append(computed(total, "+", term))
        total += term
        last = (total - term, "+", term)
        steps.append(Step("deduce", f"{total} is {'not ' if total >= modulus else ''}below {modulus}"))
        if total >= modulus:
            steps.append(computed(total, "-", modulus))
            last = (total, "-", modulus)
            total -= modulus
    if rng.random() < CHECKED:
        steps.append(_check(*last))
    steps.append(Step("conclude", str(total)))
    written = " + ".join(str(t) for t in terms)
    question = _one_of(rng, *MODULAR_ASKED).format(x=written, m=modulus)
    return Problem("modular", question, str(total), tuple(steps))


def countdown(rng: np.random.Generator, size: int) -> Problem:
    """Reach a target with two of `size` numbers, by + or -. Numbers are tried in their order.

    To try n is to compute what is needed beside it, and to look whether it is there.
    """
    tries = _between(rng, 1, min(3, size - 1))
    while True:
        numbers = [int(n) for n in rng.choice(np.arange(2, 21), size, replace=False)]
        target = _between(rng, 8, MOST)
        partners = [n - target if n > target else target - n for n in numbers]
        hits = [i for i, n in enumerate(numbers) if partners[i] in numbers]
        if hits and hits[0] == tries - 1 and target not in numbers and target / 2 not in numbers:
            break
    steps = [Step("initialise", str(target))]
    first_end, first_answer = None, ""
    for n, partner in zip(numbers[:tries], partners, strict=False):
        sign, a, b = ("-", n, target) if n > target else ("-", target, n)
        written = f"{n} - {partner}" if n > target else f"{n} + {partner}"
        steps += [Step("subgoal", str(n)), computed(a, sign, b)]
        if partner in numbers:
            steps.append(Step("deduce", f"{partner} is there"))
            break
        steps.append(Step("deduce", f"{partner} is not there"))
        if first_end is None:
            first_end, first_answer = len(steps), written
        steps.append(Step("backtrack", str(target)))
    if rng.random() < CHECKED:
        steps.append(Step("check", f"{written} = {target}"))
    steps.append(Step("conclude", written))
    shown = ", ".join(str(n) for n in numbers[:-1]) + f" and {numbers[-1]}"
    question = _one_of(
        rng, f"Make {target} from two of {shown}.", f"Which two of {shown} make {target} with + or -?",
        f"Reach {target} with two of {shown}.",
    )  # fmt: skip
    facts = {"numbers": numbers, "target": target}
    return Problem("countdown", question, written, tuple(steps), facts, first_end, first_answer)


def graph(rng: np.random.Generator, size: int) -> Problem:
    """`size` chains of roads leave the start; one ends at the goal. What does the way there cost?"""
    lengths = [_between(rng, 1, 2) for _ in range(size)]
    right = _between(rng, 0, size - 1)
    lengths[right] = _between(rng, 2, 3)
    names = [string.ascii_uppercase[int(i)] for i in rng.permutation(26)[: 1 + sum(lengths)]]
    start, rest = names[0], names[1:]
    chains: list[list[tuple[str, str, int]]] = []
    for length in lengths:
        nodes, rest = [start, *rest[:length]], rest[length:]
        chains.append([(a, b, _between(rng, 1, 9)) for a, b in pairwise(nodes)])
    goal = chains[right][-1][1]
    edges = [edge for chain in chains for edge in chain]
    edges = [edges[int(i)] for i in rng.permutation(len(edges))]
    tried = sorted(chains, key=lambda chain: edges.index(chain[0]))  # in the order in which the roads are told
    steps = [Step("initialise", start)]
    first_end, first_answer = None, ""
    for chain in tried:
        for a, b, cost in chain:
            steps.append(Step("deduce", f"{a} goes to {b} for {cost}"))
        way, end = [cost for _, _, cost in chain], chain[-1][1]
        if end == goal:
            steps.append(Step("deduce", f"{end} is the end"))
            break
        steps.append(Step("deduce", f"{end} goes nowhere"))
        if first_end is None:
            first_end, first_answer = len(steps), str(sum(way))
        steps.append(Step("backtrack", start))
    steps.append(Step("subgoal", " + ".join(str(c) for c in way)))
    total = way[0]
    for cost in way[1:]:
        steps.append(computed(total, "+", cost))
        total += cost
    if rng.random() < CHECKED:
        steps.append(_check(total - way[-1], "+", way[-1]))
    steps.append(Step("conclude", str(total)))
    told = ", ".join(f"{a}-{b} {cost}" for a, b, cost in edges)
    question = _one_of(
        rng, f"Roads: {told}. What does the way from {start} to {goal} cost?",
        f"Roads: {told}. How long is the way from {start} to {goal}?",
        f"Given the roads {told}, what is the cost from {start} to {goal}?",
    )  # fmt: skip
    return Problem("graph", question, str(total), tuple(steps), {}, first_end, first_answer)


FAMILIES: dict[str, Family] = {
    "sums": Family("sums and differences of several terms", "number", (4, 5), 12, sums),
    "modular": Family("sums modulo a small number", "number", (3, 4), 10, modular),
    "countdown": Family("a target from two of several numbers", "expression", (5, 6), 12, countdown),
    "graph": Family("the cost of the one way that ends at the goal", "number", (3, 3), 6, graph),
}
