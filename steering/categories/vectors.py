"""A vector a category for the base model (`vector-transfer`, arXiv 2510.07364, section 3.2; 2506.18167, section 4).

The base reads the thinking model's texts, split into sentences with categories.

- `means`: the mean of the base's residual stream at the positions of a category's sentences, less its mean at all
  positions of thoughts, as long as the residual stream at the site (norm `resid`). The papers rescale to the mean norm
  of the layer; ours is the median, which a few massive activations do not rule.
- `optimised`: `steering.find.optimise` on a category's sentences as targets, each after all that stands before it;
  first a general bias on sentences of all categories, which is in place while the vectors are trained.

Positions are those that *choose* a sentence's tokens: [first − 1, last − 1) for tokens [first, last), steps
[first − length, last − length) after a prompt of that length. Steering acts there, and a vector that was read or
trained one position later answers another question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from probes.capture import capture
from probes.errors import UserError, unknown
from probes.sites import Site, check_site
from steering.categories.segments import Span
from steering.categories.sentences import CHUNK, check_spans
from steering.directions import Direction
from steering.find import optimise, stream_norm

KINDS = {"means": "difference of means", "optimised": "gradient descent on the loss of a category's sentences"}
LEAST = 4  # sentences of a category
MOST = 256  # that a vector is optimised on
SAME = 1e-6  # of the residual stream's norm: sums in another order differ by less


class Vectors(NamedTuple):
    """A direction a category, and the general bias that was trained before them (None for `means`)."""

    by_category: dict[int, Direction]
    bias: Direction | None


def fit_vectors(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    spans: Sequence[Sequence[Span]],
    labels: Sequence[int] | Int[Tensor, " sentences"],
    site: Site,
    kind: str = "means",
    *,
    names: Mapping[int, str] | None = None,
    least: int = LEAST,
    most: int = MOST,
    seed: int = 0,
    progress: Callable[[str, int, float], None] | None = None,
    **settings: Any,
) -> Vectors:
    """A vector for each category that occurs.

    Args:
        lm: the base.
        texts: token ids of prompts with the thinking model's thoughts.
        lengths: prompt tokens of each text.
        spans: the sentences of each text.
        labels: the category of each sentence, in the order of texts and spans.
        site: where vectors are read or trained, and will act.
        kind: `means` or `optimised`.
        names: of the categories; their numbers unless given.
        least: fewer sentences of a category are refused.
        most: sentences that one vector is optimised on, drawn at random where there are more.
        seed: of that draw and of the optimisation.
        progress: called with each vector's name, step and loss (`optimised`).
        settings: of `steering.find.optimise`: steps, lr, batch_size.

    Raises:
        UserError: an unknown kind, sentences or labels that do not fit, a category with too few sentences, one that
            does not differ from all the others.
    """
    if kind not in KINDS:
        raise unknown("kind of vectors", kind, KINDS)
    if kind == "means" and settings:
        raise UserError(f"{', '.join(settings)} was given; means take no settings, use kind 'optimised'")
    check_site(lm, site, write=True)
    flat = [int(label) for label in labels]
    check_spans(texts, lengths, spans, labels=len(flat))
    pieces = [(r, first, last) for r, those in enumerate(spans) for first, last in those]
    groups: dict[int, list[int]] = {c: [] for c in sorted(set(flat))}
    for i, label in enumerate(flat):
        groups[label].append(i)
    for label, members in groups.items():
        if len(members) < least:
            raise UserError(
                f"category {label} has {len(members)} sentences and a vector needs {least}; "
                "give more texts or look for fewer categories"
            )
    called = {label: (names or {}).get(label, f"category {label}") for label in groups}
    if kind == "means":
        return Vectors(_means(lm, texts, lengths, pieces, groups, site, called), None)
    rng = np.random.default_rng(seed)

    def trained(members: Sequence[int], name: str, bias: Direction | None) -> Direction:
        some = rng.permutation(members)[:most].tolist()
        chosen = [pieces[i] for i in some]

        def on_step(step: int, loss: float) -> None:
            if progress is not None:
                progress(name, step, loss)

        return optimise(
            lm, [texts[r][:last] for r, _, last in chosen], [first for _, first, _ in chosen], site, bias=bias,
            groups=[r for r, _, _ in chosen], seed=seed, name=name, progress=on_step, sentences=len(members),
            **settings,
        )  # fmt: skip

    bias = trained(range(len(pieces)), "bias", None)
    return Vectors({label: trained(members, called[label], bias) for label, members in groups.items()}, bias)


def _means(
    lm: PreTrainedModel,
    texts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    pieces: Sequence[tuple[int, int, int]],
    groups: Mapping[int, Sequence[int]],
    site: Site,
    called: Mapping[int, str],
) -> dict[int, Direction]:
    """Sums a category and in all, so that no activation is kept."""
    label_of = {i: label for label, members in groups.items() for i in members}
    at: dict[int, list[tuple[int, int, int]]] = {}
    for i, (r, first, last) in enumerate(pieces):
        at.setdefault(r, []).append((label_of[i], first, last))
    sums = {label: torch.zeros(0) for label in groups}
    counts = dict.fromkeys(groups, 0)
    total, positions = torch.zeros(0), 0
    for start in range(0, len(texts), CHUNK):
        rows = range(start, min(start + CHUNK, len(texts)))
        acts = capture(
            lm, [texts[r] for r in rows], [site], lengths=[lengths[r] for r in rows], steps=(0, None),
            dtype=torch.float32,
        )  # fmt: skip
        assert acts is not None
        for r in rows:
            h = acts.at(site, row=r - start)[:-1].double()  # h[s] is step s; the last position chooses nothing here
            if not len(h):
                continue
            total, positions = _plus(total, h), positions + len(h)
            for label, first, last in at.get(r, ()):
                chosen = h[first - lengths[r] : last - lengths[r]]
                sums[label], counts[label] = _plus(sums[label], chosen), counts[label] + len(chosen)
    mean = total / positions
    norm = stream_norm(lm, texts, site)
    out = {}
    for label, name in called.items():
        vector = (sums[label] / counts[label] - mean).float()
        if float(vector.norm()) < SAME * norm:
            raise UserError(f"{name} does not differ from all positions at {site}; give more than one category")
        made = {
            "method": "difference of means",
            "counts": [counts[label], positions],
            "sentences": len(groups[label]),
            "window": "positions that choose the category's tokens, less all of thoughts",
            "length before rescaling": float(vector.norm()),
        }
        out[label] = Direction(vector, site, name, "raw", norm, mean.float(), made).normalized("resid")
    return out


def _plus(sums: Tensor, h: Float[Tensor, "pos d"]) -> Tensor:
    return h.sum(0) if not len(sums) else sums + h.sum(0)
