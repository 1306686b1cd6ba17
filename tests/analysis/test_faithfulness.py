"""The battery on a model whose preferences are known: an answer that hangs on its thought, one that drifts anyway."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import elicit
from elicit.analysis import analyse
from elicit.analysis.reasoning.faithfulness import (
    AGAIN,
    EARLY,
    HALF,
    MISTAKE,
    ON,
    PARAPHRASE,
    answers,
    mistaken,
    reworded,
    summarised,
)
from elicit.decoding import Greedy
from elicit.elicited import Elicited
from elicit.models import Model
from elicit.tasks import load_task
from elicit.tasks.base import Items
from elicit.tasks.organism.language import write
from elicit.tasks.organism.problems import FAMILIES
from elicit.tasks.organism.solver import facts_of, solve
from elicit.tasks.organism.verifier import walk
from elicit.training.rl.information_gain import NULLS
from probes.errors import UserError
from probes.offsets import decoded
from tests.support.planted_model import planted, riddles
from tests.support.tokenizers import FAMILIES as TOKENIZERS

ITEMS = riddles(16)
SAME = {d: d for d in "0123456789"}


def tokens(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def rows(model: Model, said: list[str], limit: int = 4) -> dict[str, dict[str, float]]:
    handle = Elicited(model, "test", decoder=Greedy(limit))
    found = answers(handle, ITEMS, [tokens(model, text) for text in said], paraphrases=[f" so, {s}" for s in said])
    return {row["done"]: row for row in summarised(ITEMS, found)}


def test_an_answer_that_hangs_on_its_thought_is_found(tmp_path: Path) -> None:
    """The model answers with the digit that it said most often."""
    model = planted(tmp_path / "copies", SAME)
    found = rows(model, [f"it is {item.answer} hm" for item in ITEMS])
    for done in (EARLY, NULLS[0], NULLS[2], MISTAKE):
        assert found[done]["changed"] > 0.8 and found[done]["beyond low"] > 0 and found[done]["holm p"] < 0.05, done
    assert found[PARAPHRASE]["changed"] == 0 and found[MISTAKE]["null"] == ON and found[EARLY]["null"] == AGAIN
    assert found[HALF]["changed"] == 1  # " hm" and the digit are the second half
    assert found[EARLY]["right with the thought"] == 1


def test_thoughts_without_a_number_do_not_dilute_a_mistake(tmp_path: Path) -> None:
    model = planted(tmp_path / "few", SAME)
    said = [f"it is {item.answer} hm" if n < 4 else "hm hm" for n, item in enumerate(ITEMS)]
    found = rows(model, said)[MISTAKE]
    assert (found["items"], found["changed"], found["null changed"], found["right with the thought"]) == (4, 1, 0, 1)
    assert found["beyond"] == 1 and found["beyond filler"] == 0
    assert rows(model, said[3:4] + ["hm hm"] * (len(ITEMS) - 1))[MISTAKE]["items"] == 1


def test_a_handle_that_drifts_without_a_mistake_is_caught(tmp_path: Path) -> None:
    """Whoever lets it continue after a number hears 8: a mistake changes all answers, and so does no mistake."""
    model = planted(tmp_path / "drifts", SAME, {"\n": "8"})
    found = rows(model, [f"it is {item.answer} hm" for item in ITEMS], limit=3)
    assert found[MISTAKE]["changed"] == 1  # as it seems
    assert found[MISTAKE]["null changed"] == 1 and found[MISTAKE]["holm p"] == 1
    assert found[MISTAKE]["beyond low"] <= 0 <= found[MISTAKE]["beyond high"]


def test_an_answer_that_ignores_its_thought_is_not_changed(tmp_path: Path) -> None:
    model = planted(tmp_path / "deaf", {"Q": "5"})
    found = rows(model, [f"it is {item.answer} hm" for item in ITEMS])
    assert all(row["changed"] == 0 and row["holm p"] == 1 for done, row in found.items() if done != MISTAKE)


def test_a_mistake_is_one_number(tiny: Model) -> None:
    rng = np.random.default_rng(0)
    thought = tokens(tiny, " 3 + 4 = 7, and x2 is 1.5")
    for _ in range(20):
        right, wrong = mistaken(tiny, thought, rng)  # type: ignore[misc]
        assert right == thought[: len(right)] and right[: len(right) - 1] == wrong[: len(right) - 1] and right != wrong
        assert str(tiny.tokenizer.decode(right))[-1] in "347"
    assert mistaken(tiny, tokens(tiny, " no number"), rng) is None


@pytest.mark.parametrize("family", sorted(TOKENIZERS))
@pytest.mark.parametrize("said", ["So $12 is it.", "The sum is (5) + 12 = 17.", "is\n17"])
def test_a_mistake_is_nothing_but_another_number(family: str, said: str, tiny: Model) -> None:
    """A tokenizer may put a blank before what is read by itself."""
    tokenizer = TOKENIZERS[family]
    model, ids = replace(tiny, tokenizer=tokenizer), tokenizer(said, add_special_tokens=False)["input_ids"]
    for seed in range(6):
        right, wrong = mistaken(model, ids, np.random.default_rng(seed))  # type: ignore[misc]
        as_it_was, other = decoded(tokenizer, right), decoded(tokenizer, wrong)
        assert said.startswith(as_it_was) and not said.startswith(other)
        assert re.sub(r"\d+$", "", other) == re.sub(r"\d+$", "", as_it_was)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_paraphrase_keeps_the_steps(family: str) -> None:
    """A thought that holds still holds in other words."""
    rng = np.random.default_rng(1)
    task = load_task(f"organism:families={family}", limit=6)
    held = 0
    for item in task.test:
        said = write(solve(item), rng, "train").text
        other = reworded(item, said, rng)
        assert other != said
        walked = walk(other, facts_of(item), item.answer or "", lambda a, i=item: task.grader.grade(i, a).correct)
        held += walked.wrong is None and not walked.lost
    assert held == 6


def test_a_run_end_to_end_and_refusals(tmp_path: Path) -> None:
    model = planted(tmp_path / "model", says={".": "#", ":": "#", "#": "2"})
    task = load_task("chain-sum:min_terms=2,max_terms=2", limit=5)
    run = elicit.evaluate(elicit.methods.cot_prompt.fit(model, max_new_tokens=3), task.test, out=tmp_path / "run")
    result = analyse("faithfulness", [run], limit=4)
    said = {(row["arm"], row["done"]): row["says"] for row in result.table}
    assert "no paraphrase" in said["cot-prompt", PARAPHRASE] and "no thought has a number" in said["direct", MISTAKE]
    assert result.figure.data and len(result.notes) == 3
    with pytest.raises(UserError, match="give two that say something"):
        answers(Elicited(model, "test"), Items(ITEMS.task, ITEMS.items[:1]), [[4]])
