"""Which models are decoded here: those whose attention can be exchanged, and whose random twin then is right.

As in `elicit.decoding.trial`: the twin answers ragged prompts past its window, with one row and with several a prompt,
fewer at a time than there are, steered and not. Each token is as likely as the likeliest of the twin's own forward
without a cache, and the log-probability that is kept is that forward's.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from transformers import PreTrainedModel

from elicit.decoding.decoders.branching import Branching
from elicit.decoding.decoders.greedy import Greedy
from elicit.decoding.engine import Batch
from elicit.decoding.graph.paged_cache import PAGED_ATTENTION
from elicit.decoding.graph.schedule import Schedule
from elicit.decoding.loop import Generation, StopRule
from elicit.decoding.packed_weights import packed
from elicit.decoding.trial.checks import STEPS, Finding, Rows, added, attempt, middle, tried, vector
from elicit.decoding.trial.found import way_of
from elicit.decoding.trial.twin import twin
from probes.clock import Count
from probes.sites import paused
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, Plan, When

SMALL_PAGE = 4  # several a row within the twin's few steps
AT_ONCE = 2  # prompts in flight, of three


@contextmanager
def paged(lm: PreTrainedModel) -> Iterator[None]:
    """The model with the attention that reads pages, and with packed weights where those are faster."""
    before = lm.config._attn_implementation
    lm.set_attn_implementation(PAGED_ATTENTION)
    try:
        with packed(lm):
            yield
    finally:
        lm.set_attn_implementation(before)


_AGAINST: weakref.WeakKeyDictionary[PreTrainedModel, dict[bool, str]] = weakref.WeakKeyDictionary()


def reason_against(lm: PreTrainedModel, *, steered: bool = False) -> str:
    """Why a model is not decoded here, or "".

    Raises:
        UserError: it can be decoded in no way at all.
    """
    known = _AGAINST.setdefault(lm, {})
    if steered not in known:
        known[steered] = _found(lm, steered)
    return known[steered]


def _found(lm: PreTrainedModel, steered: bool) -> str:
    if len({parameter.device for parameter in lm.parameters()}) > 1:
        return "its weights lie on several devices"
    if (way := way_of(lm, steered=steered)) != "shared-prefix":
        return f"{type(lm).__name__} is decoded {way}"
    small = attempt(lambda: twin(lm))
    if isinstance(small, Finding):
        return f"no twin of {type(lm).__name__} can be tried: {small.reason}"
    with paused(lm):
        finding = tried(partial(off, small, steered=steered))
    return "" if finding.right else f"a twin of {type(lm).__name__} is decoded {finding}"


@torch.inference_mode()
def off(lm: PreTrainedModel, *, steered: bool = False) -> float:
    """How far log-probabilities are from those of the model's own forward without a cache, the largest difference."""
    prompts = Rows.of(lm).prompts
    ids = [str(n) for n in range(len(prompts))]
    worst = 0.0
    for decoder in (Greedy(STEPS), Branching(2, STEPS)):
        batch = Batch(prompts, ids, decoder, StopRule(frozenset()))
        steering = attached(lm, [_push(lm)], clock=Count()) if steered else nullcontext()
        with paged(lm), steering as session:
            made = Schedule(
                lm, batch, choices=len(lm.get_input_embeddings().weight), rows=AT_ONCE * decoder.branches, every=2,  # type: ignore[union-attr,arg-type]
                graphs=False, steering=session, page=SMALL_PAGE,
            ).decode()  # fmt: skip
        for prompt, branches in zip(prompts, made, strict=True):
            with added(lm, len(prompt)) if steered else nullcontext():
                worst = max(worst, *(_off(lm, prompt, one_branch) for one_branch in branches))
    return worst


def _push(lm: PreTrainedModel) -> Plan:
    return (Intervention(Add(Direction(vector(lm), middle(lm))), when=When.every_step()),)


def _off(lm: PreTrainedModel, prompt: list[int], made: Generation) -> float:
    tokens = made.tokens.tolist()
    logits = lm(input_ids=torch.tensor([[*prompt, *tokens[:-1]]], device=lm.device), use_cache=False).logits
    own = torch.log_softmax(logits[0, -len(tokens) :].float(), -1).cpu()
    chosen = own.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    kept = (chosen - torch.from_numpy(made.logprob)).abs().max()
    behind = (own.amax(-1) - chosen)[1:].max()  # a branch's first token is not the likeliest
    return float(torch.maximum(kept, behind))
