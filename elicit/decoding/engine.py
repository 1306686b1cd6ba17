"""The door to decoding: prompts with what is done to each of them go in, generations come out.

What stands behind it is the loop of this suite (`elicit.decoding.loop`), with hooks where rows are steered.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from elicit.decoding.decoders import Decoder, Hybrid
from elicit.decoding.decoders.partner import Partner
from elicit.decoding.loop import Generation, Policy, Progress, StopRule, decode
from elicit.models.model import Model
from probes.errors import UserError
from probes.finite import NotFiniteError
from steering.hooks import Session, attached
from steering.interventions import Add, Plan, ProjectOut


@dataclass(frozen=True)
class Batch:
    """Prompts that are decoded together by one decoder; each belongs to an arm, whose plan it follows.

    Args:
        prompts: token ids of each, ragged.
        items: the id of each prompt's item, from which its random numbers are drawn.
        arms: a name and a plan each.
        arm_of: for each prompt the number of its arm.
        decoder: chooses the tokens.
        stop: where an answer ends.
        partner: of hybrid decoding, and of no other.
    """

    prompts: Sequence[Sequence[int]]
    items: Sequence[str]
    arms: Sequence[tuple[str, Plan]]
    arm_of: Sequence[int]
    decoder: Decoder
    stop: StopRule
    partner: Partner | None = None


def decode_batch(model: Model, batch: Batch, progress: Progress | None = None) -> list[list[Generation]]:
    """Decode a batch on a model whose adapter is on.

    Returns:
        For each prompt its branches.

    Raises:
        UserError: a plan that should have moved every prompt moved none.
        NotFiniteError: logits that are NaN or infinite, with the arm's name.
    """
    if batch.partner is not None:
        assert isinstance(batch.decoder, Hybrid)
        policy: Policy = batch.decoder.joint(model, batch.partner, batch.items)
    else:
        policy = batch.decoder.policy(batch.items, model.vocab_size)
    plans = [plan for _, plan in batch.arms]
    steered = attached(model.lm, plans, of_row=batch.arm_of) if any(plans) else nullcontext()
    with steered as session:
        try:
            out = decode(
                model.lm, batch.prompts, policy, max_new_tokens=batch.decoder.max_new_tokens, stop=batch.stop,
                steering=session, progress=progress,
            )  # fmt: skip
        except NotFiniteError as error:
            number = batch.arm_of[error.row]
            raise error.of(batch.arms[number][0], _cure(plans[number], session, number)) from None
    for number, plan in enumerate(plans):
        if not plan or session is None:
            continue
        delivery = session.editor.delivery(number)
        # These move every row. A feature that is silent leaves nothing to scale: of that one batch says nothing.
        sure = any(one.when.at_once and isinstance(one.what, Add | ProjectOut) for one in plan)
        if delivery.not_finite or (sure and not delivery.positions):
            delivery.check(_named(plan))
    return out


def _named(plan: Plan) -> str:
    return "the intervention " + " + ".join(f"{one.describe()['source']} × {one.strength:g}" for one in plan)


def _cure(plan: Plan, session: Session | None, number: int) -> str:
    """What helps a steered row, or "" where the dtype is to be told."""
    if not plan or session is None:
        return ""
    if session.editor.delivery(number).not_finite:
        try:
            session.editor.delivery(number).check(_named(plan))
        except UserError as error:
            return str(error)
    return f"lower the strength of {_named(plan)}, or give dtype bfloat16 or float32"
