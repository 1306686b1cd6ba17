"""The measures of analyses of runs on planted data: each null catches a false effect, and lets a true one stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elicit.analysis.behaviour.convergence import overlap
from elicit.analysis.behaviour.correction_harm import Churn, flips
from elicit.analysis.behaviour.distribution_shift import fall
from elicit.analysis.behaviour.format_share import FORMATS, Outputs, classify, decompose
from elicit.analysis.behaviour.pass_at_k import Samples, crossing
from elicit.analysis.behaviour.reflection import measure as reflection
from elicit.analysis.behaviour.reflection import reflects
from elicit.analysis.behaviour.routing import Pair, choose, judge
from elicit.analysis.behaviour.where_it_acts import forks
from elicit.analysis.behaviour.where_it_acts import measure as acting
from probes.dots import Dot, dot_plot
from probes.errors import UserError
from probes.likelihood import continuations
from probes.statistics import against_null, central, question_weights
from tests.support.planted import answer, questions
from tests.support.tiny import tiny_model


def drawn(p: np.ndarray, n: int, seed: int, cost: int = 10) -> Samples:
    right = np.random.default_rng(seed).binomial(n, p)
    return Samples(np.full(len(p), n), right, np.full(len(p), n * cost))


def test_null_and_its_p() -> None:
    draws = np.arange(-50.0, 50.0)
    found = against_null(200.0, draws)
    assert found.mean == -0.5 and found.p == 1 / 101 and found.interval.low < -40 < 40 < found.interval.high
    assert against_null(-200.0, draws, greater=True).p == 1.0
    assert against_null(draws.mean(), draws).p == 1.0
    assert math.isnan(against_null(float("nan"), draws).p) and math.isnan(against_null(1.0, np.array([])).mean)
    assert central(np.array([1.0, 2.0, math.inf])).high == math.inf  # "never" may be an end of an interval
    assert math.isnan(central(np.array([1.0, math.nan, math.nan])).low)
    weight = question_weights(7, seed=1, resamples=50)
    assert weight.shape == (50, 7) and (weight.sum(1) == 7).all()


# pass@k


def test_two_equal_arms_cross_by_chance_and_the_null_says_so() -> None:
    p = np.random.default_rng(0).uniform(0, 0.4, 40)
    crossed = 0
    for seed in range(4):
        found = crossing(drawn(p, 16, 2 * seed), drawn(p, 16, 2 * seed + 1), seed=seed)
        crossed += math.isfinite(found.k[0])  # what a reader of the curves alone would report
        assert not found.stands
    assert crossed >= 3


def test_a_narrowed_arm_is_overtaken() -> None:
    base = np.full(60, 0.3)
    narrow = np.where(np.arange(60) < 30, 0.95, 0.0)
    found = crossing(drawn(base, 16, 0), drawn(narrow, 16, 1))
    assert found.stands and 2 <= found.k[1].low <= found.k[0] <= found.k[1].high <= 8 and found.never == 0
    assert found.tokens[0] == found.k[0] * 10  # of equal cost
    dear = crossing(drawn(base, 16, 0), drawn(narrow, 16, 1, cost=30))
    assert dear.tokens[0] == 30  # one of its samples costs three of the base's, which by then is ahead
    better = crossing(drawn(base, 16, 0), drawn(np.full(60, 0.9), 16, 1))
    assert math.isinf(better.k[0]) and math.isinf(better.k[1].high) and better.never > 0.9 and not better.stands


# correction and harm


def test_answering_again_corrects_nothing() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0.1, 0.9, 300)
    first, again = ((rng.random(300) < p).astype(float) for _ in range(2))
    churn = Churn(p * (1 - p), "known")
    found = flips(again, first, churn)
    assert found.corrected[1].low > 0.1  # what the naive count calls corrections
    assert found.corrected_beyond[1].low < 0 < found.corrected_beyond[1].high
    assert found.harmed_beyond[1].low < 0 < found.harmed_beyond[1].high and found.p > 0.05
    mended = np.maximum(first, (np.arange(300) < 240).astype(float))
    true = flips(mended, first, churn)
    assert true.corrected_beyond[1].low > 0 and true.harmed[0] == 0 and true.harmed_beyond[1].high < 0 and true.p < 1e-6
    same = flips(first, first, None)
    assert same.corrected[0] == same.harmed[0] == same.churn == 0 and same.p == 1.0 and same.corrected[1].high > 0


# format


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "empty"),
        ("12", "bare answer"),
        ("So the answer is 12.", "bare answer"),
        ("```python\nprint(3 + 4)\n```", "code"),
        ("def f(x):\n    return x", "code"),
        ("We get \\frac{1}{2}, so $x^2 = 4$.", "latex"),
        ("He pays $5 and she pays $6 for the ticket at the door today.", "prose"),
        ("1. Add three.\n2. Take two away.", "steps"),
        ("3 + 4 = 7\n7 + 5 = 12", "equations"),
        ("First I add three to four, which gives me 3 + 4 = 7, and then I add five.", "prose"),
    ],
)
def test_formats(text: str, name: str) -> None:
    item = questions(1)[0]
    assert classify(answer(item, True, text)) == name


CODE, PROSE = FORMATS.index("code"), FORMATS.index("prose")


def outputs(formats: np.ndarray, right: np.ndarray) -> Outputs:
    question = np.repeat(np.arange(len(formats)), formats.shape[1])
    return Outputs(question, formats.ravel(), right.ravel().astype(float))


def test_a_format_of_easy_questions_is_no_gain() -> None:
    """The arm answers easy questions in code; being right depends on the question alone."""
    rng = np.random.default_rng(2)
    easy = (np.arange(60) % 2 == 0)[:, None]
    right = [rng.random((60, 8)) < np.where(easy, 0.9, 0.1) for _ in range(2)]
    before = outputs(np.where(rng.random((60, 8)) < 0.1, CODE, PROSE), right[0])
    after = outputs(np.where(rng.random((60, 8)) < np.where(easy, 0.9, 0.1), CODE, PROSE), right[1])
    found = decompose(before, after, 60)
    assert found.shares[1].low > 0.05  # "a tenth is gained by the change of format"
    assert found.null.interval.low <= found.shares[0] <= found.null.interval.high and found.null.p > 0.05
    assert abs(found.gain[0]) < 0.05


def test_a_format_that_helps_is_found() -> None:
    rng = np.random.default_rng(3)
    kinds = [np.where(rng.random((60, 8)) < share, CODE, PROSE) for share in (0.2, 0.8)]
    before, after = (outputs(k, rng.random((60, 8)) < np.where(k == CODE, 0.8, 0.2)) for k in kinds)
    found = decompose(before, after, 60)
    assert found.shares[1].low > 0.2 and found.null.p < 0.01 and found.exchangeable > 50
    assert found.shares[0] + found.within[0] == pytest.approx(found.gain[0])
    assert abs(found.within[0]) < 0.1 and abs(found.null.mean) < 0.1


def test_where_arms_share_no_format_nothing_is_told_of_shares() -> None:
    """Bare answers before, code and prose after, and the label decides everything: an exchange cannot show it."""
    rng = np.random.default_rng(4)
    kinds = np.where(rng.random((40, 8)) < 0.5, CODE, PROSE)
    before = outputs(np.full((40, 8), FORMATS.index("bare answer")), np.zeros((40, 8)))
    found = decompose(before, outputs(kinds, kinds == CODE), 40)
    assert found.null.interval.pair == pytest.approx((found.gain[0],) * 2) and found.shares[0] == found.gain[0]
    assert found.exchangeable == 0
    assert decompose(outputs(kinds, kinds == CODE), before, 40).exchangeable == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 3))
def test_the_parts_add_up(seed: int, items: int, each: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = (outputs(rng.integers(0, 7, (items, each)), rng.random((items, each)) < 0.5) for _ in range(2))
    found = decompose(before, after, items, seed=seed)
    assert found.shares[0] + found.within[0] == pytest.approx(found.gain[0])


# reflection


def test_words() -> None:
    said = ("Let me double-check.", "I RECHECK it", "go over\nthe steps", "re-evaluating", "check again", "Rethinking")
    assert all(reflects(text) for text in said)
    assert not any(reflects(text) for text in ("check", "the answer is 4", "a thinker", ""))
    assert reflects("Wait, no.", "r1") and not reflects("The waiter pushed a button.", "r1")


def test_reflecting_on_easy_questions_is_no_help() -> None:
    rng = np.random.default_rng(4)
    p = np.repeat(np.where(np.arange(80) % 2, 0.85, 0.15), 16)
    question = np.repeat(np.arange(80), 16)
    right, reflecting = rng.random(len(p)) < p, rng.random(len(p)) < p
    false = reflection(question, reflecting, right)
    assert false.pooled > 0.4 and false.null.p > 0.05 and false.null.interval.low < false.within[0]
    true = reflection(question, reflecting, rng.random(len(p)) < 0.3 + 0.3 * reflecting)
    assert true.within[1].low > 0.2 and true.null.p < 0.01
    never = reflection(question, np.zeros_like(reflecting), right)
    assert never.rate[0] == 0 and never.rate[1].high > 0 and math.isnan(never.pooled) and math.isnan(never.null.p)


# where it acts


def test_doubtful_answers_are_no_forking_tokens() -> None:
    """A mechanism that acts anywhere in a few answers, which are full of doubt."""
    rng = np.random.default_rng(5)
    entropy = [rng.random(40) * (3.0 if n < 10 else 1.0) for n in range(40)]
    fork = [f.astype(float) for f in forks(entropy)]
    anywhere = [rng.random(40) < (0.3 if n < 10 else 0.0) for n in range(40)]
    found = acting(anywhere, fork)
    assert found.value[1].low > 0.3 > 0.2  # forking tokens are 20% of all
    assert found.null.interval.low <= found.value[0] <= found.null.interval.high and found.null.p > 0.05
    true = acting([(e > np.quantile(e, 0.8)) for e in entropy], fork)
    assert true.value[0] > true.null.interval.high and true.null.p < 0.01


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2", "recurrent_gemma", "rwkv"])
def test_continuations_against_whole_forwards(architecture: str) -> None:
    lm = tiny_model(architecture)
    texts, lengths = [[5, 9, 3, 7, 8], [7, 1, 2], [11, 12], [4] * 9], [2, 1, 2, 8]
    found = continuations(lm, texts, lengths, batch_tokens=12)
    for text, length, one in zip(texts, lengths, found, strict=True):
        with torch.no_grad():
            logits = lm(input_ids=torch.tensor([text])).logits[0, length - 1 : -1].float()
        assert one.argmax.tolist() == logits.argmax(-1).tolist()
        p = logits.softmax(-1)
        torch.testing.assert_close(one.entropy, -(p * p.log()).sum(-1), rtol=1e-4, atol=1e-4)


# distribution shift


def scores(values: np.ndarray, prefix: str) -> dict[str, float]:
    return {f"{prefix}{n}": float(v) for n, v in enumerate(values)}


@pytest.mark.parametrize("other", ["far", "home"])  # other questions, or the same ones under another prompt
def test_harder_questions_are_no_fall_of_the_gain(other: str) -> None:
    rng = np.random.default_rng(6)

    def pair(base: float, gain: float, name: str) -> tuple[dict[str, float], dict[str, float]]:
        u = rng.random(400)
        return scores(u < base + gain, name), scores(u < base, name)

    home = pair(0.5, 0.25, "home")
    harder = fall(home, pair(0.2, 0.25, other))
    assert harder.accuracy[1].low > 0.15  # "it collapses"
    assert harder.gain[1].low < 0 < harder.gain[1].high and harder.null.p > 0.05
    lost = fall(home, pair(0.5, 0.0, other))
    assert lost.gain[1].low > 0.1 and lost.null.p < 0.01 and lost.null.interval.high < lost.gain[0]


# routing


def test_a_random_gate_also_saves_tokens() -> None:
    rng = np.random.default_rng(7)
    short, long = rng.random(600) < 0.4, rng.random(600) < 0.9
    pair = Pair(short * 1.0, long * 1.0, np.full(600, 5.0), np.full(600, 100.0))
    fit = np.arange(600) < 300
    noise = rng.random(600)
    found = judge(noise[~fit], pair.of(~fit), choose(noise[fit], pair.of(fit), 0.15))
    assert found.saved > 0.1 and found.accuracy > 0.6  # cheaper than always, better than never
    assert found.null.p > 0.05 and found.beyond[1].low < 0 < found.beyond[1].high
    sure = short + rng.normal(0, 0.3, 600)
    true = judge(sure[~fit], pair.of(~fit), choose(sure[fit], pair.of(fit), 0.02))
    assert true.null.p < 0.01 and true.beyond[1].low > 0.05 and true.saved > 0.2
    same = Pair(pair.short, pair.short, pair.short_tokens, pair.long_tokens)
    assert choose(sure, same, 0.0) == sure.min() and judge(sure, same, float(sure.min())).rate == 0


# overlap


def test_shared_difficulty_is_no_agreement() -> None:
    rng = np.random.default_rng(8)
    ease = rng.choice([0.05, 0.3, 0.6, 0.9], 400)
    a, b = (rng.random(400) < ease for _ in range(2))
    measured = rng.binomial(64, ease) / 64
    false = overlap(a, b, measured)
    assert false.lift[1].low > 1.2 and false.chance.p < 0.01  # against plain chance they "agree"
    assert false.matched.p > 0.05 and false.matched_lift[1].low < 1 < false.matched_lift[1].high
    key = rng.random(400) < 0.5
    c, d = (key & (rng.random(400) < 0.3 + 0.6 * ease) for _ in range(2))
    true = overlap(c, d, measured)
    assert true.matched.p < 0.01 and true.matched_lift[1].low > 1.1
    assert true.jaccard[0] == (c & d).sum() / (c | d).sum()
    apart = overlap(a, ~a, measured)
    assert apart.shared == 0 and apart.matched.p < 0.01 and apart.matched_lift[0] == 0


def test_overlap_at_its_edges() -> None:
    none, every = np.zeros(10, dtype=bool), np.ones(10, dtype=bool)
    empty = overlap(none, none)
    assert math.isnan(empty.jaccard[0]) and math.isnan(empty.lift[0]) and math.isnan(empty.matched.p)
    full = overlap(every, every, np.zeros(10))
    assert full.jaccard[0] == full.lift[0] == full.matched_lift[0] == 1.0 and full.matched.p == 1.0
    with pytest.raises(UserError, match="give the same items"):
        overlap(none[:0], every[:0])
    with pytest.raises(UserError, match="0 bins"):
        overlap(none, every, bins=0)


def test_dots_need_one_value_a_row() -> None:
    figure = dot_plot(["a", "b"], {"x": [Dot(0.5, 0.4, 0.7), Dot(float("nan"))]}, nulls={"n": [Dot(0.1), Dot(0.2)]})
    assert [trace.name for trace in figure.data] == ["x", "n"]
    assert figure.data[0].error_x.array[0] == pytest.approx(0.2)
    with pytest.raises(UserError, match="1 values of 'x' were given for 2 rows"):
        dot_plot(["a", "b"], {"x": [Dot(0.5)]})
