"""Forwards that are compared: whole texts and cached decoding, single and padded, with the stream between blocks.

The same tokens are run each time. Cached steps are those of `generate` itself, to which the tokens are dictated: its
cache, its masks and its positions are the ones that a user's own call has.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel

from probes.sites import Site, blocks, depth, on_site
from steering.backends.huggingface import own_settings_out


@dataclass(frozen=True)
class Batch:
    """Rows of a forward, padded at one side.

    Args:
        ids: token ids, padding included.
        mask: false at padding.
        pad: the token that stands there.
        forced: tokens that are dictated to `generate`; None: a whole forward.
    """

    ids: Int[Tensor, "rows pos"]
    mask: Bool[Tensor, "rows pos"]
    pad: int
    forced: Int[Tensor, "rows steps"] | None = None

    @property
    def real(self) -> Bool[Tensor, "rows all_pos"]:
        """Where the stream of a pass is that of a token; cached steps too (the last dictated token is never read)."""
        if self.forced is None:
            return self.mask
        read = torch.ones(len(self.ids), self.forced.shape[1] - 1, dtype=torch.bool)
        return torch.cat([self.mask, read], 1)


@dataclass(frozen=True)
class Pass:
    """What a pass computed.

    Args:
        stream: the residual stream into each block and out of the last one, cached steps after the prompt.
        logprobs: log-probabilities of the next token, fp32: of a whole forward at each position, else of each step.
        calls: what was given, where that was asked for: to each block in a whole forward, else to the model in each
            forward of the decoding, with the cache as it was before.
    """

    stream: list[Tensor]
    logprobs: Float[Tensor, "rows pos vocab"]
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]


def batch(
    rows: Sequence[Sequence[int]], pad: int, side: str = "left", forced: Sequence[Sequence[int]] | None = None
) -> Batch:
    """Rows padded at a side, with the tokens that are dictated."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        place = slice(longest - len(tokens), longest) if side == "left" else slice(0, len(tokens))
        ids[row, place] = torch.tensor(list(tokens))
        mask[row, place] = True
    return Batch(ids, mask, pad, None if forced is None else torch.tensor([list(one) for one in forced]))


class _Dictated(LogitsProcessor):
    """Leaves one token a row: the next one of those that are dictated."""

    def __init__(self, tokens: Int[Tensor, "rows steps"], start: int) -> None:
        self.tokens, self.start = tokens, start

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        wanted = self.tokens[:, input_ids.shape[1] - self.start, None].to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, wanted, 0.0)


def end_tokens(lm: PreTrainedModel) -> list[int]:
    """Ids at which `generate` would end."""
    out: set[int] = set()
    for config in (lm.generation_config, lm.config):
        found = getattr(config, "eos_token_id", None)
        out |= set(found if isinstance(found, list) else [] if found is None else [found])
    return sorted(out)


def continuation(lm: PreTrainedModel, prompt: Sequence[int], steps: int, pad: int) -> list[int]:
    """The unsteered model's greedy tokens, ends left out: what all passes then read."""
    given = batch([prompt], pad)
    made = _generate(lm, given, _config(steps, pad, suppress_tokens=end_tokens(lm) or None))
    return made.sequences[0, len(prompt) :].tolist()


@torch.no_grad()
def run(lm: PreTrainedModel, given: Batch, *, calls: bool = False) -> Pass:
    """One pass over a batch: a whole forward without a cache, or a decoding from one."""
    asked = () if not calls else blocks(lm) if given.forced is None else (lm,)
    with _recorded(lm, asked) as (forwards, kept):
        if given.forced is None:
            ids, mask = given.ids.to(lm.device), given.mask.to(lm.device)
            more: dict[str, Any] = {}
            if "position_ids" in signature(lm.forward).parameters:
                more["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
            logits = lm(input_ids=ids, attention_mask=mask.long(), use_cache=False, **more).logits
        else:
            dictated = _Dictated(given.forced, given.ids.shape[1])
            made = _generate(lm, given, _config(given.forced.shape[1], given.pad), [dictated])
            logits = torch.stack(made.logits, 1)
    return Pass([torch.cat(each, 1) for each in forwards], logits.float().log_softmax(-1).cpu(), kept)


def _config(steps: int, pad: int, **more: Any) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=steps, do_sample=False, num_beams=1, use_cache=True, pad_token_id=pad, output_logits=True,
        return_dict_in_generate=True, **more,
    )  # fmt: skip


def _generate(
    lm: PreTrainedModel, given: Batch, config: GenerationConfig, processors: list[LogitsProcessor] | None = None
) -> Any:
    run_it: Any = lm.generate
    with own_settings_out(lm):
        return run_it(
            given.ids.to(lm.device), attention_mask=given.mask.long().to(lm.device), generation_config=config,
            logits_processor=processors or [],
        )  # fmt: skip


@contextmanager
def _recorded(lm: PreTrainedModel, asked: Iterable[nn.Module]) -> Iterator[tuple[list[list[Tensor]], list[Any]]]:
    """Lists of the stream at each point, a tensor a forward, and what modules were given: hooks that are placed after
    those that are checked."""
    last = depth(lm) - 1
    seen: list[list[Tensor]] = [[] for _ in range(last + 2)]
    kept: list[Any] = []

    def keep(point: int) -> Any:
        def hook(h: Tensor) -> None:
            seen[point].append(h.detach().cpu().clone())

        return hook

    def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module is lm:
            kept.append(copy.deepcopy((args, kwargs)))  # its cache is written to
        else:
            kept.append((tuple(one.clone() if isinstance(one, Tensor) else one for one in args), dict(kwargs)))

    handles = [on_site(lm, Site(layer, "resid_pre"), keep(layer)) for layer in range(last + 1)]
    handles.append(on_site(lm, Site(last, "resid_post"), keep(last + 1)))
    handles += [module.register_forward_pre_hook(call, with_kwargs=True) for module in asked]
    try:
        yield seen, kept
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def written(lm: PreTrainedModel, plain: Pass, steered: Pass) -> list[Float[Tensor, "_ _ _"]]:
    """What was added to the stream at each point, and not by a block that read an earlier change: each block is given
    once more, without hooks, what it was given in the steered pass."""
    out = [steered.stream[0].float() - plain.stream[0].float()]
    for point, (block, (args, kwargs)) in enumerate(zip(blocks(lm), steered.calls, strict=True), 1):
        again = block(*args, **kwargs)
        again = again[0] if isinstance(again, tuple) else again
        out.append(steered.stream[point].float() - again.cpu().float())
    return out


@torch.no_grad()
def written_when_cached(lm: PreTrainedModel, steered: Pass) -> list[Float[Tensor, "_ _ _"]]:
    """The same of a decoding from a cache: each of its forwards once more, without hooks, from the cache that it had,
    and with each block given what it was given then."""
    last = depth(lm) - 1
    out: list[list[Tensor]] = [[] for _ in range(last + 2)]
    at = 0
    for args, kwargs in steered.calls:
        stream = [one[:, at:] for one in steered.stream]

        def exchanged(point: int, stream: list[Tensor] = stream) -> Any:
            def hook(h: Tensor) -> Tensor:
                then = stream[point][:, : h.shape[1]]
                out[point].append(then.float() - h.cpu().float())
                return then.to(h)

            return hook

        with ExitStack() as stack:
            for layer in range(last + 1):
                stack.callback(on_site(lm, Site(layer, "resid_pre"), exchanged(layer)).remove)
            stack.callback(on_site(lm, Site(last, "resid_post"), exchanged(last + 1)).remove)
            lm(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        at += out[0][-1].shape[1]
    return [torch.cat(each, 1) for each in out]
