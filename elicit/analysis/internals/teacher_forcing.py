"""Handles on the same texts: the residual stream, and the next-token distributions, position by position.

Texts are questions, each in the handle's own prompt, followed by one fixed answer. Positions are numbered by steps, so
that the same token is chosen at the same step whatever the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from elicit.analysis.continuations import applied_handle
from elicit.elicited import Elicited
from elicit.evaluation.run.arms import Arm
from elicit.tasks.base import Item
from probes.batching import batchable, by_length, inputs, may_be_ragged
from probes.capture import capture
from probes.likelihood import output_logits
from probes.sae.autoencoder import SAE
from probes.sites import Site, decoder, depth

SEGMENTS = ("first token", "quarter 1", "quarter 2", "quarter 3", "quarter 4")
MEASURES = ("KL", "argmax differs", "same where both leave", "chance of that")
A_QUARTER = 3  # positions that are read in each quarter of an answer
BATCH_TOKENS, BATCH_POSITIONS = 2048, 64
STREAM = 8  # positions a question whose activations give the residual stream's covariance
AGAIN = "again"


@dataclass(frozen=True, eq=False)
class Texts:
    """The questions and what follows each, for every handle alike."""

    items: tuple[Item, ...]
    answers: tuple[tuple[int, ...], ...]

    def of(self, handle: Elicited) -> tuple[list[list[int]], list[int]]:
        """Token ids of the texts in a handle's prompt, and how many of each are prompt."""
        prompts = [handle.prompt_ids(item) for item in self.items]
        return [[*p, *a] for p, a in zip(prompts, self.answers, strict=True)], [len(p) for p in prompts]


def reads(handle: Elicited, base: Elicited) -> str:
    """Why a handle shifts nothing on a given text, or ""."""
    if not handle.has_forward:
        return "does not apply: hybrid decoding steers, and quiet thoughts are mixed in, while it decodes"
    if handle.adapter is None and not handle.interventions and handle.prompt == base.prompt:
        return "does not apply: it changes the decoding alone"
    return ""


def states(
    handle: Elicited, texts: Texts, sae: SAE | None = None
) -> tuple[Float[np.ndarray, "items layers d_model"], Float[np.ndarray, "samples layers d_model"], Any]:
    """Mean activations over the steps of each answer, some single ones, and mean SAE features (None without one)."""
    lm = handle.model.lm
    sites = [Site(layer) for layer in range(depth(lm))]
    features = [sae.site] if sae is not None and sae.site not in sites else []
    ids, lengths = texts.of(handle)
    means: list[Any] = [None] * len(ids)
    raised_by: list[Any] = [None] * len(ids)
    single = []
    with applied_handle(handle) as before_forward:
        for batch in by_length(ids, BATCH_TOKENS, ragged=may_be_ragged(lm, ids)):  # one forward of `capture`
            before_forward([lengths[i] for i in batch])
            acts = capture(
                lm, [ids[i] for i in batch], [*sites, *features], lengths=[lengths[i] for i in batch],
                steps=(0, None), batch_tokens=BATCH_TOKENS, dtype=torch.float32,
            )  # fmt: skip
            assert acts is not None
            for row, item in enumerate(batch):
                here = acts.row == row
                stack = torch.stack([acts.values[site][here] for site in sites], dim=1)  # [steps, layers, d_model]
                means[item] = stack.mean(0).numpy()
                spread = np.unique(np.linspace(0, len(stack) - 1, STREAM).round().astype(int))
                single.append(stack[spread].numpy())
                if sae is not None:
                    raised_by[item] = sae.encode(acts.values[sae.site][here]).mean(0).numpy()
    return np.stack(means), np.concatenate(single), None if sae is None else np.stack(raised_by)


def positions(length: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The steps that are read in an answer of so many tokens, and the segment that each belongs to (see `SEGMENTS`)."""
    steps, parts = [0], [0]
    edges = np.linspace(1, length, 5)
    for quarter in range(4):
        inside = np.arange(int(np.ceil(edges[quarter])), int(np.ceil(edges[quarter + 1])))
        if len(inside):
            some = np.unique(inside[np.linspace(0, len(inside) - 1, A_QUARTER).round().astype(int)])
            steps += some.tolist()
            parts += [quarter + 1] * len(some)
    return np.array(steps), np.array(parts)


@torch.inference_mode()
def logprobs(
    handle: Elicited, texts: Texts, batch: Sequence[int], ids: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Float[Tensor, "positions vocab"]:
    """Log-probabilities of the next token at the positions that are read, item by item."""
    lm = handle.model.lm
    found: dict[int, Tensor] = {}
    with applied_handle(handle) as before_forward:
        for together in batchable(lm, [ids[i] for i in batch]):
            some = [batch[n] for n in together]
            before_forward([lengths[i] for i in some])
            hidden = decoder(lm)(**inputs(lm, [ids[i] for i in some]), use_cache=False)[0]
            for i, row in zip(some, hidden, strict=True):
                first = hidden.shape[1] - len(ids[i]) + lengths[i] - 1
                found[i] = row[torch.as_tensor(first + positions(len(texts.answers[i]))[0], device=row.device)]
        return output_logits(lm, torch.cat([found[i] for i in batch])).log_softmax(-1)


def distributions(
    handles: dict[str, Elicited], texts: Texts, progress: Callable[[int, int], None] | None = None
) -> dict[tuple[str, str], dict[str, Float[np.ndarray, "items parts"]]]:
    """KL and argmax disagreement of every pair of handles by item and segment; NaN where an answer has no such segment.

    The first handle is the base. The pair with `AGAIN` holds the base against itself computed text by text: what
    rounding does. Logits of a few texts are held at a time.
    """
    base = next(iter(handles))
    encoded = {name: texts.of(handle) for name, handle in handles.items()}
    pairs = [(base, AGAIN), *combinations(handles, 2)]
    found = {pair: {m: np.full((len(texts.items), len(SEGMENTS)), np.nan) for m in MEASURES} for pair in pairs}
    batches = list(_few(texts, encoded[base][0]))
    for n, batch in enumerate(batches):
        if progress is not None:
            progress(n, len(batches))
        logs = {name: logprobs(handle, texts, batch, *encoded[name]) for name, handle in handles.items()}
        logs[AGAIN] = torch.cat([logprobs(handles[base], texts, [i], *encoded[base]) for i in batch])
        owner = np.concatenate([[i] * len(positions(len(texts.answers[i]))[0]) for i in batch])
        part = np.concatenate([positions(len(texts.answers[i]))[1] for i in batch])
        for one, other in pairs:
            for measure, values in compare(logs[one], logs[other], logs[base]).items():
                for i in batch:
                    for p in set(part[owner == i].tolist()):
                        some = values[(owner == i) & (part == p)]
                        if not np.isnan(some).all():
                            found[one, other][measure][i, p] = np.nanmean(some)
    return found


def compare(
    one: Float[Tensor, "positions vocab"],
    other: Float[Tensor, "positions vocab"],
    base: Float[Tensor, "positions vocab"],
) -> dict[str, Float[np.ndarray, " positions"]]:
    """What two distributions do at each position.

    KL is the mean of both directions. Where both leave the base's argmax: whether they take the same token, and the
    chance of it if each drew from the base's distribution without its argmax.
    """
    kl = ((one.exp() - other.exp()) * (one - other)).nan_to_num().sum(-1) / 2
    first, second, own = one.argmax(-1), other.argmax(-1), base.argmax(-1)
    left = (first != own) & (second != own)
    rest = base.exp().scatter(-1, own[:, None], 0.0)
    chance = (rest**2).sum(-1) / rest.sum(-1).clamp(min=1e-12) ** 2
    nan = torch.full_like(kl, float("nan"))
    values = (kl, (first != second).float(), torch.where(left, (first == second).float(), nan),
              torch.where(left, chance, nan))  # fmt: skip
    return {name: value.double().cpu().numpy() for name, value in zip(MEASURES, values, strict=True)}


def _few(texts: Texts, ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Batches of at most `BATCH_POSITIONS` positions whose distributions are held."""
    some = max(1, BATCH_POSITIONS // (1 + 4 * A_QUARTER))
    for batch in by_length(ids, BATCH_TOKENS):
        for start in range(0, len(batch), some):
            yield batch[start : start + some]


def chosen(arm: Arm, items: Sequence[Item]) -> dict[str, Float[np.ndarray, "items parts"]]:
    """Of the tokens that an arm chose: −log p under the base and whether it was not its argmax, by item and segment."""
    out = {name: np.full((len(items), len(SEGMENTS)), np.nan) for name in ("−log p", "not the argmax")}
    for n, trace in enumerate(arm.chosen([item.id for item in items])):
        steps, parts = positions(max(1, len(trace.tokens)))
        if not trace.tokens:
            continue
        surprise = -np.array(trace.logprob)[steps]
        other = np.exp(-surprise) < np.array(trace.top1)[steps] * (1 - 1e-5)
        for p in set(parts.tolist()):
            out["−log p"][n, p] = surprise[parts == p].mean()
            out["not the argmax"][n, p] = other[parts == p].mean()
    return out
