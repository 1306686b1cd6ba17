"""Choosing the number of categories and the layer: would other texts have given the same categories?

Texts fall at random into three parts. A taxonomy is fitted on each of the first two, both label the third, and the
score is the adjusted mutual information of the two labellings (Vinh et al. 2010): 0 for agreement by chance whatever
the number of categories, so that it can be compared across numbers and layers. Stability is the same for two seeds on
the first two parts together. Whole texts are split, since sentences of one text resemble each other.

Why not reconstruction: it grows with the number of categories and with what a layer's variance is made of, whether or
not another half of the texts would give the same categories. (Agreement has a bias too: few and coarse categories are
found again more easily. The smallest category's fraction is given beside it.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.errors import UserError
from probes.sites import Site
from steering.categories.taxonomy import fit

SPLITS = 5


@dataclass(frozen=True)
class Agreement:
    """How well n categories of a kind at a site are found again; means over splits, with their standard deviations.

    `held_out` is the agreement of two halves of the texts on a third part, `stability` that of two seeds; `smallest`
    is the fraction of held-out sentences in the smallest category.
    """

    site: Site
    kind: str
    n: int
    held_out: float
    spread: float
    stability: float
    stability_spread: float
    smallest: float


def agreement(
    x: Float[Tensor, "n d"],
    text: Int[Tensor, " sentences"],
    kind: str,
    n: int,
    *,
    site: Site,
    reading: str = "mean",
    seed: int = 0,
    splits: int = SPLITS,
    standardise: bool | None = None,
) -> Agreement:
    """The agreement of one kind, number and site.

    Args:
        x: one activation a sentence.
        text: the text that each sentence stands in (`steering.categories.sentences.texts_of`).
        kind, n, standardise: see `steering.categories.taxonomy.fit`.
        site, reading: what x is.
        seed: of splits and fits.
        splits: how often texts are split.

    Raises:
        UserError: fewer than three texts or one split, or parts with fewer sentences than categories.
    """
    if len(text) != len(x):
        raise UserError(f"{len(text)} numbers of texts were given for {len(x)} sentences; give one each")
    texts = text.unique()
    if len(texts) < 3 or splits < 1:
        raise UserError(f"{len(texts)} texts and {splits} splits were given; give three texts and one split at least")
    halves, seeds, smallest = [], [], []
    for split in range(splits):
        order = np.random.default_rng([seed, split]).permutation(texts.numpy())
        a, b, held = (torch.isin(text, torch.from_numpy(part)) for part in np.array_split(order, 3))

        def labels(rows: Tensor, seed: int, held: Tensor = held) -> np.ndarray:
            found = fit(x[rows], kind, n, seed, site=site, reading=reading, standardise=standardise)
            return found.labels(x[held]).numpy()

        first = labels(a, split)
        again = labels(a | b, split)
        halves.append(_ami(first, labels(b, split)))
        seeds.append(_ami(again, labels(a | b, splits + split)))
        smallest.append(np.bincount(again, minlength=n).min() / len(again))
    return Agreement(site, kind, n, *_mean_spread(halves), *_mean_spread(seeds), smallest=float(np.mean(smallest)))


def choose(
    values: Mapping[Site, Float[Tensor, "n d"]],
    text: Int[Tensor, " sentences"],
    kinds: Sequence[str],
    ns: Sequence[int],
    *,
    reading: str = "mean",
    seed: int = 0,
    splits: int = SPLITS,
    standardise: bool | None = None,
) -> list[Agreement]:
    """The agreement of every site, number and kind, the best first."""
    rows = [
        agreement(
            values[site], text, kind, n, site=site, reading=reading, seed=seed, splits=splits, standardise=standardise
        )
        for site, n, kind in product(values, ns, kinds)
    ]
    return sorted(rows, key=lambda row: -row.held_out)


HEAD = ("site", "kind", "n", "held-out agreement", "agreement of seeds", "smallest category")


def rows_of(found: Sequence[Agreement]) -> list[tuple[str, ...]]:
    """The rows of a table, under `HEAD`; ± is one standard deviation over splits."""
    return [
        (
            str(row.site), row.kind, str(row.n), f"{row.held_out:.2f} ± {row.spread:.2f}",
            f"{row.stability:.2f} ± {row.stability_spread:.2f}", f"{row.smallest:.3f}",
        )
        for row in found
    ]  # fmt: skip


def _ami(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Adjusted mutual information; 0 where a labelling has one category, whose agreement says nothing."""
    from sklearn.metrics import adjusted_mutual_info_score

    if min(len(set(a.tolist())), len(set(b.tolist()))) < 2:
        return 0.0
    return float(adjusted_mutual_info_score(a, b))


def _mean_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (NaN for one value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
