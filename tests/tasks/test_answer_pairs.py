"""Pairs of a gold answer and a response, with a verdict by hand: what is found in a response, and how it is judged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.tasks.answers import FOUND_BY, KINDS, find_answer
from elicit.tasks.base import Item
from elicit.tasks.grading import grader_for

FILE = Path(__file__).parent / "answer_pairs.jsonl"
PAIRS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").split("\n") if line]


def verdict(kind: Any, gold: str, response: str) -> bool:
    found = find_answer(response, kind)
    return grader_for(kind).grade(Item("i", "q", gold, "test"), found.text if found else None).correct


def test_pairs_are_told_apart_and_many_are_wrong() -> None:
    assert (
        len({pair["id"] for pair in PAIRS}) == len({(p["kind"], p["gold"], p["response"]) for p in PAIRS}) == len(PAIRS)
    )
    assert {pair["kind"] for pair in PAIRS} <= set(KINDS)
    assert all(pair["reason"] and pair["source"] for pair in PAIRS)
    assert len(PAIRS) >= 600 and sum(not pair["verdict"] for pair in PAIRS) >= 250
    assert sum(" on " in pair["source"] for pair in PAIRS) >= 300  # what two real models said


def test_verdicts_agree_with_those_by_hand() -> None:
    told = {pair["id"]: verdict(pair["kind"], pair["gold"], pair["response"]) for pair in PAIRS}
    other = [pair for pair in PAIRS if told[pair["id"]] is not pair["verdict"]]
    accepted = [pair["id"] for pair in other if not pair["verdict"]]
    assert len(accepted) <= 1, accepted
    assert len(other) <= 0.01 * len(PAIRS), [pair["id"] for pair in other]


@pytest.mark.parametrize(
    "form",
    [
        "{}", "The answer is {}.", "The answer is:\n\n\\[ {} \\]", "So we get \\({}\\).", "\\boxed{{{}}}", "#### {}",
        "Final Answer: The final answer is ${}$. I hope it is correct.", "<answer>{}</answer>", "**Answer:** {}",
        "Therefore, the final answer is $\\boxed{{{}}}$. (See step 2.)", "**Final Answer**\n\\[\n\\boxed{{{}}}\n\\]",
        "First 3 + 4 = 7.\n\nSo the answer is $$\n{}\n$$", "<think>maybe 5</think>\nThe answer is {}",
    ],
)  # fmt: skip
def test_gold_answers_are_found_however_they_are_said(form: str) -> None:
    golds = dict.fromkeys((pair["kind"], pair["gold"]) for pair in PAIRS if pair["kind"] in ("number", "math"))
    said = [(kind, gold) for kind, gold in golds if not gold.endswith("!") and ("$" not in gold or "$" not in form)]
    assert [(kind, gold) for kind, gold in said if not verdict(kind, gold, form.format(gold))] == []


@pytest.mark.parametrize(
    "form",
    ["\\boxed{{{{{}}}}}", "\\boxed{{\\color{{red}}{{{}}}}}", "\\boxed{{\\Large {}}}", "\\(\\text{{Answer: }} {}\\)",
     "\\begin{{align*}}\nx &= 3 + 4 \\\\\n&= {}.\n\\end{{align*}}"],
)  # fmt: skip
def test_gold_answers_are_found_however_they_look(form: str) -> None:
    """Braces around all of it, colour, size, words before it, the last line of a derivation."""
    plain = re.compile(r"-?(?:\d+(?:\.\d+)?|\\[dt]?frac\{\d+\}\{\d+\}|(?:\d+)?\\sqrt\{\d+\}|\d+\\pi)")
    golds = dict.fromkeys(pair["gold"] for pair in PAIRS if pair["kind"] == "math" and plain.fullmatch(pair["gold"]))
    assert len(golds) > 50
    assert [gold for gold in golds if not verdict("math", gold, form.format(gold))] == []
    assert [gold for gold in golds if verdict("math", gold, form.format("3" + gold.replace("-", "")))] == []


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["id"])
def test_an_answer_stands_where_its_span_says(pair: dict[str, Any]) -> None:
    found = find_answer(pair["response"], pair["kind"])
    if found is None:
        return
    said = pair["response"][found.start : found.end]
    assert 0 <= found.start < found.end and found.found_by in FOUND_BY
    assert said == found.text or said.upper() == found.text or (found.found_by == "box" and "boxed" in said)


@pytest.mark.parametrize("kind", sorted({pair["kind"] for pair in PAIRS}))
def test_other_gold_answers_leave_nothing(kind: Any) -> None:
    """So that shuffled gold answers bring every method to chance: a response is right by no gold answer but its own."""
    rng, grader = np.random.default_rng(0), grader_for(kind)
    golds = np.array(sorted({pair["gold"] for pair in PAIRS if pair["kind"] == kind}), dtype=object)
    wrongly = []
    for pair in PAIRS:
        if pair["kind"] == kind and pair["verdict"]:
            drawn = [gold for gold in rng.permutation(golds)[:8] if gold != pair["gold"]]
            others = [g for g in drawn if not grader.grade(Item("i", "q", g, "test"), pair["gold"]).correct]
            wrongly += [(pair["id"], gold) for gold in others if verdict(kind, gold, pair["response"])]
    assert len(wrongly) <= 1, wrongly
