"""The rules: every claim comes out each way, false verdicts are rare, and intervals hold the truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from elicit.analysis.behaviour.distribution_shift import Fall
from elicit.analysis.behaviour.pass_at_k import Samples, crossing
from elicit.analysis.behaviour.reflection import measure as reflection_of
from elicit.analysis.internals.influence import FACTS, PROCEDURES, SHORT
from experiments import simulations
from experiments.claims import (
    base,
    corrupted_thoughts,
    curation,
    distribution,
    influence,
    less_information,
    low_and_high,
    narrowing,
    reflection,
    rules,
)
from experiments.claims.__main__ import main
from experiments.claims.base import claims
from experiments.claims.plan import plans, questions_for
from experiments.claims.record import kept
from experiments.claims.rules import (
    CONFIRMED,
    FAILS,
    HOLDS,
    NO_ROOM,
    NOT_CONFIRMED,
    NOT_TESTABLE,
    OPEN,
    UNDECIDED,
    Condition,
    Judgement,
    absent,
    either,
    lead,
)
from probes.statistics import Interval, Null, bootstrap_mean
from tests.experiments.test_claims import layer_curve

NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.01, 0.4, HOLDS), (-0.01, 0.4, OPEN), (-0.2, 0.09, FAILS), (0.01, 0.09, FAILS), (-0.3, -0.1, FAILS),
        (NAN, NAN, NO_ROOM),
    ],
)  # fmt: skip
def test_a_condition(low: float, high: float, outcome: str) -> None:
    one = Condition("x", (low + high) / 2, Interval(low, high))
    assert one.outcome == outcome
    assert Condition("x", one.value, one.interval, p=0.2).outcome == (OPEN if outcome == HOLDS else outcome)
    assert Condition("x", one.value, one.interval, room=False).outcome == (FAILS if high < 0 else NO_ROOM)
    back = Judgement.from_dict(json.loads(json.dumps(Judgement((one,), ("why",)).to_dict(), allow_nan=False)))
    assert back.conditions[0].outcome == outcome and back.unmet == ("why",)


def test_a_claim_is_as_strong_as_its_weakest_condition() -> None:
    holds, open_, fails, none = (
        Condition(name, low + 0.1, Interval(low, low + 0.2), room=room)
        for name, low, room in (("h", 0.1, True), ("o", -0.05, True), ("f", -0.15, True), ("n", -0.05, False))
    )
    for some, verdict in (
        ((holds,), CONFIRMED), ((holds, open_), UNDECIDED), ((holds, open_, none), NOT_TESTABLE),
        ((holds, open_, none, fails), NOT_CONFIRMED), ((), NOT_TESTABLE),
    ):  # fmt: skip
        found = Judgement(some)
        assert found.verdict == verdict and "\n" not in found.reason
        assert Judgement(some, ("nothing was learnt",)).verdict == NOT_TESTABLE
    assert open_.seen_told in Judgement((holds, open_)).reason
    assert either([fails, open_, holds]) is holds and either([fails, open_]) is open_


def test_the_largest_result_that_there_could_be_must_be_seen() -> None:
    """Of 16 questions of which the other arm has 13 right, all 16 are no lead for certain; of 200 so many are."""
    few, many = (np.r_[np.ones(round(0.81 * n)), np.zeros(n - round(0.81 * n))] for n in (16, 200))
    assert lead("x", np.ones(16), few).outcome == NO_ROOM
    assert lead("x", np.ones(200), many).outcome == HOLDS
    assert absent("x", 0.0, Interval(-0.05, 0.05)).outcome == HOLDS
    assert absent("x", 0.2, Interval(0.1, 0.3)).outcome == FAILS and absent("x", 0, Interval(-0.2, 0.2)).outcome == OPEN


def right(n: int, share: float) -> np.ndarray:
    return (np.arange(n) < round(share * n)).astype(float)


def of_reflection(kind: str, n: int) -> Judgement:
    rng = np.random.default_rng(0)
    question, some = np.repeat(np.arange(n), 16), rng.random(n * 16) < 0.2
    chance = {"largest": 0.1 + 0.9 * some, "smallest": 0.9 - 0.9 * some, "empty": 0.5 + 0.0 * some}[kind]
    found = reflection_of(question, some & (kind != "empty"), rng.random(n * 16) < chance)
    return reflection.judged(found, None)


def of_narrowing(kind: str, n: int) -> Judgement:
    most = 32 if kind != "empty" else 8
    size = np.full(n, 2 * most)
    wide, tokens = np.full(n, most), size
    narrow = np.where(np.arange(n) < 0.8 * n, 2 * most, 0)  # sure of some questions, lost on the others
    base_, trained = (wide // 4, narrow) if kind == "largest" else (narrow, wide // 4)
    return narrowing.judged(crossing(Samples(size, base_, tokens), Samples(size, trained, tokens), most=most), most)


def of_curation(kind: str, n: int) -> Judgement:
    value = {"largest": 1.0, "smallest": -1.0, "empty": 0.0}[kind]
    lag = value, bootstrap_mean(np.full(n, value))
    return curation.judged({"unfiltered": lag, "again": lag}, 8 if kind == "empty" else 32)


def of_less_information(kind: str, n: int) -> Judgement:
    change = np.random.default_rng(0).normal({"largest": -1.0, "smallest": 1.0, "empty": 0.0}[kind], 0.5, n)
    rise = bootstrap_mean(right(n, 0.0 if kind == "empty" else 0.5))
    return less_information.decided(rise, n, (float(change.mean()), bootstrap_mean(change)))


def of_low_and_high(kind: str, n: int) -> Judgement:
    start, wide = {"largest": (6, 0.01), "smallest": (0, 0.01), "empty": (6, 9.0)}[kind]
    parted = {key: low_and_high.halves(layer_curve(key, start, wide), key) for key in low_and_high.MEASURES}
    nowhere = {key: low_and_high.halves(layer_curve(key, 13), key) for key in low_and_high.MEASURES}
    return low_and_high.judged(parted, nowhere)


def of_corrupted(kind: str, n: int) -> Judgement:
    share = {"largest": 0.9, "smallest": 0.0, "empty": 0.9}[kind]
    gains = lead("gains", right(n, share), right(n, 0.1))
    to_right = right(n, share) - right(n, 0.9)
    own = bootstrap_mean(right(n, 0.9 if kind != "empty" else 0.1) - right(n, 0.1))
    valid = -right(n, 0.9)
    values = [(float(v.mean()), bootstrap_mean(v)) for v in (to_right, valid)]
    return corrupted_thoughts.decided(gains, *values, 0.1, own)


def of_distribution(kind: str, n: int) -> Judgement:
    fall = {"largest": 0.8, "smallest": 0.0, "empty": 0.8}[kind]
    one = fall, bootstrap_mean(right(n, fall))
    null = Null(0.0, Interval(-0.2, 0.2), 0.001 if fall else 1.0)
    home = bootstrap_mean(right(n, 0.0 if kind == "empty" else 0.8))
    return distribution.decided(dict.fromkeys(("length", "task"), (Fall(one, one, null), null.p)), home)


def of_influence(kind: str, n: int) -> Judgement:
    mean = {"largest": 0.5, "smallest": -0.5, "empty": 0.5}[kind]
    one = {"mean": mean, "low": mean - 0.2, "high": mean + 0.2}
    both = {"concentration": one, "found": one}
    check = {"p": 0.5 if kind == "empty" else 0.01, "low": 0.2}
    return influence.decided(
        {"facts less": {PROCEDURES: both, SHORT: both}, "kinds": {FACTS: {"beyond shuffled": one}}, "lds": check}
    )


# Those of which a finding is made from planted runs are in test_claims_read and test_claims_trained.
BY_NUMBERS: dict[str, Callable[[str, int], Judgement]] = {
    "reflection": of_reflection, "narrowing": of_narrowing, "curation": of_curation, "influence": of_influence,
    "less_information": of_less_information, "low_and_high": of_low_and_high, "corrupted_thoughts": of_corrupted,
    "distribution": of_distribution,
}  # fmt: skip
OF_LEADS = {  # of each claim what is taken from its own numbers, and in which way it can have nothing to tell
    name for name, one in claims().items() if name not in BY_NUMBERS and kept(one) is not None
}


@pytest.mark.parametrize("name", BY_NUMBERS)
@pytest.mark.parametrize("kind", ["largest", "smallest", "empty"])
def test_a_rule_comes_out_each_way(name: str, kind: str) -> None:
    """By its largest, its smallest and an empty result, on as many questions as the claim asks by default."""
    one = claims()[name]
    found = BY_NUMBERS[name](kind, int(one.settings.get("limit", one.settings.get("queries"))))
    wanted = {"largest": (CONFIRMED,), "smallest": (NOT_CONFIRMED,), "empty": (NOT_TESTABLE, UNDECIDED)}[kind]
    assert found.verdict in wanted, found.reason


@pytest.mark.parametrize("name", sorted(OF_LEADS))
def test_what_is_kept_could_have_come_out_each_way(name: str) -> None:
    """The conditions of what is kept, with the largest, the smallest and no value instead of what was measured."""
    record = kept(base.claim(name))
    assert record is not None
    for value, verdict in ((0.99, CONFIRMED), (-0.99, NOT_CONFIRMED), (NAN, NOT_TESTABLE)):
        some = tuple(moved(one, value) for one in record.judgement.conditions)
        assert Judgement(some).verdict == verdict
    assert len(record.judgement.conditions) >= 2


def moved(one: Condition, value: float) -> Condition:
    interval = Interval(value - 0.005, value + 0.005)
    p = None if one.p is None else NAN if value != value else 0.001
    return Condition(one.name, value, interval, one.bound, one.interest, one.together, p, unit=one.unit)


def test_the_claims_have_one_effect_of_interest_but_for_what_is_named() -> None:
    for one in claims().values():
        record = kept(one)
        if record is None:  # not run yet
            continue
        for condition in record.judgement.conditions:
            assert condition.interest >= condition.bound
            distance = condition.interest - condition.bound
            assert distance == pytest.approx(rules.INTEREST) or distance <= 0.01, condition.name


def test_intervals_hold_the_truth_where_a_plain_bootstrap_does_not() -> None:
    draw = simulations.pairs(32, 0.1, 0.0)
    plain, ours = (
        simulations.covered(draw, interval, 0.1, 600, 0)
        for interval in (simulations.plain_bootstrap, simulations.mean_interval)
    )
    assert plain < 0.9 < simulations.COVERED <= ours
    spread = simulations.seeds_of(3, 200, 0.3, 0.15)
    ignored = simulations.covered(spread, lambda v: simulations.mean_interval(v.mean(0)), 0.3, 300, 0)
    assert ignored < 0.9 < simulations.covered(spread, simulations.seeds_interval, 0.3, 300, 0)


def test_verdicts_are_wrong_as_seldom_as_is_said() -> None:
    """Exact rates, over every count of wins and losses."""
    assert 0 < simulations.decided(32, [(0.15, 0.15)])[CONFIRMED] <= simulations.FALSELY_CONFIRMED
    true = simulations.decided(32, [(0.25, 0.15)] * 8)
    assert 0 < true[NOT_CONFIRMED] <= simulations.FALSELY_REFUSED
    assert simulations.decided(32, [(0.0, 0.1)])[CONFIRMED] < 1e-9
    rates = [simulations.decided(n, [(0.5, 0.05)])[CONFIRMED] for n in (8, 32, 100)]
    assert all(one <= other for one, other in pairwise(rates)) and rates[-1] > 0.99
    total = sum(chance for *_, chance in simulations.counted(32, 0.2, 0.1))
    assert total == pytest.approx(1, abs=1e-3)


def test_a_row_is_judged_at_face_value() -> None:
    row = simulations.Row("an interval", 32, 1, "0", 0.929, 2000, simulations.COVERED)
    assert row.holds is False and row.cells()[-1] == "**does not hold**" and " to 0.93" in row.cells()[5]
    exact = simulations.Row("a verdict", 32, 1, "0", 0.025, 0, most=simulations.FALSELY_CONFIRMED)
    assert exact.holds and exact.cells()[5] == "exact"
    assert simulations.Row("a limit", 32, 1, "0", 0.1, 0).holds is None


def test_questions_that_a_plan_asks_for_see_the_smallest_effect_of_interest() -> None:
    """Of a paired lead that is truly at its smallest effect of interest 80% are seen with so many questions."""
    change = np.repeat([-1.0, 0.0, 1.0], [4, 28, 8])
    pilot = Condition("it leads", float(change.mean()), bootstrap_mean(change))
    n = round(questions_for(pilot, 40))
    rng = np.random.default_rng(0)
    seen = sum(bootstrap_mean(rng.choice(change, n), resamples=400).low > 0 for _ in range(200))
    assert 0.72 < seen / 200 < 0.92, (n, seen)
    assert questions_for(replace(pilot, interest=pilot.bound), 40) == 0  # counted
    assert math.isnan(questions_for(replace(pilot, value=math.nan), 40))


def test_full_settings_have_the_power_that_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    found = plans()
    assert len(found) == 20 and all(plan.limit > 32 for plan in found)
    known = [plan.minutes for plan in found if plan.minutes is not None]  # those not run yet come last
    assert known == sorted(known) == [plan.minutes for plan in found[: len(known)]]
    few = {plan.claim.name for plan in found if plan.limit < plan.n}
    assert few == {
        "one_feature",  # over a random feature: 251, of which it leads by 67 points
        "decoding",  # over direct with as many tokens: 255, of which it leads by 29 points
        "formats",  # that the base has a format at all: of interest from one output in a hundred
        "distribution",
        "convergence",
        "less_information",
        "gain_as_reward",
        "corrupted_thoughts",
        "proxy_filter",
        "when_not_how",  # its gate against a random one: 200 questions, half of them judge, and few sums have two terms
    }
    assert {plan.claim.name for plan in found if "too few" in plan.row()["n"]} == few
    slow = {plan.claim.name: plan.minutes for plan in plans(pace=1.0)}
    for plan in found:  # records of an unknown pace are taken as they are
        record = kept(plan.claim)
        pace = record.pace if record is not None and record.pace else 1.0
        assert plan.minutes is None or slow[plan.claim.name] == pytest.approx(plan.minutes / pace)
    assert main(["--plan"]) is None
    told = capsys.readouterr().out
    assert all(plan.command in told for plan in found)
