"""The graph engine: steps that never leave the device, one CUDA graph each where there is a GPU, rows refilled.

It decodes greedily, in branches and by sampling, with plans, SAE features and adapters, models whose attention can be
exchanged (`elicit.decoding.graph.fit` tries each). All else goes to the reference, and the run says what and why.

In fp32 no token depends on which rows are computed together. In bf16 and fp16 some do by rounding, so a run keeps its
batches, and its samples are not those of `hf` where two logits are equal to their last bits.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType

import torch

from elicit.decoding.decoders import Branching, Forced, Greedy, ModeGate, Sampling, decoder_name
from elicit.decoding.engine import Batch, Engine
from elicit.decoding.engines.hf import HuggingFaceEngine, checked
from elicit.decoding.graph.fit import paged, reason_against
from elicit.decoding.graph.fused import Fused
from elicit.decoding.graph.schedule import Schedule
from elicit.decoding.loop import Generation, OnStep
from elicit.decoding.ready import check_prompts
from elicit.models.model import Model
from probes.clock import Count
from probes.errors import UserError
from steering.adapters import applied
from steering.hooks import attached

ROWS = 320  # in flight, unless the batch says fewer
OPTIONS = MappingProxyType({"fuse": False})
LOOK = 16  # steps between two looks on a GPU; on a CPU a look costs nothing


class GraphEngine(Engine):
    """Everything that the suite can do, some of it by the reference loop."""

    name = "graph"
    can = HuggingFaceEngine.can
    options = OPTIONS
    rounds = 8

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.reference = HuggingFaceEngine(model)
        self.graphs = model.lm.device.type == "cuda"
        self.every = LOOK if self.graphs else 1
        self.fuse: bool = {**self.options, **model.engine_options}["fuse"]

    @property
    def how(self) -> str:
        if against := reason_against(self.model.lm):
            return f"as hf, {self.reference.how}: {against}"
        graphs = "one CUDA graph a step" if self.graphs else f"no graphs on {self.model.lm.device.type}"
        return f"{graphs}, fused" if self.fuse else graphs

    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        if against := self._against(batch):
            self.note(f"decoded as hf: {against}")
            return [made for part in _parts(batch) for made in self.reference.decode(part, on_step)]
        check_prompts(self.model.lm, batch.prompts, batch.decoder.max_new_tokens, batch.stop.tokenizer)
        branches = batch.decoder.branches
        rows = max(branches, min(batch.rows_at_once or ROWS, branches * len(batch.prompts)))
        while True:
            try:
                return self._decoded(batch, rows, on_step)
            except torch.OutOfMemoryError:  # what its frames hold goes with it, before the next try
                lacked = rows
            if self.graphs:
                torch.cuda.empty_cache()
            device, rows = self.model.lm.device, max(branches, rows // 2)
            if rows == lacked:
                raise UserError(
                    f"{device} has no memory for {self.model.name} with {rows} rows of up to "
                    f"{batch.decoder.max_new_tokens} tokens; lower max_new_tokens or the branches of a prompt"
                )
            change = "" if self.model.dtype == "float32" else f", which in {self.model.dtype} may change a token"
            self.note(f"{device} had no memory left for {lacked} rows: decoded again with {rows}{change}")

    def _against(self, batch: Batch) -> str:
        """Why a batch goes to the reference, or ""."""
        if batch.stop.thought_tokens or isinstance(batch.decoder, Forced):
            return "where a thought is to end is seen in its text"
        if isinstance(batch.decoder, ModeGate):
            return "a gate chooses the first token"
        if not isinstance(batch.decoder, Greedy | Branching | Sampling):
            return f"{decoder_name(batch.decoder)} decoding looks into the cache of the reference"
        return reason_against(self.model.lm, steered=batch.steered)

    @torch.inference_mode()
    def _decoded(self, batch: Batch, rows: int, on_step: OnStep | None) -> list[list[Generation]]:
        """The batch with at most so many rows at once."""
        lm = self.model.lm
        with applied(lm, batch.adapter), paged(lm):
            plans = attached(lm, batch.plans, of_row=batch.arm_of, clock=Count(batch.lengths))
            with (
                plans if batch.steered else nullcontext() as session,
                checked(batch, None if session is None else session.editor),
            ):
                fused = Fused(lm) if self.fuse else None
                schedule = Schedule(
                    lm, batch, choices=self.model.choices, unlisted=self.model.unlisted, rows=rows,
                    every=self.every, graphs=self.graphs, steering=session, on_step=on_step,
                    fused=fused,
                )  # fmt: skip
                made = schedule.decode()
        if schedule.run.refused:
            self.graphs = False
            self.note(f"steps were computed without CUDA graphs: {schedule.run.refused}")
        for piece in fused.pieces if fused else ():
            if piece.refused:
                self.note(f"{piece.name} was not fused: {piece.refused}")
        return made


def _parts(batch: Batch) -> list[Batch]:
    """A batch of several rounds as the reference decodes it, round by round."""
    size = len(batch.prompts)
    if batch.rows_at_once is not None:
        size = max(1, batch.rows_at_once // batch.decoder.branches)
    given = ("prompts", "rng_streams", "arm_of", "lengths", "partner_prompts", "budgets", "listeners", "questions")
    parts = []
    for start in range(0, len(batch.prompts), size):
        some = {name: getattr(batch, name) for name in given}
        parts.append(replace(batch, **{n: v and v[start : start + size] for n, v in some.items()}))
    return parts
