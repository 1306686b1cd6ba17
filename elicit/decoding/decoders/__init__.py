"""Decoders: each is a frozen description that opens a `Policy` for a batch of the one decoding loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from elicit.decoding.decoders.branching import Branching
from elicit.decoding.decoders.elsewhere import Elsewhere
from elicit.decoding.decoders.forced import Forced
from elicit.decoding.decoders.greedy import Greedy
from elicit.decoding.decoders.hybrid import Hybrid
from elicit.decoding.decoders.mode_gate import ModeGate
from elicit.decoding.decoders.power import Power, PowerRollouts
from elicit.decoding.decoders.quiet import Quiet
from elicit.decoding.decoders.sampling import RngStream, Sampling
from elicit.decoding.decoders.tools import Tools
from elicit.decoding.loop import Policy
from probes.errors import unknown


@runtime_checkable
class Decoder(Protocol):
    """A decoder is data: it can be saved, compared and hashed; its policy holds what one batch needs."""

    @property
    def max_new_tokens(self) -> int:
        """Limit of each branch."""
        ...

    @property
    def branches(self) -> int:
        """How many branches it opens for each question."""
        ...

    def policy(self, rng_streams: Sequence[RngStream | str], vocab_size: int) -> Policy:
        """Choose tokens for these prompts, in this order, each with its random numbers or its item's id."""
        ...


DECODERS: dict[str, type[Any]] = {
    "greedy": Greedy,
    "branching": Branching,
    "sampling": Sampling,
    "hybrid": Hybrid,
    "power": Power,
    "power-rollouts": PowerRollouts,
    "tools": Tools,
    "forced": Forced,
    "quiet": Quiet,
    "mode-gate": ModeGate,
}
ELSEWHERE = "elsewhere"  # of runs that were read from another program's log: no engine has it
_READ = {**DECODERS, ELSEWHERE: Elsewhere}


def decoder_name(decoder: Decoder) -> str:
    return next(name for name, cls in _READ.items() if type(decoder) is cls)


LATER = {"often": ()}  # written only where it says something, so that what was made before keeps its identity


def most_tokens(decoder: Decoder) -> int:
    """Tokens that may stand behind a prompt, about: the limit, what tools put in, a quiet thought."""
    if isinstance(decoder, Tools):
        return decoder.most_tokens
    return decoder.max_new_tokens + (decoder.beside if isinstance(decoder, Quiet) else 0)


def decoder_to_dict(decoder: Decoder) -> dict[str, Any]:
    given = asdict(decoder)  # type: ignore[call-overload]
    kept = {key: value for key, value in given.items() if key not in LATER or value != LATER[key]}
    return {"name": decoder_name(decoder), **kept}


def decoder_from_dict(data: dict[str, Any]) -> Decoder:
    arguments = {key: _as_tuples(value) for key, value in data.items()}  # JSON has no tuples
    name = str(arguments.pop("name"))
    if name not in _READ:
        raise unknown("decoder", name, DECODERS)
    return _READ[name](**arguments)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


__all__ = [
    "DECODERS",
    "ELSEWHERE",
    "Branching",
    "Decoder",
    "Elsewhere",
    "Forced",
    "Greedy",
    "Hybrid",
    "ModeGate",
    "Power",
    "PowerRollouts",
    "Quiet",
    "RngStream",
    "Sampling",
    "Tools",
    "decoder_from_dict",
    "decoder_name",
    "decoder_to_dict",
    "most_tokens",
]
