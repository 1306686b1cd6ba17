"""Curves of commitment on a model whose preferences are known: what the text decides, and what mere length does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import elicit
from elicit.analysis import analyse
from elicit.analysis.reasoning.commitment import (
    CONDITIONS,
    MEASURES,
    OWN,
    Curve,
    _band,
    _rows,
    curves,
    free,
    summarised,
)
from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.models import Model
from elicit.training.rl.information_gain import NULLS
from probes.errors import UserError
from tests.support.planted_model import EVIDENCE, planted, riddles

ITEMS = riddles(24)
SPEAKS = {digit: sign for sign, digit in EVIDENCE.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Evidence speaks for its digit, and a full stop speaks for 7."""
    return planted(tmp_path_factory.mktemp("planted"), {**EVIDENCE, ".": "7"})


def tokens(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_the_measures_are_those_of_the_curve() -> None:
    match = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]], dtype=bool)
    curve = Curve(match, np.array([[-4.0, -4.0, -1.0, -0.5, -0.5], [-1.0, -1.0, -1.0, -1.0, -1.0]]))
    found = curve.measures()
    np.testing.assert_allclose(found["area over the curve"], [1 - 2.5 / 4, 0])
    np.testing.assert_allclose(found["Spearman"], [0.9486833, 0], atol=1e-6)  # scipy.stats.spearmanr
    np.testing.assert_allclose(found["largest jump"], [3, 0])
    assert curve.jumps_at[0] == 0.5


def test_fractions_have_intervals_of_fractions() -> None:
    match = np.array([[0, 0, 1, 1, 1]] * 6 + [[0, 0, 0, 0, 1]] * 2, dtype=bool)
    band = _band(match.astype(float), 0)
    assert band.low is not None and band.high is not None
    assert band.low[0] == 0 and band.low[2] > 0 and band.high[4] == 1
    still = Curve(np.ones((8, 3), dtype=bool), np.zeros((8, 3)))
    area = summarised(dict.fromkeys(CONDITIONS, still))["area over the curve"]
    assert area["low"] == area["mean"] == area[NULLS[2]]["low"] == 0 < area["high"]
    assert area[f"beyond {NULLS[2]}"]["low"] < 0


@pytest.mark.parametrize(
    ("ends", "says"),
    [
        (((0.1, 0.3), (0.2, 0.4)), "the thought's own"),
        (((-0.3, -0.1), (-0.4, -0.2)), "the thought's own"),
        (((0.1, 0.3), (-0.4, -0.2)), "no more than a null"),  # between the two
        (((0.1, 0.3), (-0.1, 0.2)), "no more than a null"),
    ],
)
def test_what_lies_between_two_nulls_is_beyond_neither(ends: tuple[tuple[float, float], ...], says: str) -> None:
    beyond = {
        f"beyond {null}": {"mean": (low + high) / 2, "low": low, "high": high}
        for null, (low, high) in zip(CONDITIONS[1:], ends, strict=True)
    }
    told = {measure: {"mean": 0.5, **beyond} for measure in MEASURES}
    rows = _rows("arm", {**told, "answers before thinking": 0.0, "jumps at": 0.5})
    assert {row["says"] for row in rows[: len(MEASURES)]} == {says}


def test_a_thought_that_decides_half_way_is_found(model: Model) -> None:
    thoughts = [tokens(model, "xxxxxxxxxx" + SPEAKS[i.answer or ""] + "yyyyyyyyy") for i in ITEMS]
    handle = Elicited(model, "test", decoder=Greedy(4))
    answers = [i.answer or "" for i in ITEMS]
    found = curves(handle, ITEMS, thoughts, answers)
    assert not found[OWN].match[:, :6].any() and found[OWN].match[:, 6:].all()
    assert (found[OWN].jumps_at == 0.6).all()
    told = summarised(found)
    assert told["largest jump"][f"beyond {NULLS[2]}"]["low"] > 0
    assert told["area over the curve"][f"beyond {NULLS[0]}"]["high"] < 0
    assert told["answers before thinking"] == 0
    freely = free(handle, ITEMS, thoughts, answers, temperature=0.1)
    assert freely[:, 3:].mean() > freely[:, :2].mean()


def test_confidence_that_rises_with_length_alone_is_caught(model: Model) -> None:
    thoughts = [tokens(model, " ..." * (4 + n % 3)) for n in range(len(ITEMS))]
    found = summarised(curves(Elicited(model, "test"), ITEMS, thoughts, ["7"] * len(ITEMS)))
    assert found["Spearman"]["mean"] > 0.8 and found["largest jump"]["low"] > 0  # as it seems
    for measure in ("Spearman", "largest jump", "area over the curve"):
        beyond = found[measure][f"beyond {NULLS[2]}"]
        assert beyond["low"] <= 0 <= beyond["high"], measure
    assert set(CONDITIONS) == {OWN, NULLS[0], NULLS[2]}


def test_a_run_end_to_end(tmp_path: Path) -> None:
    model = planted(tmp_path / "model", says={".": "#", ":": "#", "#": "2"})  # it says #, and then 2
    task = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=5)
    handle = elicit.methods.cot_prompt.fit(model, max_new_tokens=8)
    run = elicit.evaluate(handle, task.test, out=tmp_path / "run", against=("direct", "self-consistency"))
    result = analyse("commitment", [run], cuts=4, limit=4)
    assert {row["arm"] for row in result.table} == {"cot-prompt", "direct", "self-consistency"}
    assert all(len(set(row)) == len(result.table[0]) for row in result.table)
    gain = analyse("information-gain", [run])
    assert any(row["items"] for row in gain.table) and gain.figure.data


def test_refusals(model: Model) -> None:
    handle = Elicited(model, "test")
    with pytest.raises(UserError, match="give two that say something"):
        curves(handle, ITEMS[:2], [[5], []], ["1", "2"])
    with pytest.raises(UserError, match="at least 2 parts"):
        curves(handle, ITEMS[:2], [[5], [5]], ["1", "2"], cuts=1)
