"""How likely continuations are under a handle: its adapter on, its interventions at the steps that they name.

Of a context and its continuation all but the last token is computed, in one forward. Rows are padded at their left and
masked, and whoever steers is told where each prompt ends; so a plan for the last prompt token acts on the context's
last token, and one for later steps on the continuation's, as if that were being written. Requests that differ in the
last token alone, at the same end of the prompt, share a row.

In float32 the log-probability of a dozen tokens is rounded by some 1e-5 nats, in another way in each shape of a batch.
Texts that are computed `alone` are rounded as the model's own forward of each is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.engine import named
from elicit.decoding.ready import check_ready
from elicit.elicited import Elicited
from probes.batching import BATCH_TOKENS, by_length, check_embedded, inputs, padding_is_unseen
from probes.errors import UserError
from probes.finite import check_logits, errors_of
from probes.likelihood import output_logits
from probes.sites import decoder
from steering.adapters import applied
from steering.hooks import attached

POSITIONS = 256  # whose logits are held at a time


class Pair(NamedTuple):
    """Token ids of a context and of what follows it, each at least one."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


class Likelihood(NamedTuple):
    """The log-probability of a continuation, and whether each of its tokens is the likeliest one."""

    logprob: float
    greedy: bool


def fitting(context: Sequence[int], continuation: Sequence[int], positions: int, cut: bool) -> Pair:
    """A pair that a model has positions for.

    Args:
        positions: that it has.
        cut: whether a context that is too long loses its beginning.

    Raises:
        UserError: it is too long, and is not to be cut, or its continuation alone is; nothing is to be scored.
    """
    if not continuation:
        raise UserError("a continuation without a token was given; mend the task's choice or target that is empty")
    room = positions + 1 - len(continuation)  # the last token is not computed
    if len(context) > room and (not cut or room < 1):
        raise UserError(
            f"a context of {len(context)} tokens and a continuation of {len(continuation)} were given, and there are "
            f"{positions} positions; give fewer examples, or truncate=true to cut contexts at their beginning"
        )
    return Pair(tuple(context)[-room:] if len(context) > room else tuple(context), tuple(continuation))


@torch.inference_mode()
def likelihoods(
    handle: Elicited,
    pairs: Sequence[Pair],
    batch_tokens: int = BATCH_TOKENS,
    alone: bool = False,
    on_batch: Callable[[list[tuple[int, Likelihood]]], None] = lambda found: None,
) -> list[Likelihood]:
    """The likelihood of each continuation after its context.

    Args:
        handle: whose adapter and interventions act; its decoder has no part in it.
        pairs: as `fitting` gives them.
        batch_tokens: of one forward, at most, where there is more than one row.
        alone: whether each text has a forward of its own, the model's whole one.
        on_batch: called after each forward with the numbers of its pairs and what was found.

    Raises:
        UserError: hybrid decoding; interventions that moved nothing, or made NaN; more tokens than positions.
        NotFiniteError: logits that are NaN or infinite.
    """
    check_scored(handle)
    if not pairs:
        return []
    lm = handle.model.lm
    sharing: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for number, (context, continuation) in enumerate(pairs):
        sharing.setdefault(((*context, *continuation[:-1]), len(context)), []).append(number)
    texts, prompts = [text for text, _ in sharing], [length for _, length in sharing]
    check_embedded(lm, texts, handle.model.tokenizer)
    check_ready(lm, max(map(len, texts)))
    out: list[Likelihood | None] = [None] * len(pairs)
    numbers = list(sharing.values())
    plan = handle.interventions
    steered = attached(lm, [plan]) if plan else nullcontext()
    with errors_of(handle.method), applied(lm, handle.adapter), steered as session:
        for batch in by_length(texts, 1 if alone else batch_tokens, ragged=alone or padding_is_unseen(lm)):
            if session is not None:
                session.clock.given = torch.tensor([prompts[i] for i in batch])
            found: list[tuple[int, Likelihood]] = []
            if alone:
                logits = lm(input_ids=torch.tensor([texts[batch[0]]], device=lm.device), use_cache=False).logits
                check_logits(logits, lm.dtype, "the logits of given texts")
            else:
                hidden = decoder(lm)(**inputs(lm, [texts[i] for i in batch]), use_cache=False)[0]
            for row, i in enumerate(batch):
                said = [pairs[n].continuation for n in numbers[i]]
                last = slice(-len(said[0]), None)
                parts = logits[0, last].float().split(POSITIONS) if alone else _parts(lm, hidden[row, last])
                found += zip(numbers[i], _of_row(parts, said), strict=True)
            for n, likelihood in found:
                out[n] = likelihood
            on_batch(found)
        if session is not None:
            session.editor.delivery().check(named(plan))
    return [one for one in out if one is not None]


def check_scored(handle: Elicited) -> None:
    """Refuse a handle under which a text has no likelihood.

    Raises:
        UserError: hybrid decoding.
    """
    if handle.partner is not None:
        raise UserError(
            f"{handle.method} decodes with a partner, which chooses among steered tokens as they are written: a given "
            "text has no likelihood; give tasks of output_type generate_until"
        )


def _parts(lm: PreTrainedModel, normed: Float[Tensor, "tokens d_model"]) -> Iterator[Float[Tensor, "some vocab"]]:
    return (output_logits(lm, some) for some in normed.split(POSITIONS))


def _of_row(parts: Iterable[Float[Tensor, "some vocab"]], said: Sequence[Sequence[int]]) -> list[Likelihood]:
    """Of each continuation, all of as many tokens, from the logits that choose its tokens."""
    tokens = torch.tensor(said)
    logprob, greedy = torch.zeros(len(said), dtype=torch.float64), torch.ones(len(said), dtype=torch.bool)
    for logits, some in zip(parts, tokens.split(POSITIONS, dim=1), strict=True):
        logprobs = logits.log_softmax(-1)
        logprob += logprobs[torch.arange(len(logprobs)), some.to(logits.device)].double().sum(-1).cpu()
        greedy &= (logprobs.argmax(-1).cpu() == some).all(-1)
    return [Likelihood(*one) for one in zip(logprob.tolist(), greedy.tolist(), strict=True)]
