"""How tokens are chosen and kept: the loop, its states, the decoders, and the traces of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.lazy import lazily

if TYPE_CHECKING:
    from elicit.decoding.decoders import Branching as Branching
    from elicit.decoding.decoders import Decoder as Decoder
    from elicit.decoding.decoders import Forced as Forced
    from elicit.decoding.decoders import Greedy as Greedy
    from elicit.decoding.decoders import Hybrid as Hybrid
    from elicit.decoding.decoders import Power as Power
    from elicit.decoding.decoders import PowerRollouts as PowerRollouts
    from elicit.decoding.decoders import Quiet as Quiet
    from elicit.decoding.decoders import Sampling as Sampling
    from elicit.decoding.decoders import Tools as Tools
    from elicit.decoding.loop import Generation as Generation
    from elicit.decoding.loop import Policy as Policy
    from elicit.decoding.loop import StopRule as StopRule
    from elicit.decoding.loop import decode as decode
    from elicit.decoding.trace import Trace as Trace

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Branching": "elicit.decoding.decoders",
        "Decoder": "elicit.decoding.decoders",
        "Forced": "elicit.decoding.decoders",
        "Quiet": "elicit.decoding.decoders",
        "Greedy": "elicit.decoding.decoders",
        "Hybrid": "elicit.decoding.decoders",
        "Power": "elicit.decoding.decoders",
        "PowerRollouts": "elicit.decoding.decoders",
        "Sampling": "elicit.decoding.decoders",
        "Tools": "elicit.decoding.decoders",
        "Generation": "elicit.decoding.loop",
        "Policy": "elicit.decoding.loop",
        "StopRule": "elicit.decoding.loop",
        "decode": "elicit.decoding.loop",
        "Trace": "elicit.decoding.trace",
    },
)
