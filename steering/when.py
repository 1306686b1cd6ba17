"""`When`: at which positions an intervention acts and with which weight, and `Gate`, on what condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from probes.clock import Frame
from probes.description import FLOAT_BITS, Base, Part, number, one_of
from probes.errors import UserError, unknown
from probes.sites import Site
from steering.storage import numbers_in, register

TABLES = "_tables"  # of a `When`: its program on each device
WHENS = ("everywhere", "prompt", "last prompt token", "steps", "every step", "decaying", "program", "gate")


@register
@dataclass(frozen=True, eq=False)
class Gate:
    """Acts only where h · vector + bias > threshold, with h at `site` of the same forward, as it arrives there.

    A linear probe's gate; with `vector` an SAE's encoder column and `bias` its bias, a feature's.
    """

    vector: Float[Tensor, " d_model"]
    site: Site
    bias: float = 0.0
    threshold: float = 0.0
    name: str = ""

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or not bool(self.vector.isfinite().all()):
            raise UserError(
                f"gate {self.name!r} has a vector of shape {tuple(self.vector.shape)} or with NaN; "
                "give finite [d_model]"
            )


@register
@dataclass(frozen=True)
class When:
    """At which positions, and with which weight, an intervention acts.

    Steps number positions by the token that they choose: step 0 is the last prompt token (it chooses the first
    generated one), step t is generated token t − 1, negative steps lie in the prompt.

    Args:
        first: the first step; None: from the first prompt token.
        stop: acts before this step; None: to the end.
        positions: prompt positions instead (0 the first, −1 the last).
        decay: the weight is decay ** (step − first).
        program: weights of steps first, first + 1, …, and 0 after the last.
        gate: a condition on activations on top of it all.
    """

    first: int | None = None
    stop: int | None = None
    positions: tuple[int, ...] | None = None
    decay: float = 1.0
    program: tuple[float, ...] | None = None
    gate: Gate | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.stop is not None and self.stop <= self.first:
            raise UserError(f"steps {self.first} to before {self.stop} were given; that is none, give a later stop")
        if self.positions is not None and (self.first is not None or self.stop is not None):
            raise UserError("prompt positions and steps were given; give one of them")
        if self.positions == ():
            raise UserError("no prompt positions were given; give at least one")
        if (self.decay != 1.0 or self.program is not None) and self.first is None:
            raise UserError("a decay or a program begins at a step; give first")
        if not 0 < self.decay <= 1:
            raise UserError(f"decay = {self.decay} was given; give a factor in (0, 1]")
        if self.program is not None and not any(self.program):
            raise UserError("a program of zeros was given; it would change nothing")

    @staticmethod
    def everywhere() -> When:
        """All prompt positions and all generated tokens."""
        return When()

    @staticmethod
    def prompt(*positions: int) -> When:
        """These prompt positions, or all of them."""
        return When(positions=positions) if positions else When(stop=1)

    @staticmethod
    def last_prompt_token() -> When:
        """Step 0 alone: the position that chooses the first generated token."""
        return When(first=0, stop=1)

    @staticmethod
    def steps(n: int) -> When:
        """The first n generated tokens: steps 0 to n − 1, all of them (not only the n-th)."""
        return When(first=0, stop=n)

    @staticmethod
    def every_step() -> When:
        """Each position that chooses a generated token."""
        return When(first=0)

    @staticmethod
    def decaying(factor: float, n: int | None = None) -> When:
        """Weight 1 at step 0, `factor` at step 1, factor² at step 2, …"""
        return When(first=0, stop=n, decay=factor)

    @staticmethod
    def programmed(weights: Sequence[float], first: int = 0) -> When:
        """A weight for each step."""
        return When(first=first, stop=first + len(weights), program=tuple(float(w) for w in weights))

    @staticmethod
    def parse(text: str) -> When:
        """From a command line: `everywhere`, `prompt`, `last-prompt-token`, `every-step`, `steps:8`, `decaying:0.9`.

        Raises:
            UserError: another name, no number after the colon, or one that is not asked for.
        """
        name, _, number = text.partition(":")
        plain = {
            "everywhere": When.everywhere,
            "prompt": When.prompt,
            "last-prompt-token": When.last_prompt_token,
            "every-step": When.every_step,
        }
        if name in plain and text != name:
            raise UserError(f"when = {text!r} was given; {name} takes no number: leave out what follows it")
        if name in plain:
            return plain[name]()
        try:
            if name == "steps":
                return When.steps(int(number))
            if name == "decaying":
                return When.decaying(float(number))
        except ValueError as error:
            raise UserError(f"when = {text!r} was given; write a number after the colon, like {name}:8") from error
        raise unknown("when", name, [*plain, "steps", "decaying"], hint="(steps and decaying take a number: steps:8)")

    def gated(self, gate: Gate) -> When:
        """The same where the gate fires."""
        return replace(self, gate=gate)

    @property
    def kind(self) -> str:
        """Its name among `WHENS`: what a backend claims or refuses."""
        if self.gate is not None:
            return "gate"
        if self.program is not None:
            return "program"
        if self.decay != 1.0:
            return "decaying"
        if self.positions is not None or (self.stop is not None and self.stop <= 1 and self.first != 0):
            return "prompt"
        if (self.first, self.stop) == (0, 1):
            return "last prompt token"
        if self.stop is not None or self.first not in (None, 0):
            return "steps"
        return "everywhere" if self.first is None else "every step"

    def description(self, base: Base) -> list[Part]:
        """Which of `WHENS`, and the numbers of those that have any."""
        parts = [Part(self.kind, one_of(len(WHENS)))]
        if self.kind not in ("everywhere", "last prompt token", "every step"):
            numbers = [self.first, self.stop, *(self.positions or ()), self.decay, *(self.program or ())]
            parts.append(Part("its steps and weights", sum(number(float(n)) for n in numbers if n is not None)))
        if self.gate is not None:
            parts.append(Part("its gate", float(FLOAT_BITS * numbers_in(self.gate))))
        return parts

    @property
    def unconditional(self) -> bool:
        """Whether it acts in the forward of every prompt, whatever comes after."""
        if self.gate is not None or self.program is not None:
            return False
        if self.positions is not None:
            return bool({0, -1} & set(self.positions))  # a prompt may be too short for the others
        return (self.first is None or self.first <= 0) and (self.stop is None or self.stop > 0)

    def weight(self, frame: Frame) -> float | Float[Tensor, "rows pos"]:
        """The weight of each position of a forward, gate aside; padding weighs 0."""
        if frame.step is not None:
            return self._at(frame.step)
        if self.positions is not None and frame.lengths is None:
            return 0.0
        if self.positions is not None:
            inside = torch.zeros(frame.steps.shape, dtype=torch.bool, device=frame.steps.device)
            assert frame.lengths is not None
            for position in self.positions:
                counted = 1 - frame.lengths if position >= 0 else 1  # from the first token, or from the last
                target = torch.as_tensor(counted + position, device=frame.steps.device)
                inside |= (frame.steps == target.reshape(-1, 1)) & (frame.steps <= 0)
            weight = inside.float()
        else:
            low = frame.steps >= self.first if self.first is not None else torch.ones_like(frame.steps).bool()
            weight = (low if self.stop is None else low & (frame.steps < self.stop)).float()
            if self.decay != 1.0 and self.first is not None:
                weight = weight * self.decay ** (frame.steps - self.first).clamp(min=0).float()
            if self.program is not None and self.first is not None:
                tables = self.__dict__.setdefault(TABLES, {})  # once a device: a captured step reads no host value
                if weight.device not in tables:
                    tables[weight.device] = torch.tensor([*self.program, 0.0], device=weight.device)
                weight = weight * tables[weight.device][(frame.steps - self.first).clamp(0, len(self.program))]
        return weight if frame.valid is None else weight * frame.valid

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != TABLES}  # what is sent away is data

    def _at(self, step: int) -> float:
        """The weight at a step after the prompt's own forward."""
        if self.positions is not None or (self.first is not None and step < self.first):
            return 0.0
        if self.stop is not None and step >= self.stop:
            return 0.0
        if self.program is not None and self.first is not None:
            return self.program[step - self.first] if step - self.first < len(self.program) else 0.0
        return self.decay ** (step - self.first) if self.first is not None and self.decay != 1.0 else 1.0
