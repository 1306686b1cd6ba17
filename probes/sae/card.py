"""What an SAE keeps of a model: the card, in groups and field names of SAEBench's core evaluation (arXiv 2503.09532).

At the measured positions of a text the activation h is replaced by x̂ = dec(enc(h)), by zero, and by the mean of the
measured activations; cross-entropy and KL are those of the token that each measured position chooses. So a card can be
made at the very position that will be steered (`steps=(0, 1)`) as well as on plain text.

Departures from SAEBench:

- explained variance is 1 − Σ‖x−x̂‖² / Σ‖x−mean‖² over all measured tokens, and mse is the mean of ‖x−x̂‖², as SAELens
  has them (SAEBench averages ratios, and divides mse by the tokens twice);
- the first position of each text and *massive* tokens (norm over ten times the median, arXiv 2402.17762) are left out:
  a few of them carry most of the variance;
- a latent is alive if it fires anywhere in the texts, measured position or not;
- scores against mean ablation stand beside those against zero ablation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from probes.batching import by_length, inputs, left_pad, may_be_ragged
from probes.clock import Clock
from probes.errors import UserError
from probes.finite import check_activations
from probes.likelihood import output_logits
from probes.sae.autoencoder import SAE
from probes.sites import check_site, decoder, on_site, width

MASSIVE = 10.0  # times the median norm
BATCH_TOKENS = 2048
CHUNK = 128  # positions whose latents or logits exist at one time
# Below these an SAE does not describe the model on these texts: groups and fields of a card.
FLOORS: dict[tuple[str, str], float] = {
    ("reconstruction_quality", "explained_variance"): 0.5,
    ("model_performance_preservation", "ce_loss_score"): 0.8,
    ("misc_metrics", "frac_alive"): 0.01,
}

Card = dict[str, dict[str, int | float | None]]
Steps = tuple[int | None, int | None]


def massive_limit(norms: Float[Tensor, " tokens"]) -> float:
    """The norm above which a token is massive, from the norms of all tokens but the first of each text."""
    return MASSIVE * float(norms.float().median()) if len(norms) else 0.0


def check_model(lm: PreTrainedModel, sae: SAE) -> None:
    """Refuse an SAE that cannot be of this model.

    Raises:
        UserError: another width, a layer or a hook point that the model lacks.
    """
    if sae.d_model != width(lm):
        raise UserError(
            f"SAE {sae.name!r} reads {sae.d_model} dimensions and {type(lm).__name__} has {width(lm)}; "
            "give an SAE of this model"
        )
    check_site(lm, sae.site, write=True)


def fit_check(card: Card, floors: Mapping[tuple[str, str], float] = FLOORS) -> list[str]:
    """What is below its floor, a line each; nothing where the SAE fits."""
    said = []
    for (group, field), floor in floors.items():
        value = card[group][field]
        if value is None:
            said.append(f"{field} is not defined on these texts: they are too few, or ablation does the model no harm")
        elif not value >= floor:
            said.append(f"{field} is {value:.3g}, below {floor:g}")
    return said


def similarity(sae: SAE) -> dict[str, float]:
    """The mean over latents of the largest cosine to any other latent, of encoders and of decoders."""
    return {
        "average_max_encoder_cosine_sim": _largest_cosine(sae.W_enc.T),
        "average_max_decoder_cosine_sim": _largest_cosine(sae.W_dec),
    }


def _largest_cosine(rows: Float[Tensor, "d_sae d_model"]) -> float:
    unit = functional.normalize(rows.float(), dim=-1)
    total = 0.0
    for start in range(0, len(unit), CHUNK):
        cosines = unit[start : start + CHUNK] @ unit.T
        cosines.diagonal(start).fill_(-1.0)
        total += float(cosines.amax(-1).sum())
    return total / len(unit)


class _Enough(Exception):
    """Raised at the site: what comes after it in the forward is not needed."""


class _Splice:
    """Forwards of batches of texts: activations at the SAE's site read, or replaced at some positions.

    After `run`: `h` [rows, pos, d_model] at the site, `ids`, and masks [rows, pos]: `valid` (no padding, not first),
    `first`, `asked` (of the steps that are measured).
    """

    h: Float[Tensor, "rows pos d_model"]
    ids: Int[Tensor, "rows pos"]
    first: Bool[Tensor, "rows pos"]
    valid: Bool[Tensor, "rows pos"]
    asked: Bool[Tensor, "rows pos"]

    def __init__(
        self, lm: PreTrainedModel, sae: SAE, texts: Sequence[Sequence[int]], lengths: Sequence[int], steps: Steps
    ) -> None:
        self.lm, self.texts, self.lengths, self.steps = lm, texts, lengths, steps
        self.limit = float("inf")
        self._put: tuple[Tensor, Tensor] | None = None
        self._read_only = False
        self.clock = Clock(lm)
        self._handle = on_site(lm, sae.site, self._hook)

    def __enter__(self) -> _Splice:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
        self.clock.remove()

    def read(self, batch: Sequence[int]) -> None:
        """Up to the site and no further."""
        self._read_only = True
        try:
            with suppress(_Enough):
                self.run(batch)
        finally:
            self._read_only = False

    def run(self, batch: Sequence[int]) -> Float[Tensor, "rows pos d_model"]:
        """What the output head is given."""
        self.clock.given = torch.tensor([self.lengths[i] for i in batch])
        rows = left_pad([self.texts[i] for i in batch], self.lm.device)
        ids, mask, positions = rows
        self.ids, self.first, self.valid = ids, mask & (positions == 0), mask & (positions > 0)
        out: Tensor = decoder(self.lm)(**inputs(self.lm, rows), use_cache=False)[0]
        return out

    def replaced(
        self, batch: Sequence[int], at: Bool[Tensor, "rows pos"], values: Float[Tensor, "measured d_model"]
    ) -> Float[Tensor, "measured d_model"]:
        """What the output head is given at the positions `at` when their activations are `values`."""
        self._put = at, values
        try:
            return self.run(batch)[at]
        finally:
            self._put = None

    @property
    def small(self) -> Bool[Tensor, "rows pos"]:
        """Where activations are not massive."""
        return self.h.float().norm(dim=-1) <= self.limit

    @property
    def measured(self) -> Bool[Tensor, "rows pos"]:
        return self.asked & self.valid & self.small

    def _hook(self, h: Tensor) -> Tensor | None:
        if self._put is not None:
            at, values = self._put
            out = h.clone()
            out[at] = values.to(h.device, h.dtype)
            return out
        frame = self.clock.frame
        assert frame is not None
        self.h = h.clone()  # later modules may write into what they are handed
        first, stop = self.steps
        self.asked = self.first | self.valid
        if first is not None:
            self.asked = self.asked & (frame.steps >= first)
        if stop is not None:
            self.asked = self.asked & (frame.steps < stop)
        if self._read_only:
            raise _Enough
        return None


@torch.inference_mode()
def sae_card(
    lm: PreTrainedModel,
    sae: SAE,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    steps: Steps = (None, None),
    batch_tokens: int = BATCH_TOKENS,
    similar: Mapping[str, float] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Card:
    """Measure an SAE on texts; memory does not grow with their number, and no logits of a whole batch exist.

    Args:
        lm: a causal LM of `transformers`.
        sae: what is measured.
        texts: token ids of prompts with their continuations.
        lengths: how many tokens of each text are prompt.
        steps: only steps [first, stop) are measured: (0, 1) is the last prompt token, where steering begins.
        batch_tokens: tokens of a batch, padding included.
        similar: what `similarity(sae)` gave, where it is known already.
        progress: called with the batches done, and of how many.

    Returns:
        The card: a dictionary a group; a score is None where ablation does no harm.

    Raises:
        UserError: an SAE that cannot be of this model, no texts, no position to measure.
    """
    check_model(lm, sae)
    if not texts or not all(len(text) for text in texts):
        raise UserError("no texts, or an empty one, were given to measure an SAE on; give token ids for each")
    batches = list(by_length(texts, batch_tokens, ragged=may_be_ragged(lm, texts)))
    with _Splice(lm, sae, texts, lengths, steps) as splice:
        norms = []
        for batch in batches:
            splice.read(batch)
            check_activations(splice.h[splice.first | splice.valid], sae.site)
            norms.append(splice.h.float().norm(dim=-1)[splice.valid].cpu())
        splice.limit = massive_limit(torch.cat(norms))
        mean, stats = _mean(splice, batches, sae.d_model)
        sums = _Sums(sae, mean)
        for n, batch in enumerate(batches):
            _measure(splice, batch, sums)
            if progress is not None:
                progress(n + 1, len(batches))
    return sums.card(stats, similarity(sae) if similar is None else similar)


def _mean(splice: _Splice, batches: Sequence[Sequence[int]], d_model: int) -> tuple[Tensor, dict[str, int]]:
    """The mean of the measured activations, and how many there are and were left out."""
    total = torch.zeros(d_model, dtype=torch.float64)
    measured = first = massive = 0
    for batch in batches:
        splice.read(batch)
        at = splice.measured
        total += splice.h[at].float().sum(0).cpu()
        measured += int(at.sum())
        first += int((splice.asked & splice.first).sum())
        massive += int((splice.asked & splice.valid & ~splice.small).sum())
    if not measured:
        raise UserError(
            f"no position to measure: of those asked for {first} are the first of their text and {massive} massive; "
            "give longer texts or other steps"
        )
    stats = {
        "total_tokens_eval_sparsity_variance": measured,
        "first_tokens_left_out": first,
        "massive_tokens_left_out": massive,
    }
    return (total / measured).float(), stats


def _measure(splice: _Splice, batch: Sequence[int], sums: _Sums) -> None:
    """One batch: a forward without the SAE, one with it, two ablated."""
    hidden = splice.run(batch)
    at = splice.measured
    seen = splice.valid & splice.small
    rebuilt = sums.add_activations(splice.h[seen], at[seen])
    if not len(rebuilt):
        return
    following = torch.cat([splice.ids[:, 1:], torch.full_like(splice.ids[:, :1], -1)], dim=1)[at]
    plain = hidden[at]
    put = {"sae": rebuilt, "ablation": torch.zeros_like(rebuilt), "mean_ablation": sums.mean.expand_as(rebuilt)}
    changed = {name: splice.replaced(batch, at, values) for name, values in put.items()}
    for start in range(0, len(plain), CHUNK):
        some = slice(start, start + CHUNK)
        sums.add_outputs(splice.lm, plain[some], {k: h[some] for k, h in changed.items()}, following[some])


class _Sums:
    """Sums over measured tokens, float64, and which latents fired."""

    def __init__(self, sae: SAE, mean: Float[Tensor, " d_model"]) -> None:
        self.sae, self.mean = sae, mean.to(sae.W_enc.device)
        self.of: defaultdict[str, float] = defaultdict(float)
        self.fired = torch.zeros(sae.d_sae, dtype=torch.long)
        self.alive = torch.zeros(sae.d_sae, dtype=torch.bool)

    def add_activations(
        self, x: Float[Tensor, "tokens d_model"], measured: Bool[Tensor, " tokens"]
    ) -> Float[Tensor, "measured d_model"]:
        """Encode all tokens and rebuild the measured ones."""
        rebuilt = [self.mean.new_empty(0, len(self.mean))]
        for start in range(0, len(x), CHUNK):
            part = x[start : start + CHUNK].to(self.sae.W_enc.device).float()
            chosen = measured[start : start + CHUNK].to(part.device)
            z = self.sae.encode(part)
            self.alive |= (z != 0).any(0).cpu()
            z, part = z[chosen], part[chosen]
            out = self.sae.decode(z)
            self.fired += (z != 0).sum(0).cpu()
            self._add_rebuilt(part, out, z)
            rebuilt.append(out)
        return torch.cat(rebuilt)

    def _add_rebuilt(self, x: Tensor, out: Tensor, z: Tensor) -> None:
        norm_in, norm_out = x.norm(dim=-1), out.norm(dim=-1)
        for name, values in {
            "error": (x - out).square().sum(-1),
            "variance": (x - self.mean).square().sum(-1),
            "cossim": functional.cosine_similarity(x, out, dim=-1),
            "l2_norm_in": norm_in,
            "l2_norm_out": norm_out,
            "l2_ratio": norm_out / torch.where(norm_in < 1e-4, 1.0, norm_in),
            "out_squared": norm_out.square(),
            "product": (x * out).sum(-1),
            "l0": (z != 0).float().sum(-1),
            "l1": z.abs().sum(-1),
        }.items():
            self.of[name] += float(values.sum())

    def add_outputs(
        self,
        lm: PreTrainedModel,
        plain: Float[Tensor, "pos d_model"],
        changed: Mapping[str, Float[Tensor, "pos d_model"]],
        following: Int[Tensor, " pos"],
    ) -> None:
        """KL to the unchanged model at each position, cross-entropy where a token follows (`following` is not −1)."""
        has = following >= 0
        target = following[has][:, None]
        self.of["kl tokens"] += len(plain)
        self.of["ce tokens"] += int(has.sum())
        log_p = output_logits(lm, plain).log_softmax(-1)
        self.of["ce without_sae"] -= float(log_p[has].gather(1, target).sum())
        p = log_p.exp()
        for name, hidden in changed.items():
            log_q = output_logits(lm, hidden).log_softmax(-1)
            self.of[f"ce {name}"] -= float(log_q[has].gather(1, target).sum())
            self.of[f"kl {name}"] += float((p * (log_p - log_q)).sum())

    def card(self, stats: Mapping[str, int], similar: Mapping[str, float]) -> Card:
        tokens = stats["total_tokens_eval_sparsity_variance"]
        mean = {name: value / tokens for name, value in self.of.items()}
        unexplained = _ratio(self.of["error"], self.of["variance"])
        names = ("sae", "ablation", "mean_ablation", "without_sae")
        kl = {k: self.of[f"kl {k}"] / self.of["kl tokens"] for k in names}  # without_sae: 0
        ce = {k: _ratio(self.of[f"ce {k}"], self.of["ce tokens"]) for k in names}
        share = self.fired.double() / tokens
        return {
            "model_behavior_preservation": {
                "kl_div_score": _score(kl),
                "kl_div_with_ablation": kl["ablation"],
                "kl_div_with_sae": kl["sae"],
                "kl_div_score_mean_ablation": _score(kl, "mean_ablation"),
                "kl_div_with_mean_ablation": kl["mean_ablation"],
            },
            "model_performance_preservation": {
                "ce_loss_score": _score(ce),
                "ce_loss_with_ablation": ce["ablation"],
                "ce_loss_with_sae": ce["sae"],
                "ce_loss_without_sae": ce["without_sae"],
                "ce_loss_score_mean_ablation": _score(ce, "mean_ablation"),
                "ce_loss_with_mean_ablation": ce["mean_ablation"],
            },
            "reconstruction_quality": {
                "explained_variance": None if unexplained is None else 1 - unexplained,
                "mse": mean["error"],
                "cossim": mean["cossim"],
            },
            "shrinkage": {
                "l2_norm_in": mean["l2_norm_in"],
                "l2_norm_out": mean["l2_norm_out"],
                "l2_ratio": mean["l2_ratio"],
                "relative_reconstruction_bias": _ratio(mean["out_squared"], mean["product"]),
            },
            "sparsity": {"l0": mean["l0"], "l1": mean["l1"]},
            "token_stats": {"total_tokens_eval_reconstruction": int(self.of["ce tokens"]), **stats},
            "misc_metrics": {
                "frac_alive": float(self.alive.double().mean()),
                "freq_over_1_percent": float((share > 0.01).double().mean()),
                "freq_over_10_percent": float((share > 0.1).double().mean()),
                **similar,
            },
        }


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def _score(of: Mapping[str, float | None], ablation: str = "ablation") -> float | None:
    """1 where the SAE costs nothing, 0 where it costs as much as ablation; None where ablation costs nothing."""
    ablated, rebuilt, plain = of[ablation], of["sae"], of["without_sae"]
    if ablated is None or rebuilt is None or plain is None or ablated <= plain:
        return None
    return (ablated - rebuilt) / (ablated - plain)
