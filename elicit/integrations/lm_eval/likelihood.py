"""How likely continuations are under a handle: its adapter on, its interventions at the steps that they name.

Of a context and its continuation all but the last token is computed, in one forward. Rows are padded at their left and
masked, and whoever steers is told where each prompt ends; so a plan for the last prompt token acts on the context's
last token, and one for later steps on the continuation's, as if that were being written. Requests that differ in the
last token alone, at the same end of the prompt, share a row.

In float32 a log-probability is rounded by 1e-5 to 1e-4 nats, and otherwise where attention is masked or a product has
few rows, for which there are other kernels. So in float32 on a CPU texts of one length stand together, nothing padded,
and the output head is given `HEAD_ROWS` rows at least: where a processor rounds all products alike that have as many
rows (MKL's with AVX-512 does, with AVX2 alone it does not), a text of as many tokens is rounded as in a forward of its
own, whatever stands beside it. Texts that are computed `alone` are so everywhere.
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
HEAD_ROWS = 32  # tried: products of fewer than 4, 12 or 16 rows are rounded otherwise, as processor and threads are


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
        exact = lm.device.type == "cpu" and lm.dtype == torch.float32
        ragged = alone or (not exact and padding_is_unseen(lm))
        for batch in by_length(texts, 1 if alone else batch_tokens, ragged=ragged):
            if session is not None:
                session.clock.given = torch.tensor([prompts[i] for i in batch])
            said = [[pairs[n].continuation for n in numbers[i]] for i in batch]
            counts = [len(some[0]) for some in said]
            if alone:
                logits = lm(input_ids=torch.tensor([texts[batch[0]]], device=lm.device), use_cache=False).logits
                check_logits(logits, lm.dtype, "the logits of given texts")
                parts: Iterable[Tensor] = (part.float() for part in _split(logits[0, -counts[0] :]))
            else:
                hidden = decoder(lm)(**inputs(lm, [texts[i] for i in batch]), use_cache=False)[0]
                parts = _logits(lm, torch.cat([row[-count:] for row, count in zip(hidden, counts, strict=True)]))
            found = list(zip([n for i in batch for n in numbers[i]], _likelihoods(parts, said), strict=True))
            for n, likelihood in found:
                out[n] = likelihood
            on_batch(found)
        if session is not None:
            session.editor.delivery().check(named(plan))
    return [one for one in out if one is not None]


def check_scored(handle: Elicited) -> None:
    """Refuse a handle under which a text has no likelihood.

    Raises:
        UserError: hybrid decoding, quiet thoughts.
    """
    if handle.mixing is not None:
        raise UserError(
            f"{handle.method} thinks before tokens as it writes them: a given text has no likelihood here; give tasks "
            "of output_type generate_until"
        )
    if handle.partner is not None:
        raise UserError(
            f"{handle.method} decodes with a partner, which chooses among steered tokens as they are written: a given "
            "text has no likelihood; give tasks of output_type generate_until"
        )


def _split(positions: Tensor) -> Sequence[Tensor]:
    """In equal parts of at most `POSITIONS`."""
    return positions.tensor_split(-(-len(positions) // POSITIONS))


def _logits(lm: PreTrainedModel, normed: Float[Tensor, "targets d_model"]) -> Iterator[Float[Tensor, "some vocab"]]:
    for some in _split(normed):
        yield output_logits(lm, some.repeat(-(-HEAD_ROWS // len(some)), 1))[: len(some)]


def _likelihoods(
    parts: Iterable[Float[Tensor, "some vocab"]], said: Sequence[Sequence[Sequence[int]]]
) -> list[Likelihood]:
    """Of each text's continuations, which are of one length, from the logits that choose their tokens, text by text."""
    most = max(map(len, said))
    tokens = torch.cat([torch.tensor([*some, *[some[0]] * (most - len(some))]).T for some in said])
    logprobs, likeliest = [], []
    for logits, own in zip(parts, _split(tokens), strict=True):
        logprobs.append(logits.log_softmax(-1).gather(1, own.to(logits.device)).double().cpu())
        likeliest.append(logits.argmax(-1).cpu())
    counts = [len(some[0]) for some in said]
    greedy = tokens == torch.cat(likeliest)[:, None]
    out = []
    for some, nats, same in zip(said, torch.cat(logprobs).split(counts), greedy.split(counts), strict=True):
        totals, likely = nats.sum(0)[: len(some)].tolist(), same.all(0)[: len(some)].tolist()
        out += [Likelihood(*one) for one in zip(totals, likely, strict=True)]
    return out
