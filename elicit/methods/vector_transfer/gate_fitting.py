"""What `vector-transfer` is fitted on: a thinking model's sentences, their categories, and gates that name them.

A taxonomy is found on sentences and asked for at single tokens, where it was never fitted: a known mistake. So what
decides while decoding is a classifier of tokens (`TokenLabels`), fitted on every position that chooses a token of a
sentence, with the sentence's category as its label; what it gets right on held-out texts is reported.

The distilled gate (`distil`) is a probe on the *base's* activations along the thinking model's texts: it is to fire
where the base's greedy token is not the thinking model's, and to name the category. With it no thinking model is
needed to decode.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from elicit.decoding.decoders.gates import ProbeGate, TokenLabels
from elicit.methods.vector_transfer.reasoning_traces import ReasoningTraces, TokenActivations
from probes.auroc import auroc
from probes.errors import UserError
from probes.likelihood import output_logits
from probes.sites import Site, decoder
from steering.categories.vectors import SAME
from steering.directions import Direction

HELD_OUT = 0.25  # of the texts, for the figures of classifiers
INVERSE_PENALTY = 0.1  # C of the logistic regressions, on standardised activations


def token_labels(
    read: TokenActivations, labels: Int[Tensor, " sentences"], seed: int
) -> tuple[TokenLabels, dict[str, Any]]:
    """Fit `TokenLabels`; and its accuracy on held-out texts beside the most frequent category's.

    Raises:
        UserError: one category alone, in all texts or in those that are not held out.
    """
    wanted = labels.numpy()[read.sentence]
    if len(np.unique(wanted)) < 2:
        raise UserError("all sentences are of one category; look for more categories, or give more questions")
    held = _held_out(read.text, seed)
    if len(np.unique(wanted[~held])) < 2:
        raise UserError("all sentences but those of held-out texts are of one category; give more questions (read=…)")
    probe = _logistic(read.x[~held], wanted[~held])
    right = float((probe.labels(read.x[held]).numpy() == wanted[held]).mean())
    often = float(np.bincount(wanted[held]).max() / held.sum())
    return _logistic(read.x, wanted), {"held_out_tokens": int(held.sum()), "accuracy": right, "most_frequent": often}


def _held_out(text: Int[np.ndarray, " n"], seed: int) -> np.ndarray:
    texts = np.unique(text)
    if len(texts) < 4:
        raise UserError(f"{len(texts)} thoughts were given to fit a classifier on; give at least 4 questions (read=…)")
    order = np.random.default_rng(seed).permutation(texts)
    return np.isin(text, order[: max(1, round(HELD_OUT * len(texts)))])


def _logistic(x: Float[Tensor, "n d"], wanted: Int[np.ndarray, " n"]) -> TokenLabels:
    from sklearn.linear_model import LogisticRegression

    center, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=500).fit(((x - center) / scale).numpy(), wanted)
    weight, bias = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if len(weight) == 1:  # of two classes scikit-learn keeps the second one's scores alone
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return TokenLabels(weight / scale, bias, center, tuple(int(c) for c in fitted.classes_))


def cross_model_difference(
    base: TokenActivations, partner: TokenActivations, labels: Int[Tensor, " sentences"], site: Site, norm: float
) -> dict[int, Direction]:
    """Cross-model difference of means: mean of partner − base at a category's positions, as long as
    the residual stream.

    A difference of means within the base (arXiv 2510.07364) says what its activations have in common where a category
    is due. Where the base would not do it at all, that is not what would make it: this is. It needs two models of one
    shape whose streams mean the same, as a model and what was trained from it.

    Args:
        base, partner: both models, read along the same texts at the site.
        labels: the category of each sentence.
        site: where.
        norm: of the base's residual stream there.

    Raises:
        UserError: models that do not differ there.
    """
    category = labels.numpy()[base.sentence]
    out = {}
    for c in np.unique(category):
        rows = torch.from_numpy(category == c)
        vector = (partner.x[rows] - base.x[rows]).mean(0)
        length = float(vector.norm())
        made = {"method": "thinking model − base", "positions": int(rows.sum()), "length before rescaling": length}
        if length < SAME * norm:
            raise UserError(f"base and thinking model have equal activations at {site}; give another model or layer")
        out[int(c)] = Direction(vector, site, f"category {c}", "raw", norm, None, made).normalized("resid")
    return out


@torch.inference_mode()
def greedy_along(lm: PreTrainedModel, thoughts: ReasoningTraces) -> list[Int[Tensor, " answer"]]:
    """The token that a model would choose at each position of the answers, given all that stands before it."""
    out = []
    for text, length in zip(thoughts.texts, thoughts.lengths, strict=True):
        hidden = decoder(lm)(input_ids=torch.tensor([text], device=lm.device), use_cache=False)[0]
        out.append(output_logits(lm, hidden[0, length - 1 : -1]).argmax(-1).cpu())
    return out


def distil(
    lm: PreTrainedModel,
    thoughts: ReasoningTraces,
    read: TokenActivations,
    labels: Int[Tensor, " sentences"],
    site: Site,
    seed: int,
    budget: float | None = None,
) -> tuple[ProbeGate, dict[str, Any]]:
    """Distil a gate on the base's own activations from the thinking model's decisions.

    Args:
        lm: the base.
        thoughts: the thinking model's texts, as the base reads them.
        read: the base along them, at the site.
        labels: the category of each sentence.
        site: where the base is read.
        seed: of the texts that are held out.
        budget: the fraction of positions at which it is to fire; as often as the models differ unless given.

    Returns:
        The gate, and on held-out texts how often the models differ, how often it fires, its precision, recall, AUROC
        and calibration error (10 bins).

    Raises:
        UserError: models that never or always differ there.
    """
    differs = torch.cat(
        [
            greedy[first - length : last - length] != torch.tensor(text[first:last])
            for greedy, text, length, spans in zip(
                greedy_along(lm, thoughts), thoughts.texts, thoughts.lengths, thoughts.spans, strict=True
            )
            for first, last in spans
        ]
    ).numpy()
    category, held = labels.numpy()[read.sentence], _held_out(read.text, seed)
    share = float(differs.mean()) if budget is None else budget

    def fitted(rows: np.ndarray) -> ProbeGate:
        wanted = {c: (differs & (category == c))[rows] for c in np.unique(category)}
        found = [c for c, due in wanted.items() if due.any() and not due.all()]
        if not found or not 0 < share < 1:
            where = "positions" if rows.all() else "positions outside held-out texts"
            raise UserError(
                f"base and thinking model differ at {differs[rows].mean():.0%} of {where}, budget {share:.0%}: there "
                "is nothing to gate; use gate='oracle'"
            )
        probes = [_logistic(read.x[rows], wanted[c].astype(int)) for c in found]
        weight = torch.stack([one.weight[1] - one.weight[0] for one in probes])
        bias = torch.stack([(one.bias - one.weight @ one.center).diff()[0] for one in probes])
        gate = ProbeGate(weight, bias, site, tuple(int(c) for c in found))
        return replace(gate, threshold=float(np.quantile(firing(gate, rows), 1 - share)))

    def firing(gate: ProbeGate, rows: np.ndarray) -> Float[np.ndarray, " n"]:
        """The likeliest category's probability, by which the gate fires."""
        return gate.probability(read.x[rows]).amax(1).numpy()

    tried = fitted(~held)
    p, true = firing(tried, held), differs[held]
    on = p > tried.threshold
    bins = np.clip((p * 10).astype(int), 0, 9)
    apart = sum(abs(p[bins == b].mean() - true[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    figures = {
        "differs": float(true.mean()), "fires": float(on.mean()), "auroc": auroc(p, true),
        "calibration_error": float(apart), "precision": float(true[on].mean()) if on.any() else None,
        "recall": float(on[true].mean()) if true.any() else None,
    }  # fmt: skip
    return fitted(np.ones_like(held)), figures
