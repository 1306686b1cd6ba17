"""TransformerLens as an engine: the loop of this suite on the modules of a `TransformerBridge`, steered at its hooks.

Attention, norms and hook points are TransformerLens's own; tokens are chosen and kept by the same code as ever. The
bridge wraps a copy of the weights, made when the model is first decoded: memory for a second model, and what is trained
or attached later is not in it.
"""

from __future__ import annotations

from elicit.decoding.engine import STATISTICS, Batch, Can, Engine
from elicit.decoding.engines.hf import checked
from elicit.decoding.loop import Generation, OnStep, decode
from elicit.models.model import Model
from steering.backends.lens import TransformerLens


class TransformerLensEngine(Engine):
    """Everything but adapters, training and hybrid decoding, which looks into the cache."""

    name = "transformer-lens"
    can = Can(frozenset({"greedy", "sampling", "branching", "forced"}), frozenset(STATISTICS), TransformerLens.claims)

    def __init__(self, model: Model, lens: TransformerLens | None = None) -> None:
        super().__init__(model)
        self.lens = lens or TransformerLens(model.lm, model.tokenizer)
        self.lens.check_steps()

    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        with self.lens.steered(batch.rows) as session, checked(batch, session.editor):
            return decode(
                self.lens.bridge.original_model, batch.prompts, batch.policy(self.model),
                max_new_tokens=batch.decoder.max_new_tokens, stop=batch.stop, steering=session, on_step=on_step,
                shared=False, unlisted=self.model.unlisted, listeners=batch.listeners,
            )  # fmt: skip
