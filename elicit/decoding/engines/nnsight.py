"""nnsight as an engine: its `generate`, interleaved with what plans do, here or on a server that holds the model.

Here the decoder's policy chooses among the logits of each step. A server is sent plans and no code of `elicit`, so that
it decodes greedily; tokens are ended and measured when they are back.
"""

from __future__ import annotations

import warnings

import torch

from elicit.decoding.engine import STATISTICS, Batch, Can, Engine, check_delivery
from elicit.decoding.engines.generated import Chooser, replayed, rows_of
from elicit.decoding.engines.hf import checked
from elicit.decoding.loop import Generation, OnStep
from elicit.decoding.ready import check_prompts
from elicit.models.model import Model
from probes.batching import left_pad
from probes.errors import UserError
from steering.backends.nnsight import STOPPED_EARLY, Carrier, NNsight


class NNsightEngine(Engine):
    """Everything but adapters, training and hybrid decoding. Each branch computes its prompt."""

    name = "nnsight"
    can = Can(frozenset({"greedy", "sampling", "branching", "forced"}), frozenset(STATISTICS), NNsight.claims)

    def __init__(self, model: Model, nnsight: NNsight | None = None) -> None:
        super().__init__(model)
        self.nnsight = nnsight or self.opened()

    def opened(self) -> NNsight:
        """The model wrapped by nnsight; weights are shared."""
        return NNsight(self.model.lm, self.model.tokenizer)

    @torch.no_grad()
    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        lm, limit = self.model.lm, batch.decoder.max_new_tokens
        check_prompts(lm, batch.prompts, limit, batch.stop.tokenizer)
        rows = rows_of(batch)
        ids, mask, _ = left_pad(rows.texts)
        given, model = {"input_ids": ids, "attention_mask": mask.long()}, self.nnsight.model
        carrier = Carrier(self.nnsight.places(rows), rows.plans, rows.of_row, mask, rows.lengths, lm.device)
        chooser = Chooser(self.model, batch, lambda: carrier.moved, on_step)
        with checked(batch, carrier.editor if batch.steered else None), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=STOPPED_EARLY)
            with model.generate(**chooser.arguments(self.model.vocab_size)) as tracer:  # noqa: SIM117
                with tracer.invoke(given):  # a statement of its own, which nnsight reads as source
                    for step in tracer.iter[:limit]:
                        carrier.forward(step)
        self.nnsight.delivery = carrier.editor.delivery()
        return chooser.finished


class RemoteEngine(NNsightEngine):
    """Greedy decoding on NDIF, of a model of the hub that it holds; interventions travel."""

    name = "nnsight-remote"
    can = Can(frozenset({"greedy"}), frozenset(STATISTICS), NNsight.claims)
    remote: bool | str = True

    def opened(self) -> NNsight:
        """The model's name wrapped by nnsight; with `remote = "local"` the model, packed as if it were to travel."""
        if self.remote == "local":
            return NNsight(self.model.lm, self.model.tokenizer, remote=self.remote)
        kind, _, name = self.model.provenance.source.partition(" ")
        if kind != "hub":
            raise UserError(f"{self.model.name} is no model of the hub, so no server holds it; use the nnsight engine")
        return NNsight(name, self.model.tokenizer, remote=self.remote)

    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        limit = batch.decoder.max_new_tokens
        check_prompts(self.model.lm, batch.prompts, limit, batch.stop.tokenizer)
        out = self.nnsight.generate(
            batch.rows, max_new_tokens=limit, eos_ids=sorted(batch.stop.eos_ids), never=self.model.unlisted
        )
        if batch.steered:
            check_delivery(batch, out.deliveries)
        with checked(batch, None):
            return replayed(self.model, batch, out.tokens, out.logits, out.moved)
