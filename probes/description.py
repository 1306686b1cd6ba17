"""How many bits say what was done to a model: code lengths of choices, of training targets and of rewards.

- A choice among n that are on offer costs log₂ n. A whole number that no menu bounds costs Rissanen's universal code,
  log₂ 2.865 + log₂ n + log₂ log₂ n + … over the positive terms (Annals of Statistics 11, 1983); a decimal number its
  digits and its exponent so.
- Training targets cost their prequential code (arXiv 1802.07044, section 3.3; 2003.12298): each is paid for under the
  model as it was before it was trained on. Less what the final model pays for as many, it is the excess description
  length: what training wrote into the weights (arXiv 2601.04728; as a tool of analysis 2103.03872).
- Rewards cost their entropy within the group that they are compared in: at most 1 bit a graded rollout, the bound of
  a policy gradient with one binary reward an episode, and none where all of a group agree and no advantage is left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from probes.errors import UserError
from probes.statistics import proportion_interval

RISSANEN = 2.865064  # Σ over n of 2 to the minus log*: with it the code's lengths are those of a distribution
FLOAT_BITS = 32  # of a number in single precision
REACHED, NOT_REACHED, UNDECIDED = "reached", "not reached", "undecided"


class Part(NamedTuple):
    """One thing that must be said beside the model and the question, and its bits; None where nobody knows them."""

    what: str
    bits: float | None


@dataclass(frozen=True)
class Base:
    """What whoever is told has already: a model.

    Args:
        layers: of it.
        text: bits of a text under it.
    """

    layers: int
    text: Callable[[str], float]


@runtime_checkable
class Described(Protocol):
    """What says itself how it differs from answering at once."""

    def description(self, base: Base) -> list[Part]:
        """Its parts; none where it does not differ."""
        ...


def stated(settings: object, *names: str) -> list[Part]:
    """The attributes of these names, each a number: a whole one from 0 on, or a decimal one."""
    values = {name: getattr(settings, name) for name in names}
    return [Part(k, whole_number(1 + v) if isinstance(v, int) else number(v)) for k, v in values.items()]


def total(parts: Sequence[Part]) -> float | None:
    """Bits of all parts; None where those of one are unknown."""
    known = [part.bits for part in parts if part.bits is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def one_of(n: int) -> float:
    """Bits of a choice among n.

    Raises:
        UserError: fewer than one.
    """
    if n < 1:
        raise UserError(f"a choice among {n} was given; give at least 1")
    return math.log2(n)


def whole_number(n: int) -> float:
    """Bits of a whole number from 1 on, by Rissanen's universal code.

    Raises:
        UserError: a number below 1.
    """
    if n < 1:
        raise UserError(f"the number {n} was given to be coded; give 1 or more")
    bits, rest = math.log2(RISSANEN), math.log2(n)
    while rest > 0:
        bits, rest = bits + rest, math.log2(rest)
    return bits


def number(x: float) -> float:
    """Bits of a number as it is written: its sign, its digits and its exponent, never more than single precision.

    Raises:
        UserError: NaN or infinity.
    """
    if not math.isfinite(x):
        raise UserError(f"the number {x} was given to be coded; give a finite one")
    _, digits, exponent = Decimal(repr(float(x))).normalize().as_tuple()
    assert isinstance(exponent, int)
    signed = 2 * abs(exponent) + (exponent >= 0)  # 1, 2, 3, … for 0, -1, 1, …
    written = 1 + whole_number(1 + int("".join(map(str, digits)))) + whole_number(signed)
    return min(written, float(FLOAT_BITS))


def excess(before: Sequence[float], after: float) -> float:
    """Excess description length in bits (arXiv 2601.04728).

    Args:
        before: bits of each part of the training targets under the model as it was before that part.
        after: bits of as many targets under the final model. Of held-out targets it is the paper's; of those it was
            trained on the final model pays less, and what comes out is an upper bound.
    """
    return math.fsum(before) - after


def reward_bits(groups: Sequence[Sequence[float]]) -> float:
    """Bits in the rewards of groups of rollouts: each group's size times the entropy of the rewards in it."""
    bits = 0.0
    for rewards in groups:
        n = len(rewards)
        bits += sum(count * math.log2(n / count) for count in Counter(rewards).values())
    return bits


def quantised(vector: Float[np.ndarray, " n"], bits: int) -> Float[np.ndarray, " n"]:
    """A vector of as many levels a coordinate as `bits` say, evenly between its largest magnitude and minus that; of
    the same length as it was.

    One bit is the sign. It takes n · bits to write, and a scale.

    Raises:
        UserError: bits below 1, a vector of zeros.
    """
    largest = float(np.abs(vector).max())
    if bits < 1 or not largest:
        raise UserError(
            f"{bits} bits a coordinate of a vector as large as {largest} were given; give 1 bit or more and a vector "
            "that is not zero"
        )
    step = 2 * largest / (2**bits - 1)
    out = np.round((vector + largest) / step) * step - largest
    return out * (np.linalg.norm(vector) / np.linalg.norm(out))


class Reach(NamedTuple):
    """Whether a curve of accuracy over bits comes to a level, and between which bits.

    Attributes:
        verdict: `reached` where an interval lies above the level, `not reached` where all lie below, or `undecided`.
        bits: of the first point that is at the level or above; None where there is none.
        least: of the first point whose interval does not lie below it: fewer do not suffice.
        most: of the first point whose interval lies above it: so many suffice.
    """

    verdict: str
    bits: float | None
    least: float | None
    most: float | None


def bits_to_reach(bits: Sequence[float], right: Sequence[int], n: int, level: float) -> Reach:
    """The bits at which an accuracy is reached.

    Args:
        bits: of each point.
        right: of each point the questions that are right.
        n: questions.
        level: the accuracy that is asked for.

    Raises:
        UserError: no points, or not as many bits as accuracies.
    """
    if not bits or len(bits) != len(right):
        raise UserError(f"{len(bits)} numbers of bits and {len(right)} accuracies were given; give as many of each")
    points = sorted(zip(bits, right, strict=True))
    intervals = [proportion_interval(r, n) for _, r in points]
    at = [b for b, r in points if r >= level * n]
    surely = [b for (b, _), i in zip(points, intervals, strict=True) if i.low > level]
    maybe = [b for (b, _), i in zip(points, intervals, strict=True) if i.high >= level]
    verdict = REACHED if surely else UNDECIDED if maybe else NOT_REACHED
    first = [min(some, default=None) for some in (at, maybe, surely)]
    return Reach(verdict, *first)
