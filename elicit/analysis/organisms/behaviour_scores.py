"""Discovered behaviours against true ones: does a labelling of sentences say what the solver did in each?

Thoughts are synthetic, so every sentence has a true label (elicit/tasks/organism/language.py). No score asks for names:

- `ami`: adjusted mutual information (Vinh et al. 2010, arithmetic mean of the entropies), 0 for labels by chance;
- `macro_f1`: clusters matched one-to-one to behaviours by the Hungarian method on F1;
- `v_measure`: Rosenberg & Hirschberg 2007; not adjusted for chance, so it rises with the number of clusters.

What wording, position or the form of the content give away is no discovery: AMI is given again within strata of equal
wording, position and form. Form (the content without its numbers and names) gives away much of the label alone: within
equal form the real cases are compute against check, and initialise, subgoal, backtrack and conclude against each other.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped
from scipy import stats
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, v_measure_score
from sklearn.metrics.cluster import contingency_matrix
from transformers import PreTrainedTokenizerBase

from elicit.models.prompts import Prompt
from elicit.tasks.organism.language import PARAPHRASES, Behaviour, WordingSplit
from elicit.tasks.organism.problems import FAMILIES
from elicit.training.organisms import variants
from probes.errors import UserError
from probes.statistics import Interval

POSITIONS = 5  # strata of the relative position
SMALLEST = 10  # sentences of a stratum
RESAMPLES = 200

Labels = Sequence[Hashable] | Shaped[np.ndarray, " sentences"]
Codes = Int[np.ndarray, " sentences"]


@dataclass(frozen=True)
class LabelledSentence:
    """Sentence `position` of thought `item`: its true label, and the paraphrase (with `{x}`) that says its content.

    `relative` is the position over the last one, in [0, 1]; its tokens are [first, last) of the item's text.
    """

    item: int
    text: str
    content: str
    behaviour: Behaviour
    wording: str
    family: str
    position: int
    relative: float
    first: int
    last: int

    @property
    def form(self) -> str:
        """The content with every number as 0 and every place name as P."""
        return re.sub(r"\d+", "0", re.sub(r"\b[A-Z]\b", "P", self.content))

    def bin_of(self, bins: int) -> int:
        """The relative position, in so many bins of equal width."""
        return min(bins - 1, int(bins * self.relative))


@dataclass(frozen=True)
class Corpus:
    """Thoughts with true labels, said in one split of the paraphrases.

    `texts` are token ids of prompt and thought, a list an item, `lengths` of them prompt; `sentences` are in order.
    """

    texts: list[list[int]]
    lengths: list[int]
    sentences: list[LabelledSentence]
    split: WordingSplit

    @property
    def truth(self) -> list[str]:
        return [s.behaviour for s in self.sentences]

    @property
    def spans(self) -> list[list[tuple[int, int]]]:
        """The tokens of each item's sentences."""
        out: list[list[tuple[int, int]]] = [[] for _ in self.texts]
        for s in self.sentences:
            out[s.item].append((s.first, s.last))
        return out

    @property
    def items(self) -> Codes:
        return np.array([s.item for s in self.sentences])

    @property
    def strata(self) -> dict[str, list[Hashable]]:
        """What each sentence is compared within: its wording, a fifth of its thought, and the form of its content."""
        return {
            "wording": [s.wording for s in self.sentences],
            "position": [s.bin_of(POSITIONS) for s in self.sentences],
            "form": [s.form for s in self.sentences],
        }


def corpus(
    tokenizer: PreTrainedTokenizerBase,
    n: int,
    *,
    arm: str = "thinking",
    families: Sequence[str] = tuple(FAMILIES),
    split: WordingSplit = "all",
    seed: int = 0,
) -> Corpus:
    """An arm's thoughts on n questions of the test split, the families in turn; a larger n begins with the same ones.

    Raises:
        UserError: nothing asked for, an unknown variant, family or split; a tokenizer without offsets, or one that
            writes the prompt otherwise where a thought follows (as with an end token after every text).
    """
    if n < 1 or not families:
        raise UserError(f"{n} thoughts of {len(families)} families were asked for; give at least one of each")
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} tells no offsets, which find sentences in tokens; use a fast one")
    out = Corpus([], [], [], split)
    for item in range(n):
        rng = np.random.default_rng([seed, item])
        problem = variants.draw_from("test", families[item % len(families)], rng)
        thought = variants.think(arm, problem, rng, split)
        head = Prompt().ids(problem.question, tokenizer)
        ids, spans = thought.token_spans(tokenizer, Prompt().text(problem.question, tokenizer) + " ")
        if ids[: len(head)] != head:
            raise UserError("this tokenizer writes a prompt otherwise where a thought follows; use another base's")
        out.texts.append(ids[: spans[-1][1]])  # without an end token that the tokenizer appends
        out.lengths.append(len(head))
        for place, (said, span) in enumerate(zip(thought.sentences, spans, strict=True)):
            text, wording = thought.sentence_text(place), PARAPHRASES[said.behaviour][said.template]
            what = item, text, said.content, said.behaviour, wording, problem.family
            out.sentences.append(LabelledSentence(*what, place, place / max(1, len(spans) - 1), *span))
    return out


class Scores(NamedTuple):
    """How well labels agree with the truth; 1 is perfect in all three."""

    ami: float
    macro_f1: float
    v_measure: float


def score(found: Labels, truth: Sequence[str]) -> Scores:
    """Score any labels against the true behaviours, whatever their names and number.

    A cluster stands for one behaviour at most; a behaviour that got none counts 0 in `macro_f1`, whose mean is over the
    behaviours that occur in `truth`.

    Raises:
        UserError: no sentences, or not one label each.
    """
    a, b = _codes(found, len(truth)), _codes(truth, len(truth))
    table = contingency_matrix(a, b)
    f1 = 2 * table / (table.sum(1, keepdims=True) + table.sum(0, keepdims=True))
    matched = f1[linear_sum_assignment(f1, maximize=True)].sum() / table.shape[1]
    return Scores(ami(a, b), float(matched), _quietly(v_measure_score, b, a))


def ami(found: Codes, truth: Codes) -> float:
    return _quietly(adjusted_mutual_info_score, truth, found)


def _quietly(metric: Any, *labels: Codes) -> float:
    """Many labels on few sentences are allowed: scikit-learn would warn that they look like a regression."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return float(metric(*labels))


def _codes(labels: Labels, n: int) -> Codes:
    """Labels as numbers from 0."""
    if n == 0 or len(labels) != n:
        raise UserError(f"{len(labels)} labels were given for {n} sentences; give one a sentence, and at least one")
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels])


def covered(truth: Sequence[str], strata: Sequence[Hashable]) -> list[list[int]]:
    """The sentences of each stratum in which a score means something: two behaviours and ten sentences at least."""
    members: dict[Hashable, list[int]] = {}
    for i, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(i)
    return [rows for rows in members.values() if len(rows) >= SMALLEST and len({truth[i] for i in rows}) > 1]


def conditional(found: Labels, truth: Sequence[str], strata: Sequence[Hashable]) -> float | None:
    """AMI within each stratum that is `covered`, weighted by its sentences; None where there is none.

    Raises:
        UserError: no sentences, or not one label and one stratum each.
    """
    a, b = _codes(found, len(truth)), _codes(truth, len(truth))
    kept = covered(truth, _codes(strata, len(truth)).tolist())
    if not kept:
        return None
    return float(np.average([ami(a[rows], b[rows]) for rows in kept], weights=[len(rows) for rows in kept]))


def interval(
    found: Labels, truth: Sequence[str], items: Codes, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """95% percentile bootstrap of the AMI that resamples whole thoughts.

    A thought that is drawn twice agrees with itself whatever its labels, which lifts the AMI of every resample: the
    quantiles are moved down by the resamples' mean excess over the sample, or random labels would not reach 0.

    Raises:
        UserError: fewer than two thoughts or resamples; not one label a sentence.
    """
    a, b = _codes(found, len(truth)), _codes(truth, len(truth))
    rows = [np.flatnonzero(items == item) for item in np.unique(items)]
    if len(rows) < 2 or resamples < 2:
        raise UserError(f"{len(rows)} thoughts and {resamples} resamples give no interval; give two or more of each")

    def of(chosen: Int[np.ndarray, " thoughts"]) -> float:
        drawn = np.concatenate([rows[i] for i in chosen])
        return ami(a[drawn], b[drawn])

    result = stats.bootstrap(
        (np.arange(len(rows)),), of, vectorized=False, method="percentile", n_resamples=resamples, rng=seed
    )
    excess = float(result.bootstrap_distribution.mean()) - ami(a, b)
    low, high = result.confidence_interval
    return Interval(float(low) - excess, min(1.0, float(high) - excess))
