"""How likely given continuations are, without logits of any other position."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.batching import batchable, by_length, inputs, left_pad, may_be_ragged, trial_texts
from probes.errors import UserError
from probes.finite import check_logits
from probes.sites import decoder, paused

# Of Gemma, RecurrentGemma and xLSTM.
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


HEAD_TOLERANCE = 0.02  # of the logits' spread: bf16 rounds a product of another number of rows otherwise


class Head(NamedTuple):
    """What a model does with the products of its output head: times `scale`, soft-capped at `cap`, if at all, and of
    the first `vocab` tokens alone, if not of all."""

    scale: float
    cap: float | None
    vocab: int | None = None


_TRIED: weakref.WeakKeyDictionary[PreTrainedModel, Head] = weakref.WeakKeyDictionary()


def output_head(lm: PreTrainedModel) -> Head:
    """From the configuration: Cohere's `logit_scale`, Falcon-H1's `lm_head_multiplier`, Granite's `logits_scaling` (by
    which HyperCLOVA X multiplies, and others divide), Inkling's `logits_mup_width_multiplier` and
    `unpadded_vocab_size`; the cap by each of its names (`CAPS`). Tried once with each model.

    Raises:
        UserError: the model's own logits are others.
    """
    config: Any = lm.config.get_text_config(decoder=True)
    scaling = getattr(config, "logits_scaling", None) or getattr(config, "logits_mup_width_multiplier", None) or 1
    scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    scale = scale or (scaling if config.model_type.startswith("hyperclovax") else 1 / scaling)
    cap = next((cap for cap in (getattr(config, name, None) for name in CAPS) if cap), None)
    head = Head(float(scale), cap, getattr(config, "unpadded_vocab_size", None))
    if _TRIED.get(lm) != head:
        _check_head(lm, head)
        _TRIED[lm] = head
    return head


def are_same_logits(found: Float[Tensor, "*pos vocab"], own: Float[Tensor, "*pos vocab"]) -> bool:
    """Whether logits differ by what rounding may do."""
    return bool((found - own).norm() <= HEAD_TOLERANCE * (own - own.mean()).norm())


@torch.no_grad()
def _check_head(lm: PreTrainedModel, head: Head) -> None:
    """Compare a few logits with the model's own."""
    ids = torch.tensor(trial_texts(lm)[1:], device=lm.device)
    hidden: list[Tensor] = []
    handle = decoder(lm).register_forward_hook(lambda _, __, out: hidden.append(out[0]))
    devices = [] if lm.device.type == "cpu" else [lm.device]
    try:
        with paused(lm), torch.random.fork_rng(devices, device_type=lm.device.type if devices else "cuda"):
            own = lm(input_ids=ids, use_cache=False).logits[0].float()
    finally:
        handle.remove()
    weight: Any = lm.get_output_embeddings().weight
    if hidden[-1].shape[-1] == weight.shape[-1]:
        found = _logits(lm, head, hidden[-1][0])
        if not own.isfinite().all():
            return  # whoever asks will meet it
        if found.shape == own.shape and are_same_logits(found, own):
            return
    raise UserError(
        f"{type(lm).__name__} does more to its logits than its output head, a scale and a cap; it can be decoded, and "
        "neither trained nor asked how likely a given text is: use another base"
    )


def output_logits(lm: PreTrainedModel, normed: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos vocab"]:
    """Output head, scale and soft-capping of the model, on what its final norm returned; fp32.

    Raises:
        NotFiniteError: logits that are NaN or infinite.
        UserError: as `output_head`.
    """
    logits = _logits(lm, output_head(lm), normed)
    check_logits(logits, lm.dtype, "the logits of given texts")
    return logits


def _logits(lm: PreTrainedModel, head: Head, normed: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos vocab"]:
    embeddings: Any = lm.get_output_embeddings()
    if embeddings.weight.is_floating_point():  # Mamba's residual stream is fp32, whatever its weights are
        normed = normed.to(embeddings.weight.dtype)
    logits = embeddings(normed)[:, : head.vocab]
    logits = logits if head.scale == 1 else logits * head.scale
    return (logits if head.cap is None else torch.tanh(logits / head.cap) * head.cap).float()


class TargetLoss(NamedTuple):
    """Cross-entropy (nats, fp32) of each target token, and the text it belongs to."""

    loss: Float[Tensor, " targets"]
    row: Int[Tensor, " targets"]


def target_losses(lm: PreTrainedModel, texts: Sequence[Sequence[int]], lengths: Sequence[int]) -> TargetLoss:
    """The cross-entropy of the tokens after each prompt, in one batch (one a length where the model sees padding).

    A text's first token is none of them, also where no token is prompt: nothing chooses it.

    Args:
        lm: a causal LM of `transformers`; gradients flow where they are asked for.
        texts: token ids of prompts with their continuations.
        lengths: how many tokens of each text are prompt.
    """
    parts = []
    for some in batchable(lm, texts):
        batch = left_pad([texts[i] for i in some], lm.device)
        hidden = decoder(lm)(**inputs(lm, batch), use_cache=False)[0]
        first = torch.tensor([max(1, lengths[i]) for i in some], device=lm.device)[:, None]
        target = ((batch.positions >= first) & batch.mask)[:, 1:]
        logits = output_logits(lm, hidden[:, :-1][target])
        loss = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][target], reduction="none")
        parts.append(TargetLoss(loss, torch.tensor(some, device=lm.device)[target.nonzero()[:, 0]]))
    if len(parts) == 1:
        return parts[0]
    losses, rows = (torch.cat(one) for one in zip(*parts, strict=True))
    order = rows.argsort(stable=True)
    return TargetLoss(losses[order], rows[order])


@torch.inference_mode()
def next_probabilities(
    lm: PreTrainedModel, texts: Sequence[Sequence[int]], batch_size: int = 64
) -> Iterator[Float[Tensor, "texts vocab"]]:
    """The distribution of the token after each text, batch by batch, in the order given; fp32."""
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        together = batchable(lm, batch)
        last = torch.cat(
            [decoder(lm)(**inputs(lm, [batch[i] for i in some]), use_cache=False)[0][:, -1] for some in together]
        )
        order = torch.tensor([i for some in together for i in some], device=last.device).argsort()
        yield output_logits(lm, last[order]).softmax(-1)


@torch.inference_mode()
def mean_losses(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    batch_size: int = 32,
    before: Callable[[Sequence[int]], None] | None = None,
) -> list[float | None]:
    """The mean cross-entropy a target token of each text, in batches; None where a text has no target token.

    `before` is called before each forward with the numbers of its texts: who follows the forwards learns their rows.
    """
    counts = [len(text) - max(1, length) for text, length in zip(texts, lengths, strict=True)]
    order = [i for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])) if counts[i] > 0]
    out: list[float | None] = [None] * len(texts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for together in batchable(lm, [texts[i] for i in batch]):
            some = [batch[n] for n in together]
            if before is not None:
                before(some)
            found = target_losses(lm, [texts[i] for i in some], [lengths[i] for i in some])
            total = torch.zeros(len(some), device=found.loss.device).index_add_(0, found.row, found.loss)
            for i, value in zip(some, total.tolist(), strict=True):
                out[i] = value / counts[i]
    return out


class Chosen(NamedTuple):
    """Of the distribution that chose each token of a continuation: its likeliest token and its entropy (nats)."""

    argmax: Int[Tensor, " tokens"]
    entropy: Float[Tensor, " tokens"]


@torch.inference_mode()
def continuations(
    lm: PreTrainedModel, texts: Sequence[Sequence[int]], lengths: Sequence[int], batch_tokens: int = 4096
) -> list[Chosen]:
    """What a model would have said at each token after each prompt, in batches; logits are kept for 256 at a time.

    Args:
        texts: token ids of prompts with their continuations.
        lengths: how many tokens of each text are prompt, at least one.
    """
    out: list[Chosen | None] = [None] * len(texts)
    for rows in by_length(texts, batch_tokens, ragged=may_be_ragged(lm, texts)):
        batch = left_pad([texts[i] for i in rows], lm.device)
        hidden = decoder(lm)(**inputs(lm, batch), use_cache=False)[0]
        first = torch.tensor([lengths[i] for i in rows], device=lm.device)[:, None]
        target = ((batch.positions >= first) & batch.mask)[:, 1:]
        argmax, entropy = [], []
        for normed in hidden[:, :-1][target].split(256):
            logits = output_logits(lm, normed)
            argmax.append(logits.argmax(-1))
            entropy.append(torch.distributions.Categorical(logits=logits, validate_args=False).entropy())
        counts = target.sum(1).tolist()
        parts = zip(*(torch.cat(v).cpu().split(counts) for v in (argmax, entropy)), strict=True) if argmax else ()
        for i, (likeliest, nats) in zip(rows, parts, strict=True):
            out[i] = Chosen(likeliest, nats)
    assert all(one is not None for one in out)
    return [one for one in out if one is not None]


def repeated_fraction(tokens: Sequence[int], n: int = 4) -> float:
    """seq-rep-n: the fraction of n-grams that came before in the same text (arXiv 1908.04319, eq. 9); 0 below n
    tokens."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
