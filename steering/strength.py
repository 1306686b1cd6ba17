"""The strength at which a plan moves next-token distributions by a given KL, so that plans are compared at one size.

Vectors of one length are not alike to a model: it reads some dimensions of the residual stream and passes over others.
Here the size of a plan is KL(steered ‖ unsteered) of the next-token distributions, in nats, on texts that have nothing
to do with what it is for, with the plan in place at every position, whenever it is to act otherwise; of the positions,
the first of each text aside, the 95th percentile: most texts do not care, and what breaks a model shows in the tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probes.batching import batchable, inputs, left_pad
from probes.errors import UserError
from probes.likelihood import output_logits
from probes.sites import decoder
from steering.hooks import attached
from steering.interventions import Add, Plan, SetFeature, When

QUANTILE = 0.95
DOUBLINGS = 30  # of the strength, up or down, until the budget lies between two
CLOSE = 0.01  # of the budget


def parse_budgets(text: str) -> list[float]:
    """Budgets in nats, joined by commas; none of an empty text.

    Raises:
        UserError: no distinct positive numbers.
    """
    try:
        out = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"kl {text!r} was given; give numbers of nats like 0.1,0.5") from error
    if not all(0 < nats < math.inf for nats in out) or len(set(out)) < len(out):
        raise UserError(f"kl {text!r} was given; give distinct positive numbers of nats")
    return out


@torch.inference_mode()
def logprobs(
    lm: PreTrainedModel, texts: Sequence[Sequence[int]], lengths: Sequence[int], plan: Plan = ()
) -> Float[Tensor, "targets vocab"]:
    """Log-probabilities (fp32) where each token after a text's first `lengths` is chosen, the plan in place; one batch
    (one a length where the model sees padding), text after text."""
    found: dict[int, Tensor] = {}
    for some in batchable(lm, texts):
        batch, given = left_pad([texts[i] for i in some], lm.device), [lengths[i] for i in some]
        with attached(lm, [plan], lengths=given) if plan else nullcontext():
            hidden = decoder(lm)(**inputs(lm, batch), use_cache=False)[0]
        chosen = ((batch.positions >= torch.tensor(given, device=lm.device)[:, None]) & batch.mask)[:, 1:]
        found |= zip(some, hidden[:, :-1][chosen].split(chosen.sum(1).tolist()), strict=True)
    return output_logits(lm, torch.cat([found[i] for i in range(len(texts))])).log_softmax(-1)


def kl(steered: Float[Tensor, "n vocab"], plain: Float[Tensor, "n vocab"]) -> Float[Tensor, " n"]:
    """KL(steered ‖ unsteered) of each position, from log-probabilities; nats."""
    return (steered.exp() * (steered - plain)).sum(-1).clamp(min=0)


def plain_kl(
    lm: PreTrainedModel, plan: Plan, texts: Sequence[Sequence[int]], plain: Float[Tensor, "n vocab"] | None = None
) -> float:
    """The size of a plan, as said above.

    Args:
        lm: the model.
        plan: what is done to it.
        texts: token ids, at least three each.
        plain: what `logprobs` says of the same texts with `lengths` of 2, where it is known.
    """
    lengths = [2] * len(texts)
    before = logprobs(lm, texts, lengths) if plain is None else plain
    everywhere = tuple(replace(one, when=When.everywhere()) for one in plan)
    return float(kl(logprobs(lm, texts, lengths, everywhere), before).quantile(QUANTILE))


def at_kl(lm: PreTrainedModel, plan: Plan, nats: float, texts: Sequence[Sequence[int]]) -> Plan:
    """The plan at the strength whose `plain_kl` is so many nats, within 1% (or as near as the model's dtype lets it).

    The strength is sought by doubling and bisection from the plan's own, whose sign it keeps.

    Raises:
        UserError: a budget that is not positive, an intervention that is not silent at strength 0 or does nothing on
            such texts, a budget that no strength reaches.
    """
    if not 0 < nats < math.inf:
        raise UserError(f"a budget of {nats} nats was given; give a positive number")
    for one in plan:
        if not isinstance(one.what, Add | SetFeature):
            raise UserError(f"a strength by KL was asked of {one.kind!r}, whose size no strength sets; add or set")
    plain = logprobs(lm, texts, [2] * len(texts))

    def scaled(by: float) -> Plan:
        return tuple(one.times(by) for one in plan)

    def size(by: float) -> float:
        return plain_kl(lm, scaled(by), texts, plain)

    low, high = 1.0, 1.0
    above = size(1.0) >= nats
    for _ in range(DOUBLINGS):
        low, high = (low / 2, low) if above else (high, high * 2)
        if (size(low) < nats) if above else (size(high) >= nats):
            break
    else:
        raise UserError(
            f"no strength from {low:g} to {high:g} times the given one moves plain text by {nats:g} nats "
            f"({size(low):.3g} to {size(high):.3g}); give another budget, or another intervention"
        )
    middle = high
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        found = size(middle)
        if abs(found - nats) <= CLOSE * nats:
            break
        low, high = (middle, high) if found < nats else (low, middle)
    return scaled(middle)
