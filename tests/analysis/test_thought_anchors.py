"""Anchors on a model whose preferences are known: the sentence that decides, and samples that differ by chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import elicit
from elicit.analysis import analyse
from elicit.analysis.continuations import continuations, continued
from elicit.analysis.reasoning.thought_anchors import anchors, chosen, halves, variation
from elicit.decoding import Greedy, Sampling
from elicit.elicited import Elicited
from elicit.models import Model
from elicit.tasks.base import Items
from elicit.tasks.free_text import free_text
from probes.errors import UserError
from tests.support.planted_model import EVIDENCE, planted, riddles
from tests.support.tiny import save_tiny

ITEMS = riddles(8)
SPEAKS = {digit: sign for sign, digit in EVIDENCE.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return planted(tmp_path_factory.mktemp("planted"))


def tokens(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def thoughts(model: Model) -> list[list[int]]:
    """Four sentences, the third of which speaks for the right answer."""
    return [tokens(model, f"Xx xx. Yy yy. It {SPEAKS[i.answer or '']} is. Zz") for i in ITEMS]


def test_variation_is_half_the_distance_of_the_shares() -> None:
    one, other = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 3])
    shares = [np.bincount(some, minlength=4) / 4 for some in (one, other)]
    assert variation(one, other) == np.abs(shares[0] - shares[1]).sum() / 2 == 0.5
    assert variation(one, one[::-1]) == 0 and variation(one, one + 4) == 1
    np.testing.assert_allclose(variation(np.stack([one, one]), np.stack([other, one])), [0.5, 0])


def test_the_halves_of_one_distribution_differ_as_much() -> None:
    """Over many pairs of samples of one distribution what is beyond the halves is 0, and p is uniform."""
    rng = np.random.default_rng(0)
    drawn = [halves(*rng.integers(0, 4, (2, 20)), rng) for _ in range(150)]
    values, nulls, ps = (np.array(column) for column in zip(*drawn, strict=True))
    error = (values - nulls).std() / len(drawn) ** 0.5
    assert values.mean() > 0.1 and abs((values - nulls).mean()) < 3 * error
    assert (ps < 0.05).mean() <= 0.1 and (ps < 0.5).mean() > 0.2
    assert halves(np.zeros(8, dtype=int), np.ones(8, dtype=int), rng)[2] < 0.01


def test_the_sentence_that_decides_is_found(model: Model) -> None:
    handle = Elicited(model, "test", decoder=Greedy(4))
    found = anchors(handle, ITEMS, thoughts(model), samples=8, temperature=0.1)
    assert [one.number for one in found] == [0, 1, 2, 3] * len(ITEMS)
    assert {one.place for one in found[:4]} == {"first", "middle", "last"}
    for one in found:
        decides = one.number == 2
        assert ("is." in one.text) == decides == (one.p < 0.05), one
        assert (one.importance > 0.9) == (one.accuracy > 0.9) == decides and one.null < 0.5


def test_samples_that_differ_by_chance_have_no_anchors(model: Model) -> None:
    """At such a temperature every token is as likely as any other, whatever was said."""
    handle = Elicited(model, "test", decoder=Greedy(8))
    found = anchors(handle, ITEMS, thoughts(model), samples=12, temperature=1e6)
    beyond = np.array([one.importance - one.null for one in found])
    assert np.mean([one.importance for one in found]) > 0.1  # as it seems
    assert abs(beyond.mean()) < 3 * beyond.std() / len(beyond) ** 0.5
    assert np.mean([one.p < 0.05 for one in found]) <= 0.1


def test_long_thoughts_are_looked_at_evenly(model: Model) -> None:
    assert chosen(3, 12) == [0, 1, 2] and chosen(9, 3) == [0, 4, 8] and chosen(5, 1) == [0]
    found = anchors(
        Elicited(model, "test", decoder=Greedy(4)), ITEMS, thoughts(model), samples=2, sentences=2, temperature=0.1
    )
    assert [(one.number, one.of) for one in found] == [(0, 4), (3, 4)] * len(ITEMS)


def test_all_continuations_are_those_that_come_one_by_one(model: Model) -> None:
    handle = Elicited(model, "test", decoder=Greedy(4))
    begun = [thought[:9] for thought in thoughts(model)]
    both = continuations(handle, ITEMS, begun, Sampling(2, 1.0, max_new_tokens=4))
    for n in range(2):
        alone = continued(handle, ITEMS, begun, Sampling(1, 1.0, max_new_tokens=4, first_sample=n))
        assert [answers[n] for answers in both] == alone


def test_a_budget_of_thought_counts_what_was_begun(tmp_path: Path) -> None:
    """A handle comes to its own answer from wherever in its thought it goes on, and to none without a budget."""
    model = elicit.load_model(str(save_tiny(tmp_path / "tiny")), dtype="float32", device="cpu")
    handle = elicit.methods.fit("direct", model, prompt="qa:begin=<think>,thought_tokens=5", max_new_tokens=24)
    items = free_text(["a b c", "d d e f g", "h"])
    items = Items(replace(items.task, kind="whole"), items.items)
    own = [trace for (trace,) in handle.answer(items)]
    assert all(trace.text[5:13] == "</think>" and trace.answer for trace in own)
    for cut in (0, 3, 5, 8):
        begun = [tokens(model, trace.text)[:cut] for trace in own]
        assert continued(handle, items, begun, Greedy(24 - cut)) == [trace.answer for trace in own]


def test_a_run_end_to_end(tmp_path: Path) -> None:
    model = planted(tmp_path / "model", says={".": "#", ":": "#", "#": "2"})
    task = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=4)
    run = elicit.evaluate(elicit.methods.cot_prompt.fit(model, max_new_tokens=3), task.test, out=tmp_path / "run")
    result = analyse("thought-anchors", [run], samples=4)
    assert {row["arm"] for row in result.table} == {"cot-prompt", "direct"}
    assert all(set(row) == set(result.table[0]) for row in result.table)
    assert result.figure.data and len(result.more) == len(result.data["arms"])
    (drawn,) = (one for one in result.figure.data if one.name == "importance")
    ends = zip(drawn.x, drawn.error_x.arrayminus, drawn.error_x.array, strict=True)
    assert all(x >= below and x + above <= 1 + 1e-12 for x, below, above in ends)


def test_refusals(model: Model) -> None:
    handle = Elicited(model, "test")
    with pytest.raises(UserError, match="give one that says something"):
        anchors(handle, ITEMS[:2], [[5], []])
    with pytest.raises(UserError, match="at least 2 and 1"):
        anchors(handle, ITEMS[:1], [[5]], samples=1)
