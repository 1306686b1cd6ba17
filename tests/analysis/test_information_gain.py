"""Information gain of thoughts on a model whose preferences are known: what informs, what only seems to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import elicit
from elicit.analysis import analyse
from elicit.analysis.reasoning.information_gain import MASKED, Gains, masked, measure, summarised
from elicit.models import Model, Prompt
from elicit.tasks.base import Item
from elicit.training.rl.information_gain import NULLS, gains
from probes.errors import UserError
from tests.support.planted_model import EVIDENCE, planted, riddles

ITEMS = riddles()
SPEAKS = {digit: sign for sign, digit in EVIDENCE.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Evidence speaks for digits, and a digit for itself; full stops speak for all of them."""
    says = {**EVIDENCE, **{d: d for d in "1234"}}
    return planted(tmp_path_factory.mktemp("planted"), says)


def read(model: Model, said: Sequence[str]) -> dict[str, Any]:
    thoughts = [list(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in said]
    found = measure(model.lm, model.tokenizer, Prompt(), ITEMS.items, thoughts)
    own = gains(model.lm, model.tokenizer, Prompt(), ITEMS.items, thoughts)
    np.testing.assert_allclose(found.gain, own, atol=1e-4)  # the reward of that name says the same
    return summarised(found)


def clue(item: Item) -> str:
    return SPEAKS[item.answer or ""]


def test_gains_without_an_interval_inform_of_nothing() -> None:
    """Two alike, beyond what a bound is known of: nothing can be said."""
    gain, nothing = np.full(2, 3.0), np.zeros(2)
    found = summarised(Gains(["a", "b"], np.ones(2), gain, {**dict.fromkeys(NULLS, nothing), MASKED: gain}))
    assert np.isnan(found["gain"]["low"]) and found["says"] == "no more than a null"


def test_a_thought_that_speaks_for_the_answer_informs(model: Model) -> None:
    found = read(model, [f" hm {clue(item)} and so {clue(item)}. " for item in ITEMS])
    assert found["gain"]["low"] > 0.1 and found["left when masked"]["low"] > 0.1
    assert found["says"] == "informs, in any order"  # the model counts characters and reads no order


def test_an_answer_that_is_only_stated_is_caught_by_the_mask(model: Model) -> None:
    found = read(model, [f" hm {item.answer} and so {item.answer}. " for item in ITEMS])
    assert found["gain"]["low"] > 0.1
    assert abs(found["nulls"][MASKED]["mean"]) < 0.05
    assert found["says"] == "states the answer, no more"


def test_a_thought_that_speaks_for_every_answer_is_caught_by_another_questions_thought(model: Model) -> None:
    found = read(model, [f" hm {''.join(EVIDENCE)} and so. " for _ in ITEMS])
    assert found["gain"]["low"] > 0.1
    assert found["beyond"][NULLS[0]]["low"] <= 0 and found["says"] == "no more than a null"


def test_what_the_mask_hides(model: Model) -> None:
    def text(said: str, answer: str) -> str:
        ids = list(model.tokenizer(said, add_special_tokens=False)["input_ids"])
        out = masked(model.tokenizer, ids, answer)
        assert len(out) == len(ids)
        return str(model.tokenizer.decode(out))

    assert text("12 is 3, 3.5, x3 or 3.", "3") == "12 is  , 3.5, x3 or .."
    assert text("no such", "3") == "no such"


def test_a_run_without_thoughts(tmp_path: Path) -> None:
    model = planted(tmp_path / "model")  # no prompt speaks for anything: it ends at once
    task = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=6)
    handle = elicit.methods.cot_prompt.fit(model, max_new_tokens=6)
    run = elicit.evaluate(handle, task.test, out=tmp_path / "run", against="direct")
    with pytest.raises(UserError, match="no arm has thoughts"):
        analyse("information-gain", [run])


def test_refusals(model: Model) -> None:
    with pytest.raises(UserError, match="give two that say something"):
        measure(model.lm, model.tokenizer, Prompt(), ITEMS.items[:1], [[3]])
