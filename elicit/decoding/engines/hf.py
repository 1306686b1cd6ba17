"""The reference engine: the loop of this suite on a model of `transformers`, with hooks where rows are steered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from elicit.decoding.decoders import DECODERS, Power, PowerRollouts, Quiet, Tools
from elicit.decoding.engine import STATISTICS, Batch, Can, Engine, check_delivery, named
from elicit.decoding.loop import Generation, OnStep, decode
from elicit.decoding.power import power_samples
from elicit.decoding.quiet import quiet_answers
from elicit.decoding.rollouts import rollout_samples
from elicit.decoding.tools import tool_answers
from elicit.decoding.trial import way_of
from probes.errors import UserError
from probes.finite import NotFiniteError
from steering.adapters import applied
from steering.backends import Claims
from steering.editor import Editor
from steering.hooks import attached
from steering.interventions import Plan

# Decoders whose answers take several calls of the loop.
SEVERAL = {Power: power_samples, PowerRollouts: rollout_samples, Tools: tool_answers, Quiet: quiet_answers}


class HuggingFaceEngine(Engine):
    """Everything that the suite can do."""

    name = "hf"
    can = Can(frozenset(DECODERS), frozenset(STATISTICS), Claims(), adapters=True, training=True)

    @property
    def how(self) -> str:
        return way_of(self.model.lm)

    def computed(self, batch: Batch) -> AbstractContextManager[None]:
        """Around the decoding of a batch, its adapter on: how the model's layers are computed meanwhile."""
        return nullcontext()

    def decode(self, batch: Batch, on_step: OnStep | None = None) -> list[list[Generation]]:
        lm = self.model.lm
        with applied(lm, batch.adapter), self.computed(batch):
            several = SEVERAL.get(type(batch.decoder))
            if several is not None:
                with checked(batch, None):
                    return several(self.model, batch, on_step)
            policy = batch.policy(self.model)
            steered = attached(lm, batch.plans, of_row=batch.arm_of, lengths=batch.lengths)
            with (
                steered if batch.steered else nullcontext() as session,
                checked(batch, None if session is None else session.editor),
            ):
                return decode(
                    lm, batch.prompts, policy, max_new_tokens=batch.decoder.max_new_tokens, stop=batch.stop,
                    steering=session, on_step=on_step, unlisted=self.model.unlisted, budgets=batch.budgets,
                    listeners=batch.listeners, trunk=batch.trunk,
                )  # fmt: skip


@contextmanager
def checked(batch: Batch, editor: Editor | None) -> Iterator[None]:
    """Around the decoding of a batch: an error names its arm, and what was delivered is checked."""
    try:
        yield
    except NotFiniteError as error:
        number = 0 if batch.arm_of is None else batch.arm_of[error.row]
        name, plan = batch.arms[number]
        raise error.of(name, _cure(plan, editor, number)) from None
    if editor is not None:
        check_delivery(batch, [editor.delivery(number) for number in range(len(batch.arms))])


def _cure(plan: Plan, editor: Editor | None, number: int) -> str:
    """What helps a steered row, or "" where the dtype is to be named."""
    if not plan or editor is None:
        return ""
    if editor.delivery(number).not_finite:
        try:
            editor.delivery(number).check(named(plan))
        except UserError as error:
            return str(error)
    return f"lower the strength of {named(plan)}, or give dtype bfloat16 or float32"
