"""Answers within which the model calls tools that are itself, each in a context of its own (arXiv 2506.12115).

How a question is answered, and the departures from the paper, stand at `elicit.decoding.tools`, which the engines call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from elicit.decoding.decoders.sampling import RngStream
from elicit.decoding.loop import Policy
from probes.description import Base, Part, one_of, stated
from probes.errors import UserError, unknown

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
FRAME = 32  # tokens around a tool's result, about


@dataclass(frozen=True)
class Tools:
    """A model with tools.

    Args:
        tools: of each its name and its instruction.
        reads: names of those that are given the attempt so far beside the question.
        schedule: names of tools that are called in this order whatever the model writes; none: it calls them itself.
        calls: the most of a question.
        call_tokens: limit of what a tool says.
        temperature: of all that is drawn; 0: the most likely tokens.
        seed: of all random numbers.
        max_new_tokens: of the answer itself, all that is written between calls together.
        others: questions of which each call is given one in place of its own (a control); none: its own.
    """

    tools: tuple[tuple[str, str], ...]
    reads: tuple[str, ...] = ()
    schedule: tuple[str, ...] = ()
    calls: int = 4
    call_tokens: int = 128
    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = 256
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if not NAME.fullmatch(name) or self.names.count(name) > 1:
                raise UserError(f"a tool named {name!r} was given; give small letters, digits and _, each name once")
        for name in (*self.reads, *self.schedule):
            if name not in self.names:
                raise unknown("tool", name, self.names)
        for name, ok, expected in (
            ("tools", bool(self.tools), "at least one"),
            ("calls", self.calls >= 1, "at least 1"),
            ("schedule", len(self.schedule) <= self.calls, f"at most {self.calls} names, or more calls"),
            ("call_tokens", self.call_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "0 (the most likely tokens) or more"),
        ):
            if not ok:
                raise UserError(f"{name} = {getattr(self, name)} was given to cognitive tools; give {expected}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.tools)

    @property
    def branches(self) -> int:
        return 1

    @property
    def most_calls(self) -> int:
        return len(self.schedule) or self.calls

    @property
    def most_tokens(self) -> int:
        """Of an answer with the results of all its calls, about: what its context has to hold beside the prompt."""
        return self.max_new_tokens + self.most_calls * (self.call_tokens + FRAME)

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """None: an answer is decoded in many pieces.

        Raises:
            UserError: always.
        """
        raise UserError("cognitive tools have no policy of one pass over an answer; decode them by the hf engine")

    def description(self, base: Base) -> list[Part]:
        texts = (text for tool in self.tools for text in tool)
        said = [Part(f"{text!r}", base.text(text)) for text in (*texts, *self.others)]
        named = Part(
            "tools that read, and that are scheduled", len((*self.reads, *self.schedule)) * one_of(len(self.tools))
        )
        return [*stated(self, "calls", "call_tokens", "temperature"), *said, named]
