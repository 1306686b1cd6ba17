"""Which answers have a chain of thought that the analyses of reasoning read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from elicit.analysis import analyse
from elicit.analysis.continuations import has_cot
from elicit.decoding import Trace
from elicit.elicited import Elicited
from elicit.models import Model
from elicit.tasks.base import Item
from probes.errors import UserError
from tests.support.planted import answer, planted, questions


def bare(item: Item) -> Trace:
    """` 12` in three tokens, the first of which is a blank, as in most vocabularies of today."""
    text = f" {item.answer}"
    n = len(text)
    statistics = {"top1": [0.9] * n, "top2": [0.05] * n, "entropy": [0.1] * n, "logprob": [-0.1] * n}
    tokens = {"tokens": list(range(1, n + 1)), "ends": list(range(1, n + 1)), "span": (1, n)}
    return replace(answer(item, True), text=text, **tokens, **statistics)


@pytest.mark.parametrize("name", ["information-gain", "commitment", "faithfulness", "thought-anchors"])
def test_a_blank_before_the_answer_is_no_thought(name: str, tiny: Model, tmp_path: Path) -> None:
    items = questions(4)
    run = planted(
        tmp_path / "run", items, {"direct": (Elicited(tiny, "planted"), {item.id: [bare(item)] for item in items})}
    )
    with pytest.raises(UserError, match=r"^no arm has thoughts before its answers \(direct\)"):
        analyse(name, [run])


def test_words_before_the_answer_are_a_thought() -> None:
    (item,) = questions(1)
    assert has_cot(answer(item, True)) and not has_cot(bare(item))
    assert has_cot(replace(answer(item, True), span=None)) and not has_cot(replace(bare(item), tokens=[], span=None))
