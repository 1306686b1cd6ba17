"""Claims on trainings and on convergence: each verdict comes out both ways, and each claim runs on a planted model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.analysis.behaviour.convergence import PooledAgreement, matching, pooled_agreement
from elicit.methods import METHODS
from elicit.training.rl.information_gain import NULLS
from experiments.claims import (
    convergence,
    gain_as_reward,
    one_critique,
    one_example,
    sparse_updates,
    spurious_rewards,
    trained,
)
from experiments.claims.base import claim, claims, study_of
from experiments.claims.record import measured
from experiments.claims.rules import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, UNDECIDED, VERDICTS
from probes.errors import UserError
from probes.shifts import Cosine
from probes.statistics import Interval, Null
from tests.support.planted_model import planted

MINE = ("one_critique", "one_example", "spurious_rewards", "sparse_updates", "gain_as_reward", "convergence")
N = 60


def right(share: float, seed: int = 0) -> np.ndarray:
    """Scores of a fraction of right answers; the same seed makes the larger fraction hold the smaller."""
    return (np.random.default_rng(seed).permutation(N) < share * N).astype(float)


def test_intervals_that_hold_together_are_wider() -> None:
    values = {name: right(0.5, n) - right(0.3, n + 5) for n, name in enumerate("abc")}
    one, three = trained.means(values, together=1)["a"], trained.means(values)["a"]
    assert one[0] == three[0] and three[1].low < one[1].low < one[1].high < three[1].high
    assert set(trained.SPURIOUS) == set(trained.LONG) and trained.LONG["entropy"] == "entropy only"
    assert trained.SPURIOUS["random-several"]["per_rollout"] > trained.SPURIOUS["random"]["per_rollout"] == 1


def test_settings_of_quick_are_settings() -> None:
    for name in MINE:
        one = claim(name)
        assert set(one.quick) <= set(one.settings) and one.settings["model"] == "smollm2-135m-latent"
        assert one.settings["limit"] > one.quick["limit"] and one.settings["max_new_tokens"] == 192 and one.measure
    assert [claims()[name].number for name in MINE] == [3, 6, 7, 9, 16, 19]


def critiques(share: float, shuffled: float = 0.1, rlvr: float = 0.9) -> str:
    found = {"direct": right(0.1), "critique-ft": right(share), "one-shot-rlvr": right(rlvr),
             "shuffled": right(shuffled), "solutions": right(0.2)}  # fmt: skip
    return one_critique.decided(found, *one_critique.summarised(found)).verdict


def test_one_critique() -> None:
    assert critiques(0.85) == CONFIRMED
    assert critiques(0.3) == NOT_CONFIRMED  # less than half of what the other gains
    assert critiques(0.85, shuffled=0.83) == NOT_CONFIRMED
    assert critiques(0.3, rlvr=0.1) == NOT_TESTABLE


def curve(held: list[float], rewards: list[float], scores: list[list[float]] | None = None) -> dict[str, Any]:
    every = len(rewards) // len(held)
    at = [float(every * (n + 1) - 1) for n in range(len(held))]
    return {"update": [float(n) for n in range(len(rewards))], "reward": rewards, "checked at": at, "held out": held,
            **({} if scores is None else {"held out items": scores})}  # fmt: skip


def items(checks: list[int], size: int = 40) -> list[list[float]]:
    """The scores of a check's items, of which the first so many are right."""
    return [(np.arange(size) < count).astype(float).tolist() for count in checks]


def example(form: float = 0.2, copies: float = 0.0, **after: Any) -> str:
    direct, truth = right(0.1), [right(0.9), right(0.9, 1), right(0.85, 2)]
    copied = [right(copies, n) > 0 for n in range(3)]
    read = one_example.enough(truth, direct, right(form), copied)
    return one_example.decided(read, one_example.after(curve(**after), 40)).verdict


def test_one_example() -> None:
    solved = [0.2, 0.5, 0.95, 0.95, 0.95, 1.0, 1.0, 1.0]
    rises, falls = [0.1, 0.2, 0.5, 0.9], [0.1, 0.5, 0.4, 0.2]
    assert example(held=rises, rewards=solved) == CONFIRMED
    assert example(held=falls, rewards=solved) == NOT_CONFIRMED
    assert example(held=[0.1, 0.2, 0.21, 0.22], rewards=solved) == UNDECIDED  # a rise that chance gives
    assert example(held=[0.1, 0.95, 0.95, 1.0], rewards=solved) == NOT_TESTABLE  # no room
    assert example(held=rises, rewards=[0.2, 0.95, 0.2, 0.3, 0.95, 0.4, 0.3, 0.95]) == NOT_TESTABLE  # never solved
    assert example(form=0.9, held=rises, rewards=solved) != CONFIRMED
    assert example(copies=1.0, held=rises, rewards=solved) == NOT_CONFIRMED
    rise = one_example.after(curve(rises, solved), 40)
    assert rise is not None and (rise.at, rise.first, rise.last) == (5, 0.5, 0.9)


def test_the_rise_of_others_is_paired_by_item() -> None:
    """From 26 of 32 to 32 of 32: a rise where the six are known to be the same items, not one of two samples."""
    held, rewards = [0.1, 26 / 32, 28 / 32, 1.0], [0.2, 0.5, 0.95, 0.95, 0.95, 1.0, 1.0, 1.0]
    paired = one_example.after(curve([0.1, 0.5, 26 / 32, 1.0], rewards, items([3, 16, 26, 32], 32)), 32)
    assert paired is not None and paired.room and paired.change.low > 0
    alone = one_example.after(curve([0.1, 26 / 32, 26 / 32, 1.0], rewards), 32)
    assert alone is not None and alone.change.pair != paired.change.pair
    full = one_example.after(curve(held, rewards, items([3, 30, 31, 32], 32)), 32)
    assert full is not None and not full.room  # all right would be no rise for certain: not testable


def spurious(here: float, twin: float, truth: float = 0.9) -> str:
    nothing, direct = np.zeros(N), right(0.1)
    gains = ({"format": right(here) - direct, "random": nothing}, {"format": right(twin) - direct, "random": nothing})
    (true,) = trained.means({"true": right(truth) - direct}).values()
    return spurious_rewards.decided(true, spurious_rewards.summarised(*gains), direct).verdict


def test_spurious_rewards() -> None:
    assert spurious(0.8, 0.1) == CONFIRMED
    assert spurious(0.1, 0.1) == NOT_CONFIRMED
    assert spurious(0.8, 0.6) == NOT_CONFIRMED  # the twin gains too
    assert spurious(0.3, 0.15) == UNDECIDED  # of the twin sixty questions do not say that it gains less than ten points
    gains = {name: np.full(60, 0.1) for name in ("format", "random")}
    judged = spurious_rewards.decided((0.9, Interval(0.8, 1.0)), spurious_rewards.summarised(gains, gains), right(0.1))
    assert {one.together for one in judged.conditions} == {2}
    assert spurious(0.8, 0.1, truth=0.1) == NOT_TESTABLE


def weights(share: Mapping[str, float], null: float = 0.1) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    return {
        f"m{n}": {"n": 100 + n, **{k: min(1.0, max(0.0, v + 0.02 * rng.standard_normal())) for k, v in share.items()},
                  **{f"null_{k}": null for k in share}}
        for n in range(40)
    }  # fmt: skip


def sparse(true: float, random: float, null: float = 0.1, gain: float = 0.2) -> str:
    names = ("fp32", "absolute", "relative")
    some = [weights({**dict.fromkeys(names, one), "bf16": 0.8}, null) for one in (true, random)]
    read = {n: sparse_updates.summarised(*some, n) for n in (*names, "bf16")}
    return sparse_updates.decided(read, Interval(gain - 0.1, gain + 0.1)).verdict


def test_sparse_updates() -> None:
    assert sparse(0.8, 0.3) == CONFIRMED
    assert sparse(0.8, 0.8) == sparse(0.8, 0.3, null=0.9) == NOT_CONFIRMED  # as a random reward, or a dense change
    assert sparse(0.01, 0.01) == NOT_CONFIRMED  # rounding alone leaves weights as they were
    assert sparse(0.8, 0.3, gain=0.0) == NOT_TESTABLE  # what has not been learnt changes nothing
    read = sparse_updates.summarised(weights({"fp32": 0.5}), weights({"fp32": 0.5}), "fp32")
    assert read.over_random.low <= 0 <= read.over_random.high and read.over_null.low > 0.3


def earned(filler: float, share: float, control: float = 0.1) -> str:
    def one(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.2, "high": mean + 0.2}

    told = {"gain": one(1.0), "beyond": {NULLS[0]: one(0.8), NULLS[2]: one(1.0 - filler)}}
    found = {"direct": right(0.1), gain_as_reward.REWARD: right(share), gain_as_reward.CONTROL: right(control)}
    return gain_as_reward.decided(gain_as_reward.summarised(told, found), found, N).verdict


def test_gain_as_reward() -> None:
    assert earned(0.1, 0.8) == CONFIRMED
    assert earned(0.95, 0.8) == UNDECIDED and earned(1.3, 0.8) == NOT_CONFIRMED  # filler earns as much, or more
    assert earned(0.1, 0.1) == NOT_CONFIRMED  # it teaches nothing
    assert earned(0.1, 0.8, control=0.78) == NOT_CONFIRMED  # filler teaches as much


def test_agreement_of_one_ability_and_of_shared_difficulty() -> None:
    """Two families; within one all sets are alike, or drawn anew: only the first is more than difficulty gives."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["easy", "hard"], 100)
    p = np.where(kinds == "easy", 0.9, 0.2)
    binned = matching(np.zeros(200), list(kinds))
    assert len(set(binned.tolist())) == 2
    apart = pooled_agreement(rng.random((5, 200)) < p, binned)
    seeming = pooled_agreement(rng.random((5, 200)) < p, np.zeros(200, dtype=int))
    able = rng.random(200) < p
    alike = pooled_agreement(np.array([able ^ (rng.random(200) < 0.05) for _ in range(5)]), binned)
    assert seeming.null.p < 0.01 and apart.null.p > 0.05  # chance alone would call it one ability
    assert alike.null.p < 0.01 and alike.agreement[1].low > 0.6 and alike.null.interval.high < 0.2
    same = pooled_agreement(np.stack([able] * 3), binned)
    assert same.agreement[0] == pytest.approx(1) and same.null.p < 0.01
    assert np.isnan(pooled_agreement(np.ones((3, 9), dtype=bool), np.zeros(9, dtype=int)).null.p)  # no room to agree


def shift(value: float, p: float) -> Cosine:
    return Cosine(value, value - 0.1, value + 0.1, -0.2, 0.2, p, (0.9, 0.9))


def thesis(reach: float = 0.5, p: float = 0.001, cosine: float = 0.8) -> str:
    found = {"one": right(0.1 + reach), "two": right(0.9)}
    agreed = PooledAgreement((0.5, Interval(0.3, 0.7)), Null(0.0, Interval(-0.2, 0.2), p), 9.0)
    nan = float("nan")
    layers = [shift(cosine / 2, 0.4), shift(cosine, 0.001), Cosine(nan, nan, nan, nan, nan, nan, (nan, nan))]
    moved = convergence.shifted({("one", "two"): layers})
    assert moved["one", "two"].layer == 1
    return convergence.decided(found, right(0.1), agreed, moved).verdict


def test_convergence() -> None:
    assert thesis() == CONFIRMED
    assert thesis(reach=-0.05) == NOT_CONFIRMED and thesis(reach=0.1) == UNDECIDED  # one of them may not reach it
    assert thesis(p=0.3) == UNDECIDED  # items that chance may have given
    assert thesis(cosine=-0.8) == NOT_CONFIRMED  # opposed directions are not alike
    for layers in (
        [shift(-0.9, 1e-6), shift(0.85, 1e-5)],
        [shift(0.4, 0.9), shift(-0.5, 0.9)],
    ):  # alike at one at least
        found = convergence.shifted({("a", "b"): layers})["a", "b"]
        assert found.cosine.value == max(one.value for one in layers)
    assert convergence.shifted({("a", "b"): [shift(0.9, 0.03)] * 5})["a", "b"].p > 0.05  # one of many layers


def test_five_that_solve_everything_are_no_evidence_against_one_ability() -> None:
    binned = np.zeros(28, dtype=int)
    every = np.ones((5, 28), dtype=bool)
    each_misses_another = ~np.eye(5, 28, dtype=bool)
    names, direct = "abcde", np.zeros(28)
    for solved in (every, each_misses_another):
        right_by = {name: one.astype(float) for name, one in zip(names, solved, strict=True)}
        found = convergence.decided(right_by, direct, pooled_agreement(solved, binned), {})
        assert found.verdict == NOT_TESTABLE, found.reason  # less than one item a pair says whether they agree


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model that says 1 or 2 as the dice fall, now and then after a thought of h, and always where it is told to
    think; its twin that says 1; and questions with either answer."""
    folder = tmp_path_factory.mktemp("claims")
    planted(folder / "model", {"#": "1", "$": "2", "x": "h"}, {".": "h"})
    planted(folder / "twin", {"#": "1", "$": "1"})
    lines = [
        {"id": f"{split}{n}", "split": split, "question": f"Which ({'#$' * 9}{'x' * (6 + n)})?",
         "answer": str(1 + n % 2), "family": "fg"[n % 3 > 0]}
        for split in ("fit", "dev", "test") for n in range(8)
    ]  # fmt: skip
    (folder / "task.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return {"model": str(folder / "model"), "task": str(folder / "task.jsonl"), "limit": 8, "max_new_tokens": 6}


MORE: dict[str, dict[str, Any]] = {
    "one_example": {"fits": 2, "after": 2, "every": 1, "check": 8},
    "spurious_rewards": {"rewards": "format,random-several"},
    "sparse_updates": {"updates": 2, "rollouts": 8, "rollout_tokens": 6, "pool": 4, "lr": 1e-3},
    "convergence": {"mechanisms": "cot-decoding,critique-ft,one-shot-rlvr", "texts": 8},
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]) -> Path:
    """Fits of a few steps, which all claims share in one folder."""
    few = {"updates": 2, "rollouts": 8, "group": 2, "rollout_tokens": 6, "pool": 4, "rank": 2}
    less = {"candidates": 6, "steps": 2, "rows": 2, "width": 400, "rank": 2}
    for method, quick in (("one-shot-rlvr", few), ("critique-ft", less)):
        monkeypatch.setitem(METHODS, method, replace(METHODS[method], quick=quick))
    folder = Path(given["task"]).parent
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", MINE)
def test_a_claim_runs_to_its_verdict(name: str, given: dict[str, Any], short: Path) -> None:
    changes = {**given, **MORE.get(name, {})}
    if name == "spurious_rewards":
        changes["twin"] = str(short / "twin")
    lines: list[str] = []
    record = measured(study_of(claim(name), quick=True, changes=changes, log=lines.append))
    record.write(short / "findings" / name)
    assert record.verdict in VERDICTS and record.line and record.table
    assert len({tuple(row) for row in record.table}) == 1 and record.figure["data"]
    assert json.loads((short / "findings" / name / "result.json").read_text())["number"] == claim(name).number
    drawn = " ".join(str(trace.get("name")) for trace in record.figure["data"])
    assert any(null in drawn for null in ("null", "direct", *NULLS))  # the controls are in the figure
    before = len(list((short / "runs").rglob("*.safetensors")))
    again = measured(study_of(claim(name), quick=True, changes=changes))
    assert (again.verdict, again.line, again.data) == (record.verdict, record.line, record.data)
    assert len(list((short / "runs").rglob("*.safetensors"))) == before  # nothing was fitted twice


def test_refusals(given: dict[str, Any], short: Path) -> None:
    with pytest.raises(UserError, match="unknown spurious reward 'luck'"):
        claim("7").measure(study_of(claim("7"), quick=True, changes={**given, "rewards": "format,luck"}))
    with pytest.raises(UserError, match="give at least two"):
        claim("19").measure(study_of(claim("19"), quick=True, changes={**given, "mechanisms": "cot-decoding"}))
