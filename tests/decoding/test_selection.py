"""Selection and Δ on branches made by hand, where the right reading is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elicit.decoding import Generation, Trace
from elicit.decoding.answering import Response, found_again
from elicit.decoding.selection import RULES, select
from elicit.decoding.trace import answer_delta, filter_path, other_deltas, token_margins
from elicit.tasks.grading import NumberGrader


def trace(
    index: int, answer: str | None, delta: float | None, *, right: bool = False, dropped: str = "", lp: float = -1.0
) -> Trace:
    return Trace(
        "q",
        index,
        3,
        [1, 2],
        [1, 2],
        "ab",
        [0.5, 0.5],
        [0.1, 0.1],
        [1.0, 1.0],
        [lp, lp],
        "eos",
        3,
        answer,
        (1, 2),
        delta,
        dropped,
        float(right),
    )


BRANCHES = [
    trace(0, "5", 0.30, lp=-0.1),
    trace(1, "1,234", 0.40, right=True),
    trace(2, "5.0", 0.35),
    trace(3, "1234.00", 0.45, right=True),
    trace(4, "9", 0.60),
    trace(5, "8", 0.99, right=True, dropped="cut at the limit"),
    trace(6, "5", 0.05),
]


@pytest.mark.parametrize(
    ("rule", "answer", "score"),
    [
        ("greedy", "5", 0.0),
        ("max", "9", 0.0),
        ("sum", "1,234", 1.0),  # 0.85 against 0.70 and 0.60: only if 1,234 = 1234.00
        ("vote", "5", 0.0),
        ("mean-logprob", "5", 0.0),
        ("oracle", "1,234", 1.0),
        ("random", None, 2 / 6),
    ],
)
def test_rules(rule: str, answer: str | None, score: float) -> None:
    verdict = select(rule, BRANCHES, NumberGrader())
    assert verdict.answer == answer and verdict.score == pytest.approx(score) and not verdict.fallback


def test_where_no_path_is_left_the_greedy_one_answers_and_it_is_said() -> None:
    dropped = [trace(0, "5", 0.1, right=True, dropped="ends with ?"), trace(1, None, None, dropped="no answer")]
    for rule in RULES:
        verdict = select(rule, dropped, NumberGrader())
        assert verdict.score == 1.0
        assert verdict.fallback is (rule not in ("greedy", "oracle"))


def test_filters() -> None:
    assert filter_path("  \n", "eos", None) == "empty"
    assert filter_path("7 and 8", "length", "8") == "cut at the limit"
    assert filter_path("is it 7? ", "eos", "7") == "ends with ?"
    assert filter_path("no", "eos", None) == "no answer"
    assert filter_path("it is 7.", "stop", "7") == ""


def test_delta_is_the_mean_over_the_answer_alone() -> None:
    top1, top2 = np.array([0.6, 0.9, 0.8, 0.7]), np.array([0.3, 0.05, 0.1, 0.2])
    logprob = np.log(np.array([0.2, 0.9, 0.8, 0.7]))  # the first token is not the most likely one
    generation = Generation(np.arange(4), top1, top2, top1, logprob, np.zeros(4), 0, "eos", 5)
    assert answer_delta(generation, (1, 3)) == pytest.approx((0.85 + 0.7) / 2)
    # the branching token inside the answer: its own margin, not the greedy token's
    assert token_margins(top1, top2, logprob)[0] == pytest.approx(0.2 - 0.6)
    assert answer_delta(generation, (0, 1)) == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("text", "answer", "start"),
    [
        ("3 + 12 = 15.", "5", None),
        ("5 and 12 make 15.", "5", 0),
        ("0.5 or 5", "5", 7),
        ("0.5", "5", None),
        ("1,500", "500", None),
        ("so (3 + 4) it is", "(3 + 4)", 3),
        ("it is A.", "A", 6),
        ("Any", "A", None),
        ("5", None, None),
    ],
)
def test_an_answer_that_is_asked_for_is_found_as_a_whole(text: str, answer: str | None, start: int | None) -> None:
    found = found_again(Response(text, [len(text)], None), answer).found
    assert (found and found.start) == start and (found is None or found.text == answer)


def test_the_other_readings_of_the_branching_token() -> None:
    """Margins 0.2 (not taken: −0.3), 0.6 and 0.8; the answer holds the first token, then not."""
    top1, top2 = np.array([0.5, 0.7, 0.9]), np.array([0.3, 0.1, 0.1])
    logprob = np.log(np.array([0.2, 0.7, 0.9]))
    margins = token_margins(top1, top2, logprob)
    assert margins == pytest.approx([-0.3, 0.6, 0.8])
    read = other_deltas(top1, top2, float(margins[:2].mean()), logprob, (0, 2))
    assert read == (pytest.approx((0.2 + 0.6) / 2), pytest.approx(0.6 / 2))
    greedy = other_deltas(top1, top2, 0.4, np.log(top1), (0, 2))  # the greedy branch keeps its margin, or has 0
    assert greedy == (pytest.approx(0.4), pytest.approx(0.3))
    nothing = (None, None)
    assert other_deltas(top1, top2, 0.7, logprob, (1, 3)) == nothing == other_deltas(top1, top2, None, logprob, None)


def test_other_readings_are_kept_where_they_are_and_read_where_they_are_not() -> None:
    plain = trace(1, "5", 0.1)
    assert not {"delta_greedy", "delta_zero"} & plain.to_dict().keys()
    with_them = replace(plain, delta_greedy=0.0, delta_zero=-0.2)
    assert Trace.from_dict(with_them.to_dict()) == with_them and with_them.to_dict()["delta_greedy"] == 0.0
    assert Trace.from_dict(plain.to_dict()) == plain
