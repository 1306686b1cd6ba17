"""The bench of discovered behaviours: clustered activations beside what gives labels away without a trained model.

Every row is scored in the same way (elicit/analysis/organisms/behaviour_scores.py). The baselines are an untrained
model, TF-IDF,
position, random labels, and the form of the content as a label: form alone gives away much of the truth, so that only
AMI within equal form tells compute from check, and initialise, subgoal, backtrack and conclude from each other. The
ceiling is a linear probe, scored on thoughts and paraphrases that it was not fitted on.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from elicit.analysis.organisms.behaviour_scores import (
    RESAMPLES,
    Codes,
    Corpus,
    Labels,
    conditional,
    covered,
    interval,
    score,
)
from elicit.evaluation.metrics.format import with_interval
from elicit.tasks.organism.language import BEHAVIOURS, PARAPHRASES, templates
from probes.errors import UserError, unknown
from probes.sites import Site
from steering.categories import taxonomy
from steering.categories.sentences import parts_of, read

COMPONENTS = 32  # principal components that are clustered, at most


def features(lm: PreTrainedModel, corpus: Corpus, layer: int) -> Float[np.ndarray, "sentences d_model"]:
    """The residual stream after a layer, fp32, mean over each sentence's tokens.

    Raises:
        UserError: no such layer.
    """
    return pooled(lm, corpus, [layer], ["mean"])[layer, "mean"].numpy()


def pooled(
    lm: PreTrainedModel, corpus: Corpus, layers: Sequence[int], names: Sequence[str]
) -> dict[tuple[int, str], Float[Tensor, "sentences d"]]:
    """The residual stream after layers, pooled in several ways (`steering.categories.sentences.POOLINGS`), from one
    forward.

    Raises:
        UserError: no such layer, an unknown pooling.
    """
    found = read(lm, corpus.texts, corpus.lengths, corpus.spans, [Site(layer) for layer in layers], names)
    return {(site.layer, name): x for (site, name), x in found.items()}


def untrained(lm: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """A model of the same configuration with fresh weights."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(copy.deepcopy(lm.config), dtype=lm.dtype)
    return fresh.to(lm.device).eval()


def discover(values: Float[np.ndarray, "sentences d"], clusters: int, seed: int = 0) -> Codes:
    """Standardise, keep 32 principal components at most, k-means.

    Raises:
        UserError: fewer than two clusters, or more than sentences.
    """
    scaled = StandardScaler().fit_transform(values)
    reduced = PCA(min(COMPONENTS, *scaled.shape), random_state=seed).fit_transform(scaled)
    return _k_means(reduced, clusters, seed)


def by_position(corpus: Corpus, bins: int) -> Codes:
    """The relative position of each sentence, in so many bins of equal width."""
    return np.array([s.bin_of(bins) for s in corpus.sentences])


def by_tfidf(corpus: Corpus, clusters: int, seed: int = 0) -> Codes:
    """k-means on the TF-IDF of words and signs; every number is the same word."""
    return _k_means(_words().fit_transform(_texts(corpus)), clusters, seed)


def _words() -> TfidfVectorizer:
    return TfidfVectorizer(token_pattern=r"\w+|[^\w\s]")


def _texts(corpus: Corpus) -> list[str]:
    return [re.sub(r"\d+", "0", s.text) for s in corpus.sentences]


def _k_means(values: Any, clusters: int, seed: int) -> Codes:
    sentences = values.shape[0]
    if not 2 <= clusters <= sentences:
        raise UserError(f"{clusters} clusters of {sentences} sentences were asked for; give from 2 to {sentences}")
    return KMeans(clusters, n_init=10, random_state=seed).fit_predict(values)


class Held(NamedTuple):
    """Predictions for the sentences `scored`, by a probe that saw neither their thoughts nor their paraphrases."""

    scored: list[int]
    predictions: list[str]


def held_out(corpus: Corpus) -> list[int]:
    """The sentences that a test paraphrase says."""
    test = {PARAPHRASES[b][t] for b in BEHAVIOURS for t in templates(b, "test")}
    return [i for i, s in enumerate(corpus.sentences) if s.wording in test]


def folds(corpus: Corpus, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Twice the sentences that a probe is fitted on, and those that it is then scored on.

    The thoughts fall into two random halves: fitted on the training paraphrases of one, scored on the test paraphrases
    of the other.

    Raises:
        UserError: nothing left to fit or to score.
    """
    order = np.random.default_rng(seed).permutation(len(corpus.texts)).tolist()
    halves = set(order[: len(order) // 2]), set(order[len(order) // 2 :])
    scored, out = held_out(corpus), []
    unseen = set(scored)
    for half in halves:
        fit = [i for i, s in enumerate(corpus.sentences) if s.item in half and i not in unseen]
        out.append((fit, [i for i in scored if corpus.sentences[i].item not in half]))
    if any(not other or len({corpus.sentences[i].behaviour for i in fit}) < 2 for fit, other in out):
        raise UserError(
            f"{len(corpus.texts)} thoughts, paraphrases {corpus.split!r}, leave a probe nothing to fit or to score; "
            "give more thoughts, with split='all'"
        )
    return out


def supervised(values: Float[np.ndarray, "sentences d"], corpus: Corpus, seed: int = 0) -> Held:
    """The ceiling: logistic regression on standardised features, by `folds`.

    Raises:
        UserError: not one row a sentence; nothing left to fit or to score.
    """
    return _probe(StandardScaler(), values, corpus, seed)


def supervised_words(corpus: Corpus, seed: int = 0) -> Held:
    """The same probe on TF-IDF: how much of the labels is in the words alone."""
    return _probe(_words(), np.array(_texts(corpus), dtype=object), corpus, seed)


def _probe(reader: Any, values: Shaped[np.ndarray, "sentences ..."], corpus: Corpus, seed: int) -> Held:
    if len(values) != len(corpus.sentences):
        raise UserError(f"{len(values)} rows were given for {len(corpus.sentences)} sentences; give one a sentence")
    truth = np.array(corpus.truth)
    said: dict[int, str] = {}
    for fit, scored in folds(corpus, seed):
        probe = make_pipeline(reader, LogisticRegression(max_iter=5000)).fit(values[fit], truth[fit])
        said.update(zip(scored, probe.predict(values[scored]).tolist(), strict=True))
    return Held(sorted(said), [said[i] for i in sorted(said)])


def score_discovered(
    labels: Labels,
    corpus: Corpus,
    *,
    method: str = "discovered",
    among: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The row of any labels, such as an SAE's strongest feature a sentence.

    Args:
        labels: one a sentence of `among`.
        among: numbers of sentences of the corpus; all unless given.

    Returns:
        method, ami, interval (95%), macro_f1, v_measure, n; `wording`, `position` and `form`: AMI within these strata
        (or None), and `wording_n`, `position_n` and `form_n`, the sentences that they cover; `ami_held_out`: on those
        sentences alone that a supervised probe is scored on (or None).

    Raises:
        UserError: not one label a sentence; fewer than two thoughts.
    """
    kept = list(range(len(corpus.sentences))) if among is None else list(among)
    truth = [corpus.sentences[i].behaviour for i in kept]
    row: dict[str, Any] = {"method": method, "n": len(kept), **score(labels, truth)._asdict()}
    reach = interval(labels, truth, corpus.items[kept], seed=seed, resamples=resamples)
    row["interval"] = reach.pair
    for name, strata in corpus.strata.items():
        within = [strata[i] for i in kept]
        row[name] = conditional(labels, truth, within)
        row[f"{name}_n"] = sum(map(len, covered(truth, within)))
    test = set(held_out(corpus))
    shared = [place for place, i in enumerate(kept) if i in test]
    row["ami_held_out"] = score([labels[p] for p in shared], [truth[p] for p in shared]).ami if shared else None
    return row


def check_names(kinds: Sequence[str], poolings: Sequence[str]) -> None:
    """Refuse unknown kinds and poolings, before anything is computed.

    Raises:
        UserError: as said there.
    """
    for kind in kinds:
        if kind not in taxonomy.KINDS:
            raise unknown("kind of taxonomy", kind, taxonomy.KINDS)
    for name in poolings:
        parts_of(name)


def bench(
    lm: PreTrainedModel,
    corpus: Corpus,
    layer: int,
    *,
    clusters: int = len(BEHAVIOURS),
    kinds: Sequence[str] = (),
    poolings: Sequence[str] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> list[dict[str, Any]]:
    """k-means on a layer's activations, the baselines and the ceiling: a row of `score_discovered` each.

    The supervised rows need a corpus said in all paraphrases, and are left out for others.

    Args:
        kinds, poolings: rows of their own for taxonomies of these kinds (`steering.categories.taxonomy.KINDS`) on these
            poolings (`steering.categories.sentences.POOLINGS`); one alone goes with k-means or with means.
        progress: called with the rows that are scored, and of how many.

    Raises:
        UserError: no such layer, kind or reading; clusters, thoughts or resamples that do not fit.
    """
    check_names(kinds, poolings)
    values, n = features(lm, corpus, layer), len(corpus.sentences)
    found: dict[str, Labels] = {
        "k-means on activations": discover(values, clusters, seed),
        "k-means, untrained model": discover(features(untrained(lm, seed), corpus, layer), clusters, seed),
        "k-means on TF-IDF": by_tfidf(corpus, clusters, seed),
        "position": by_position(corpus, clusters),
        "form of the content": corpus.strata["form"],
        "random labels": np.random.default_rng(seed).integers(clusters, size=n),
    }
    if kinds or poolings:
        for (_, name), x in pooled(lm, corpus, [layer], poolings or ["mean"]).items():
            for kind in kinds or ["k-means"]:
                fitted = taxonomy.fit(x, kind, clusters, seed, site=Site(layer), reading=name)
                found[f"{kind}, {name}"] = fitted.labels(x).numpy()
    among: dict[str, list[int]] = {}
    if corpus.split == "all":
        among["supervised probe"], found["supervised probe"] = supervised(values, corpus, seed)
        among["supervised, words"], found["supervised, words"] = supervised_words(corpus, seed)
    rows = []
    for number, (name, labels) in enumerate(found.items()):
        progress("rows of the table", number, len(found))
        one = score_discovered(labels, corpus, method=name, among=among.get(name), seed=seed, resamples=resamples)
        rows.append(one)
    return rows


STRATA = ("wording", "position", "form")
HEAD = ("labels by", "AMI [95%]", "macro-F1", "V", *(f"AMI | {name} (n)" for name in STRATA), "AMI, held out", "n")


def rows_of(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of a bench as they are printed, under `HEAD`."""
    out: list[tuple[str, ...]] = []
    for row in rows:
        within = (f"{_cell(row[name])} ({row[f'{name}_n']})" for name in STRATA)
        agreement = with_interval(row["ami"], row["interval"], _cell), _cell(row["macro_f1"]), _cell(row["v_measure"])
        out.append((row["method"], *agreement, *within, _cell(row["ami_held_out"]), str(row["n"])))
    return out


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
