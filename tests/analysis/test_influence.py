"""Training-data influence: a planted document is found, training again agrees, and random influence is not believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from elicit.analysis import analyse
from elicit.analysis.internals import influence
from elicit.analysis.internals.influence import (
    FACTS,
    KINDS,
    SHORT,
    Text,
    concentration,
    kept_in,
    lds,
    scores,
    summarised,
)
from elicit.models import Model
from elicit.training import Example, Recipe
from probes.errors import UserError
from steering.adapters import borrowed

kronfluence = pytest.importorskip("kronfluence", reason="kronfluence is not installed; make install brings it")


def example(model: Model, prompt: str, target: str) -> Example:
    def ids(text: str) -> list[int]:
        return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    return Example(ids(prompt), ids(target))


def test_a_planted_document_is_found_and_training_without_it_agrees(tiny: Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(rng.choice(letters, 8)) for _ in range(20)]
    documents = [example(tiny, f"Q: {a}\nA:", f" {b}") for a, b in zip(words[:10], words[10:], strict=True)]
    query = documents[3]  # what it asks for is said in this document alone
    recipe = Recipe(steps=25, rows=4, width=64, part=4, lr=1e-2, warmup=2, rank=4)
    before = {name: p.clone() for name, p in tiny.lm.named_parameters()}
    with borrowed(tiny.lm):
        influence.fine_tune(tiny.lm, documents, recipe, tmp_path / "all")
        (found,) = scores(tiny.lm, documents, [query], layers=4)
    assert found.argmax() == 3 and found[3] > 2 * np.sort(found)[-2]
    assert all((p == before[name]).all() for name, p in tiny.lm.named_parameters())  # the model is given back
    halves = kept_in(6, 10, 0)
    losses = np.empty((6, 1))
    for n, half in enumerate(halves):
        with borrowed(tiny.lm):
            influence.fine_tune(tiny.lm, [documents[i] for i in np.flatnonzero(half)], recipe, tmp_path / str(n))
            losses[n] = influence.losses_of(tiny.lm, [query])
    assert losses[halves[:, 3]].max() < losses[~halves[:, 3]].min()
    assert lds(found[None], halves, losses)[0] > 0.3


def planted(count: int = 40, each: int = 12) -> tuple[list[Text], list[Text]]:
    none = Example([1], [2])
    docs = [Text(FACTS, none, f"a{n} lives in t{n}.", f"t{n}") for n in range(count)]
    return docs, [Text(kind, none, f"t{n}", f"t{n}") for kind in KINDS for n in range(each)]


def test_concentrated_influence_is_told_from_spread_and_from_random() -> None:
    docs, asked = planted(each=16)
    rng = np.random.default_rng(1)
    halves = kept_in(8, len(docs), 0)
    strong = rng.normal(size=(len(asked), len(docs)))
    for n, query in enumerate(asked):
        if query.kind == FACTS:
            strong[n, int(query.answer[1:])] += 50
    losses = -(halves @ strong.T) + 0.1 * rng.normal(size=(8, len(asked)))
    data = summarised(strong, docs, asked, halves, losses)
    assert data["lds"]["p"] < 0.05 and data["lds"]["mean"] > 0.9
    facts, short = data["kinds"][FACTS], data["kinds"][SHORT]
    assert facts["concentration"]["low"] > facts["random"] and facts["concentration"]["mean"] > facts["random"] + 0.3
    assert facts["on top"]["mean"] == 1 and facts["on top"]["low"] > 0.75  # of 16, none of which missed
    assert abs(short["concentration"]["mean"] - short["random"]) < 0.05
    assert short["on top"]["mean"] < 0.3 and abs(short["shuffled"] - 2 / 40) < 0.01
    assert all(gap["low"] > 0 for against in data["facts less"].values() for gap in against.values())
    others = [
        summarised(np.random.default_rng(n).normal(size=strong.shape), docs, asked, halves, losses) for n in range(8)
    ]
    assert sum(other["lds"]["p"] < 0.05 for other in others) <= 2  # each is below it once in twenty
    gaps = [other["facts less"][SHORT]["concentration"]["mean"] for other in others]
    assert abs(np.mean(gaps)) < 0.1


def test_agreement_is_scipys_correlation_ties_and_all() -> None:
    rng = np.random.default_rng(0)
    halves, influence = kept_in(8, 6, 0), rng.integers(-2, 3, size=(9, 6)).astype(float)
    losses = rng.integers(0, 4, size=(8, 9)).astype(float)
    influence[0], losses[:, 1] = 0.0, 2.0  # the same in every half
    found = lds(influence, halves, losses)
    pairs = zip(influence[2:], losses.T[2:], strict=True)
    with_ties = [spearmanr(halves @ one, -loss).statistic for one, loss in pairs]
    assert found[:2].tolist() == [0.0, 0.0] and np.allclose(found[2:], with_ties) and np.ptp(found) > 0.5


def test_concentration_of_nothing_positive() -> None:
    assert concentration(-np.ones((1, 5)), 2).tolist() == [0.0]
    assert concentration(np.array([[3.0, 1.0, -7.0, 0.0]]), 1).tolist() == [0.75]


def test_texts_do_not_leak_and_the_analysis_runs(tiny: Model) -> None:
    docs, asked = influence.texts(tiny, 12, 3, 0)
    assert {doc.said for doc in docs}.isdisjoint(query.said for query in asked)
    held = [[doc.said for doc in docs if query.answer in doc.said] for query in asked if query.kind == FACTS]
    assert all(len(some) == 1 for some in held)
    short = [query for query in asked if query.kind == SHORT]
    assert all(len(query.example.target) < len(query.example.prompt) for query in short)
    result = analyse("influence", tiny, documents=12, queries=3, subsets=4, steps=2, layers=2)
    assert len(result.table) == 3 and result.figure.data and json.dumps(result.data)


def test_refusals(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no more queries than half"):
        analyse("influence", tiny, documents=8, queries=5)
    with pytest.raises(UserError, match=r"^documents 9, .* an even number of documents"):
        analyse("influence", tiny, documents=9, queries=2, subsets=4, steps=1, layers=1)
    monkeypatch.setattr(influence, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs kronfluence .* pip install"):
        analyse("influence", tiny)
