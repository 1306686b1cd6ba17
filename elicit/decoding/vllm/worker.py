"""Methods that vLLM adds to its worker for the engine, beside those that steer."""

from __future__ import annotations

from typing import Any

from elicit.decoding.decoders import Greedy, Sampling, decoder_from_dict
from elicit.decoding.vllm.calls import CALLS, Call
from steering.backends.vllm_worker import SteeringExtension


class EngineExtension(SteeringExtension):
    """Called through `collective_rpc`."""

    def choosing_begin(self, call: int, decoder: dict[str, Any], opened: int, unlisted: list[int]) -> None:
        """Choose the tokens of the requests that carry this call's number, until `choosing_end`."""
        described = decoder_from_dict(decoder)
        assert isinstance(described, Greedy | Sampling)
        CALLS[call] = Call(described, opened, unlisted, self.model_runner.device)

    def choosing_end(self, call: int) -> bytes:
        """What was kept of each token (`Call.packed`)."""
        return CALLS.pop(call).packed()
