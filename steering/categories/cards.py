"""Cards of categories: what is in each, and names for them.

Distinguishing words are those whose log-odds inside and outside of a category differ most, in standard errors, with all
sentences as the prior (Monroe et al. 2008). Names are given by hand, by lists of keywords, or by any function from
sentences to a name, such as `elicit.methods.vector_transfer.category_names.namer`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from probes.errors import UserError
from steering.categories.taxonomy import Taxonomy

TYPICAL, WORDS, BINS = 8, 8, 5
PRIOR = 10.0  # words that all sentences count for, beside a category's own


@dataclass(frozen=True)
class Card:
    """One category.

    Args:
        label: its number.
        size: its sentences.
        share: of all sentences.
        typical: the sentences that fit it best, no two of the same words.
        words: that distinguish it, the most telling first.
        positions: the fraction of its sentences in each fifth of a thought.
        name: as it was named, or "".
    """

    label: int
    size: int
    share: float
    typical: tuple[str, ...]
    words: tuple[str, ...]
    positions: tuple[float, ...]
    name: str = ""


def cards(
    taxonomy: Taxonomy,
    x: Float[Tensor, "n d"],
    sentences: Sequence[str],
    relative: Sequence[float],
    *,
    typical: int = TYPICAL,
    words: int = WORDS,
) -> list[Card]:
    """A card a category.

    Args:
        taxonomy, x: the categories, and the sentences' activations.
        sentences: their texts.
        relative: where each stands in its thought, from 0 (first) to 1 (last).

    Raises:
        UserError: not one text and one position a sentence.
    """
    if not len(x) == len(sentences) == len(relative):
        raise UserError(
            f"{len(x)} activations, {len(sentences)} sentences, {len(relative)} positions were given; give one each"
        )
    scores = taxonomy.scores(x)
    labels = scores.argmax(1)
    bags = [_words(s) for s in sentences]
    out = []
    for label in range(taxonomy.categories):
        members = (labels == label).nonzero()[:, 0]
        order = members[scores[members, label].argsort(descending=True, stable=True)].tolist()
        best: dict[str, str] = {}
        for i in order:
            best.setdefault(" ".join(bags[i]), sentences[i])
        place = np.minimum((np.array([relative[i] for i in order]) * BINS).astype(int), BINS - 1)
        shares = np.bincount(place, minlength=BINS) / max(1, len(order))
        inside = set(order)
        telling = distinguishing(
            [bags[i] for i in order], [b for i, b in enumerate(bags) if i not in inside], words
        )  # fmt: skip
        shown = tuple(best.values())[:typical]
        out.append(Card(label, len(order), len(order) / len(x), shown, tuple(telling), tuple(shares.tolist())))
    names = taxonomy.names or ("",) * taxonomy.categories
    return [replace(card, name=name) for card, name in zip(out, names, strict=True)]


def distinguishing(inside: Sequence[Sequence[str]], outside: Sequence[Sequence[str]], most: int) -> list[str]:
    """The words whose log-odds are higher inside by two standard errors at least, the largest difference first."""
    a, b = (Counter(w for bag in bags for w in bag) for bags in (inside, outside))
    both = a + b
    total = sum(both.values())
    z = {}
    for word, count in both.items():
        prior = PRIOR * count / total
        odds = [_log_odds(c[word] + prior, sum(c.values()) + PRIOR) for c in (a, b)]
        z[word] = (odds[0] - odds[1]) / np.sqrt(1 / (a[word] + prior) + 1 / (b[word] + prior))
    return [w for w in sorted(z, key=lambda w: (-z[w], w)) if z[w] >= 2][:most]


def _log_odds(count: float, total: float) -> float:
    return float(np.log(count) - np.log(max(total - count, 1e-9)))


def _words(sentence: str) -> list[str]:
    """Words and signs in lower case, every number as 0."""
    return re.findall(r"\w+|[^\w\s]", re.sub(r"\d+(?:[.,]\d+)*", "0", sentence.lower()))


Namer = Callable[[Sequence[str]], str]
Names = Mapping[int, str] | Namer


def named(cards: Sequence[Card], names: Names) -> list[Card]:
    """The cards with names: by hand (a label's name; the others keep theirs) or by a function of typical sentences.

    Raises:
        UserError: a name for a category that is not there.
    """
    if not isinstance(names, Mapping):
        return [replace(card, name=names(card.typical) if card.size else "") for card in cards]
    if unmet := sorted(set(names) - {card.label for card in cards}):
        raise UserError(f"a name was given for category {unmet[0]}; there are 0 to {len(cards) - 1}")
    return [replace(card, name=names.get(card.label, card.name)) for card in cards]


def keyword_names(
    labels: Sequence[int], sentences: Sequence[str], keywords: Mapping[str, Sequence[str]]
) -> dict[int, str]:
    """A name for each label, from lists of words: for `named`.

    A name's score is the fraction of a category's sentences that hold one of its words (or phrases), less that fraction
    among all others. The highest wins; equal ones are all said, joined by " or "; "none" where no score is above 0.

    Raises:
        UserError: no keywords, or not one label a sentence.
    """
    if len(labels) != len(sentences) or not keywords or not all(keywords.values()):
        raise UserError(
            f"{len(labels)} labels, {len(sentences)} sentences and keywords for {len(keywords)} names were given; "
            "give one label a sentence, and for each name one word at least"
        )
    held = np.array([int(n) for n in labels])
    hits = {}
    for name, words in keywords.items():
        pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, words)) + r")(?!\w)", re.IGNORECASE)
        hits[name] = np.array([bool(pattern.search(s)) for s in sentences], dtype=float)
    out = {}
    for label in np.unique(held).tolist():
        inside = held == label
        scores = {n: h[inside].mean() - (h[~inside].mean() if (~inside).any() else 0) for n, h in hits.items()}
        best = max(scores.values())
        out[label] = " or ".join(n for n, s in scores.items() if np.isclose(s, best)) if best > 0 else "none"
    return out
