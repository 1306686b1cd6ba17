"""Fast against slow answers, layer by layer: where do the two prompts diverge, and which layers carry it?

arXiv 2507.18178 reads from similarity curves that knowledge sits low and reasoning high. Two fast prompts that say the
same in other words diverge layer by layer too, so every curve here has that null.

- CKA of the last prompt token's activations between the fast prompt ("answer at once") and the slow one ("think step
  by step"), beside that between the fast prompt and its paraphrases (`probes.similarity`).
- Causal patching at the last prompt token: the slow prompt's residual stream after a layer is put into the fast
  prompt's forward; the fraction of the way, in KL, that the next-token distribution goes to the slow prompt's. After
  the last layer it is 1 for any two prompts, which is why the curve alone places nothing; the null patches from the
  paraphrases.

All prompts end in the same tokens, and differ in the instruction that goes with the question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from elicit.analysis.base import Analysis
from elicit.analysis.internals.inputs import items_of, last_activations
from elicit.models.model import Model
from elicit.models.prompts import DIRECT_ANSWER, THINK, named_prompt
from elicit.models.zoo import task_for
from probes.batching import batchable, by_length, inputs
from probes.errors import UserError
from probes.likelihood import output_logits
from probes.similarity import cka_of, gram
from probes.sites import Site, decoder, depth, on_site
from probes.statistics import bootstrap_mean
from probes.sweep import Band, layer_sweep

NAME = "layers"
SUMMARY = "where fast and slow prompts diverge, by CKA and by patching, beside fast prompts in other words"
PAPER = "2507.18178"
OTHER_WORDS = ("Give the answer alone, right away.", "Say only the answer, without any steps.", "Just the answer, now.")
RESAMPLES, BATCH_TOKENS = 500, 2048
ResidualStream = Float[np.ndarray, "layers items d_model"]


def analyse(
    model: Model,
    *,
    task: str = "",
    split: str = "fit",
    limit: int = 64,
    prompt: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """CKA and patching by layer.

    Args:
        task, split, limit: the questions (without a task, the model's own).
        prompt: what the instructions are added to; the chat template where there is one, else `qa`.
        seed: of the bootstrap.

    Raises:
        UserError: several prompts, a few-shot prompt.
    """
    if len(prompt) > 1:
        raise UserError(f"{len(prompt)} prompts were given; give one, to which instructions are added")
    name = prompt[0] if prompt else "chat" if model.tokenizer.chat_template else "qa"
    plain = named_prompt(name, model.tokenizer)
    task = task or task_for(model.name)
    items = items_of(task, split, limit)
    asked = [plain.asked(words) for words in (DIRECT_ANSWER, THINK, *OTHER_WORDS)]
    ids = [[one.ids(item.question, model.tokenizer) for item in items] for one in asked]
    sites = [Site(layer) for layer in range(depth(model.lm))]
    read = []
    for texts in ids:
        acts = last_activations(model, texts, sites)
        read.append(np.stack([acts[site].double().numpy() for site in sites]))
    fast, slow, *others = read
    similar = similarity(fast, slow, others, seed=seed)
    effects = []
    for n, donor in enumerate((slow, *others)):

        def told(done: int, total: int, n: int = n) -> None:
            if progress is not None:
                progress("patching", n * total + done, (1 + len(others)) * total)

        effects.append(carried(model, ids[0], ids[n + 1], donor, told))
    causal = against(effects[0], effects[1:], seed=seed)
    table = [{"layer": layer, **_columns("CKA", similar, layer), **_columns("carried", causal, layer)}
             for layer in range(len(sites))]  # fmt: skip
    notes = [
        f"Last prompt token, {len(items)} questions of {task}: the fast prompt against the slow one, beside the fast "
        f"prompt against {len(others)} of its paraphrases. Only what goes beyond the paraphrases belongs to thinking.",
        "Carried: the fraction of the way (KL) to the slow prompt's next token that its residual stream after this "
        "layer brings into the fast prompt's forward; 1 after the last layer by construction.",
        "It does not show what a layer is for: a layer at which prompts diverge need not be where anything is worked "
        "out.",
    ]
    figure = _figure("CKA, fast against slow", similar, "CKA")
    effect = _figure("Carried by the last token's stream", causal, "fraction of the way")
    data = {"task": task, "prompt": name, "items": [item.id for item in items], "cka": similar, "carried": causal}
    return Analysis(NAME, table, figure, notes, data, [("Patching", "The same, causally.", effect)])


def similarity(
    fast: ResidualStream, slow: ResidualStream, others: Sequence[ResidualStream], *, seed: int = 0
) -> dict[str, list[float]]:
    """CKA of fast and slow by layer, the mean of that with the paraphrases, and how far the first lies below."""
    rng = np.random.default_rng(seed)
    n = fast.shape[1]
    draws = rng.integers(0, n, size=(RESAMPLES, n))
    draws = draws[[len(set(draw.tolist())) >= 4 for draw in draws]]
    rows = []
    for layer in range(len(fast)):
        k, l, *null = (gram(x[layer]) for x in (fast, slow, *others))  # noqa: E741

        def both(drawn: Any = None, k: Any = k, l: Any = l, null: Any = null) -> tuple[float, float]:  # noqa: E741
            return cka_of(k, l, drawn), float(np.mean([cka_of(k, other, drawn) for other in null]))

        resampled = np.array([both(draw) for draw in draws])
        rows.append(_row(*both(), resampled[:, 0], resampled[:, 1], np.array([cka_of(k, o) for o in null])))
    return {key: [row[key] for row in rows] for key in rows[0]}


def against(
    effect: Float[np.ndarray, "layers items"], nulls: Sequence[Float[np.ndarray, "layers items"]], *, seed: int = 0
) -> dict[str, list[float]]:
    """Mean effect by layer with that of the nulls and the difference, paired by question."""
    null = np.mean(nulls, axis=0)
    rows = []
    for layer, (own, other) in enumerate(zip(effect, null, strict=True)):
        row = _row(own.mean(), other.mean(), own, other, np.array([one[layer].mean() for one in nulls]))
        for name, values in (("", own), ("beyond ", own - other)):
            interval = bootstrap_mean(values, seed=seed, resamples=2000)
            row |= {f"{name}low": interval.low, f"{name}high": interval.high}
        rows.append(row)
    return {key: [row[key] for row in rows] for key in rows[0]}


def _row(value: float, null: float, drawn: np.ndarray, null_drawn: np.ndarray, spread: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    gap = np.quantile(drawn - null_drawn, [0.025, 0.975])
    return {
        "value": float(value), "low": float(low), "high": float(high), "null": float(null),
        "null low": float(spread.min()), "null high": float(spread.max()), "beyond": float(value - null),
        "beyond low": float(gap[0]), "beyond high": float(gap[1]),
    }  # fmt: skip


@torch.inference_mode()
def carried(
    model: Model,
    fast: Sequence[Sequence[int]],
    slow: Sequence[Sequence[int]],
    donor: ResidualStream,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Float[np.ndarray, "layers items"]:
    """For each layer and question 1 − KL(slow ‖ patched) / KL(slow ‖ fast); 0 where the two prompts say the same.

    Args:
        model: whose forwards they are.
        fast, slow: token ids of the prompts.
        donor: the slow prompts' residual stream at their last token.
        told: is told how many of the exchanged forwards are done.
    """
    out = np.zeros(donor.shape[:2])
    batches = list(by_length(fast, BATCH_TOKENS))
    for number, batch in enumerate(batches):
        own = _next(model, [fast[i] for i in batch])
        aim = _next(model, [slow[i] for i in batch])
        whole = _kl(aim, own)
        for layer in range(len(donor)):
            told(number * len(donor) + layer, len(batches) * len(donor))
            given = torch.from_numpy(donor[layer][batch]).to(model.lm.device, model.lm.dtype)
            left = _kl(aim, _next(model, [fast[i] for i in batch], layer, given))
            share = torch.where(whole > 1e-6, 1 - left / whole.clamp(min=1e-6), torch.zeros_like(whole))
            out[layer, batch] = share.double().cpu().numpy()
    return out


def _next(
    model: Model, texts: Sequence[Sequence[int]], layer: int | None = None, given: Tensor | None = None
) -> Float[Tensor, "rows vocab"]:
    """Log-probabilities after each text; with the last position's stream after a layer exchanged, if one is named."""
    lm = model.lm
    found: dict[int, Tensor] = {}
    some: list[int] = []
    handle = None
    if layer is not None:

        def put(h: Float[Tensor, "rows pos d_model"]) -> Tensor:
            assert given is not None
            changed = h.clone()
            changed[:, -1] = given[some].to(h.device)
            return changed

        handle = on_site(lm, Site(layer), put)
    try:
        for some in batchable(lm, texts):
            hidden = decoder(lm)(**inputs(lm, [texts[i] for i in some]), use_cache=False)[0]
            found |= zip(some, hidden[:, -1], strict=True)
    finally:
        if handle is not None:
            handle.remove()
    return output_logits(lm, torch.stack([found[i] for i in range(len(texts))])).log_softmax(-1)


def _kl(one: Float[Tensor, "rows vocab"], other: Float[Tensor, "rows vocab"]) -> Float[Tensor, " rows"]:
    return (one.exp() * (one - other)).nan_to_num().sum(-1)


def _columns(name: str, found: dict[str, list[float]], layer: int) -> dict[str, float]:
    return {f"{name} {key}" if key != "value" else name: found[key][layer]
            for key in ("value", "low", "high", "null", "beyond", "beyond low", "beyond high")}  # fmt: skip


def _figure(title: str, found: dict[str, list[float]], y: str) -> Any:
    return layer_sweep(
        {"slow against fast": Band(found["value"], found["low"], found["high"])},
        nulls={"null: fast in other words": Band(found["null"], found["null low"], found["null high"])},
        title=title, y=y,
    )  # fmt: skip
