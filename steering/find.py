"""Finding directions: difference of means, PCA of differences, probe weights, optimised vectors, and their controls.

Each takes activations that `probes.capture` read at one site (`optimise`: texts) and returns a `Direction` that says
how it was made. `contrast` does the whole of it from two lists of texts.

- difference of means: mean(positive) − mean(negative) (arXiv 2312.06681, eq. 1).
- PCA of differences: the first principal axis of the paired differences, about the origin and not about their mean,
  which is the signal (arXiv 2310.01405, section 3.1.2); its sign is the mean difference's.
- probe: the weights of a logistic regression (scikit-learn), with its accuracy on held-out pairs.
- optimised: gradient descent on a vector added at the positions that choose the target tokens, the model frozen, the
  loss on the target tokens alone (arXiv 2510.07364, section 3.2). First one general bias on all texts, then a vector a
  category with the bias in place. It is trained at the hook and the positions at which `Intervention` applies it:
  `When.every_step()`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from probes.batching import batchable
from probes.capture import capture
from probes.clock import Clock
from probes.errors import UserError, unknown
from probes.likelihood import target_losses
from probes.sites import Site, check_site, on_site, width
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, Plan, When

HELD_OUT = 0.25
SAME = 1e-6  # of the activations' norm: sums in another order differ by less
ALIKE = "the positive and the negative texts do not differ at this site and step; give others"
Positive = Float[Tensor, "n_positive d_model"]
Negative = Float[Tensor, "n_negative d_model"]


def difference_of_means(positive: Positive, negative: Negative, site: Site, **about: Any) -> Direction:
    """mean(positive) − mean(negative); the centre is the mean of the two means.

    Raises:
        UserError: too few activations, or no difference.
    """
    a, b = _checked(positive, negative)
    center = (a.mean(0) + b.mean(0)) / 2
    return _direction(a.mean(0) - b.mean(0), site, center, "difference of means", (a, b), about)


def pca_of_differences(positive: Positive, negative: Negative, site: Site, **about: Any) -> Direction:
    """The first principal axis of positive[i] − negative[i], as long as the mean difference along it.

    Raises:
        UserError: the lists differ in length, too few activations, or no difference.
    """
    a, b = _checked(positive, negative)
    if len(a) != len(b):
        raise UserError(f"{len(a)} positive and {len(b)} negative texts were given; PCA of differences needs pairs")
    differences = a - b
    values = torch.linalg.svd(differences, full_matrices=False)
    axis = values.Vh[0]
    along = float(differences.mean(0) @ axis)
    if bool(differences.any()) and abs(along) <= SAME * _norm(a, b):
        raise UserError("the first axis of the differences has no sign: their mean is orthogonal to it; use means")
    explained = float(values.S[0] ** 2 / values.S.square().sum())
    center = (a.mean(0) + b.mean(0)) / 2
    made = {**about, "explained": explained}
    return _direction(axis * along, site, center, "PCA of differences", (a, b), made)


def probe_weights(
    positive: Positive, negative: Negative, site: Site, *, seed: int = 0, c: float = 0.1, **about: Any
) -> Direction:
    """The weights of a logistic regression, as long as the difference of means along them.

    A quarter of each list is held out, the same places of lists of one length, so that pairs stay together; `made` says
    how often the probe is right there.

    Raises:
        UserError: fewer than four activations on a side, or no difference.
    """
    from sklearn.linear_model import LogisticRegression

    a, b = _checked(positive, negative, least=4)
    rng = np.random.default_rng(seed)
    parts = []
    order = rng.permutation(len(a))
    for acts in (a, b):
        order = order if len(acts) == len(order) else rng.permutation(len(acts))
        cut = max(1, round(HELD_OUT * len(acts)))
        parts.append((acts[order[cut:]], acts[order[:cut]]))
    (a_fit, a_held), (b_fit, b_held) = parts
    x = torch.cat([a_fit, b_fit])
    center = (a_fit.mean(0) + b_fit.mean(0)) / 2
    scale = float((x - center).norm(dim=-1).mean())
    if scale <= SAME * _norm(a, b):
        raise UserError(ALIKE)
    labels = np.r_[np.ones(len(a_fit)), np.zeros(len(b_fit))]
    probe = LogisticRegression(C=c, max_iter=2000).fit(((x - center) / scale).numpy(), labels)
    held = torch.cat([a_held, b_held])
    truth = np.r_[np.ones(len(a_held)), np.zeros(len(b_held))]
    right = float(probe.score(((held - center) / scale).numpy(), truth))
    weights = torch.from_numpy(probe.coef_[0]).float()
    unit = weights / weights.norm()
    vector = unit * float((a_fit.mean(0) - b_fit.mean(0)) @ unit)
    made = {**about, "held_out": len(held), "held_out_accuracy": right, "seed": seed}
    return _direction(vector, site, center, "probe weights", (a_fit, b_fit), made)


def permuted_difference(positive: Positive, negative: Negative, like: Direction, seed: int) -> Direction:
    """The shuffled-label control: a difference of means of randomly mixed halves, as long as `like`."""
    a, b = _checked(positive, negative)
    order = torch.randperm(len(a) + len(b), generator=torch.Generator().manual_seed(seed))
    mixed = torch.cat([a, b])[order]
    vector = mixed[: len(a)].mean(0) - mixed[len(a) :].mean(0)
    made = {"control": "labels permuted", "seed": seed, "matched": like.name}
    return replace(
        like, vector=vector / vector.norm() * like.vector.norm(), name=f"permuted {seed}", center=None, made=made
    )


METHODS: dict[str, Callable[..., Direction]] = {
    "means": difference_of_means,
    "pca": pca_of_differences,
    "probe": probe_weights,
}


def contrast(
    lm: PreTrainedModel,
    positive: Sequence[Sequence[int]],
    negative: Sequence[Sequence[int]],
    site: Site,
    *,
    method: str = "means",
    step: int = 0,
    lengths: tuple[Sequence[int], Sequence[int]] | None = None,
    name: str = "",
    norm: str = "raw",
    **about: Any,
) -> Direction:
    """A direction from two lists of texts.

    Args:
        lm: the model.
        positive, negative: token ids; pairs for `pca`.
        site: where to read.
        method: `means`, `pca` or `probe`.
        step: the step at which each text is read; 0 is the last prompt token.
        lengths: prompt tokens of each text, where steps after the prompt are read.
        name, norm: of the direction.
        about: kept in `made`.

    Raises:
        UserError: an unknown method, a site that cannot be written, texts without that step, no difference.
    """
    if method not in METHODS:
        raise unknown("method for directions", method, METHODS)
    check_site(lm, site, write=True)
    both = []
    for i, texts in enumerate((positive, negative)):
        held = lengths[i] if lengths else [len(text) for text in texts]
        short = sum(not 1 - n <= step <= len(text) - n for text, n in zip(texts, held, strict=True))
        if short:
            raise UserError(f"{short} of {len(texts)} texts have no step {step}; give longer ones")
        acts = capture(lm, texts, [site], lengths=held, steps=(step, step + 1))
        assert acts is not None
        both.append(acts.values[site][acts.row.argsort()])
    found = METHODS[method](*both, site, step=step, **about)
    found = replace(found, name=name or method, resid_norm=stream_norm(lm, [*positive, *negative], site))
    return found.normalized(norm)


def stream_norm(lm: PreTrainedModel, texts: Sequence[Sequence[int]], site: Site, most: int = 64) -> float:
    """The median norm of the residual stream at a site, over the prompt positions of some texts but the first of each.

    (The first position, and with it a mean, is ruled by massive activations: arXiv 2402.17762.)
    """
    acts = capture(lm, list(texts)[:most], [site])
    assert acts is not None
    first = acts.step == torch.tensor([1 - len(texts[r]) for r in acts.row.tolist()])
    kept = acts.values[site][~first]
    if not len(kept):
        raise UserError(
            "the texts have one token each; the residual norm is measured after the first, give longer ones"
        )
    return float(kept.float().norm(dim=-1).median())


def optimise(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    site: Site,
    *,
    bias: Direction | None = None,
    groups: Sequence[int] | None = None,
    steps: int = 50,
    lr: float = 0.05,
    batch_size: int = 8,
    seed: int = 0,
    name: str = "optimised",
    progress: Callable[[int, float], None] | None = None,
    **about: Any,
) -> Direction:
    """A vector that makes the texts' continuations likely, the model frozen.

    Args:
        lm: a causal LM in evaluation mode; its parameters get no gradient.
        texts: token ids, prompts with the target tokens that follow.
        lengths: prompt tokens of each text; the loss is on the tokens after them.
        site: where the vector is added, at the positions that choose target tokens.
        bias: a general vector, trained before on all categories, that is in place meanwhile.
        groups: what each text was taken from: sentences of one answer are held out together. Each text is its own
            unless given.
        steps, lr, batch_size, seed: of Adam, with a learning rate that falls linearly to zero. lr is a fraction of the
            stream's norm at the site, so that one value serves any layer.
        progress: called with each step and its loss.

    Returns:
        The direction; `made` holds the mean loss on a quarter of the groups held out, before and after; None where
        there is one group.

    Raises:
        UserError: texts without target tokens, fewer than four, a site that the model lacks, a loss that is not finite.
    """
    check_site(lm, site, write=True)
    if len(texts) < 4 or any(len(t) <= n for t, n in zip(texts, lengths, strict=True)):
        raise UserError(f"{len(texts)} texts were given; give at least four, each with target tokens after its prompt")
    scale = stream_norm(lm, texts, site)
    rng = np.random.default_rng(seed)
    held, fit = _split(list(range(len(texts))) if groups is None else groups, rng)
    vector = torch.zeros(width(lm), device=lm.device, requires_grad=True)
    adam = torch.optim.Adam([vector], lr=lr * scale)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=steps)
    plan: Plan = (Intervention(Add(bias), when=When.every_step()),) if bias is not None else ()
    window = When.every_step()
    clock = Clock(lm)

    def add(h: Tensor) -> Tensor:
        assert clock.frame is not None
        weight = window.weight(clock.frame)
        assert isinstance(weight, Tensor)
        return h + (weight[..., None] * vector).to(h.dtype)

    def loss_of(chosen: Sequence[int]) -> Tensor:
        parts = []
        for together in batchable(lm, [texts[i] for i in chosen]):
            some = [chosen[n] for n in together]
            given = [lengths[i] for i in some]
            clock.given = torch.tensor(given)
            with attached(lm, [plan], lengths=given):
                parts.append(target_losses(lm, [texts[i] for i in some], given).loss)
        return torch.cat(parts).mean()

    handle = on_site(lm, site, add)
    try:
        with torch.no_grad():
            before = _mean_loss(loss_of, held, batch_size) if held else None
        for step in range(steps):
            chosen = rng.choice(fit, size=min(batch_size, len(fit)), replace=False).tolist()
            loss = loss_of(chosen)
            if not bool(loss.isfinite()):
                raise UserError(f"the loss is {float(loss.detach())} at step {step}; lower lr (now {lr})")
            vector.grad = torch.autograd.grad(loss, vector)[0]  # of the vector alone, whatever else asks for one
            adam.step()
            schedule.step()
            if progress is not None:
                progress(step, float(loss.detach()))
        with torch.no_grad():
            after = _mean_loss(loss_of, held, batch_size) if held else None
    finally:
        handle.remove()
        clock.remove()
    made = {
        "method": "optimised",
        "steps": steps,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
        "texts": len(fit),
        "held_out": len(held),
        "held_out_loss": [before, after] if held else None,
        "bias": bias.name if bias is not None else None,
        "window": "positions that choose target tokens",
        **about,
    }
    return Direction(vector.detach(), site, name, "raw", scale, None, made)


def _split(groups: Sequence[int], rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """The texts of a quarter of the groups, and the others; of one group none is held out."""
    names = list(dict.fromkeys(groups))
    order = [names[i] for i in rng.permutation(len(names))]
    apart = order[: max(1, round(HELD_OUT * len(order)))] if len(order) > 1 else []
    parts = {name: [i for i, group in enumerate(groups) if group == name] for name in order}
    return [i for name in apart for i in parts[name]], [i for name in order if name not in apart for i in parts[name]]


def _mean_loss(loss_of: Callable[[Sequence[int]], Tensor], chosen: Sequence[int], batch_size: int) -> float:
    parts = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    return float(np.average([float(loss_of(p)) for p in parts], weights=[len(p) for p in parts]))


def _checked(positive: Tensor, negative: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    if len(positive) < least or len(negative) < least:
        raise UserError(
            f"{len(positive)} positive and {len(negative)} negative activations were given; give at least {least} each"
        )
    if positive.shape[1] != negative.shape[1]:
        raise UserError(f"activations of width {positive.shape[1]} and {negative.shape[1]} were given; give one width")
    return positive.float(), negative.float()


def _norm(a: Positive, b: Negative) -> float:
    return float(torch.cat([a, b]).norm(dim=-1).mean())


def _direction(
    vector: Tensor, site: Site, center: Tensor, method: str, sides: tuple[Tensor, Tensor], about: dict[str, Any]
) -> Direction:
    """Refuse what is rounding (or, of probe weights that are all 0, NaN): a norm that is asked for later would make it
    as long as any direction."""
    if not float(vector.norm()) > SAME * _norm(*sides):
        raise UserError(ALIKE)
    made = {"method": method, "counts": [len(side) for side in sides], **about}
    return Direction(vector, site, method, "raw", None, center, made)
