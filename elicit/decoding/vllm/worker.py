"""Methods that vLLM adds to its worker for the engine, beside those that steer."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from elicit.decoding.decoders import Greedy, Sampling, decoder_from_dict
from elicit.decoding.thought import Thought
from elicit.decoding.vllm.calls import CALLS, Call
from steering.backends.vllm_worker import SteeringExtension


class EngineExtension(SteeringExtension):
    """Called through `collective_rpc`."""

    def choosing_begin(
        self,
        call: int,
        decoder: dict[str, Any],
        opened: int,
        unlisted: list[int],
        budget: int = 0,
        tokenizer: str = "",
        begun: list[tuple[str, list[int]]] | None = None,
    ) -> None:
        """Choose the tokens of the requests that carry this call's number, until `choosing_end`.

        Args:
            call, decoder, opened, unlisted: as `Call` has them.
            budget: tokens of thought; 0: none is ended.
            tokenizer: a folder that holds it, where there is a budget.
            begun: for each row the mark that its prompt ends in, or "", and what it has written of its answer.
        """
        described = decoder_from_dict(decoder)
        assert isinstance(described, Greedy | Sampling)
        thoughts = None
        if budget:
            words = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)

            def thoughts(row: int) -> Thought:
                assert begun is not None
                mark, written = begun[row]
                thought = Thought(words, budget, mark)
                for token in written:
                    thought.read(token)
                return thought

        CALLS[call] = Call(described, opened, unlisted, self.model_runner.device, thoughts)

    def choosing_end(self, call: int) -> bytes:
        """What was kept of each token (`Call.packed`)."""
        return CALLS.pop(call).packed()
