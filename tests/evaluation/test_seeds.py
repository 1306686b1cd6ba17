"""Means over seeds and questions: intervals that cover, seeds that agree, draws of one control, the commands."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest

from elicit.evaluation.seeds import parse_seeds, pooled, rows_of, summarised
from probes.errors import UserError
from probes.statistics import bootstrap_mean, proportion_interval
from tests.support.shell import shell

TASK = "chain-sum:min_terms=2,max_terms=2"


@pytest.mark.parametrize("seeds", [1, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_interval_covers_the_truth(seeds: int, spread: float) -> None:
    """Questions of uneven difficulty, and seeds that differ not at all or much. One seed knows nothing of others."""
    rng = np.random.default_rng(0)

    def chances(questions: int, seeds: int) -> np.ndarray:
        ease, luck = rng.normal(0.5, 1.5, questions), rng.normal(0, spread, (seeds, 1))
        return 1 / (1 + np.exp(-ease - luck))

    truth, hits, tries = chances(400, 4000).mean(), 0, 150
    for _ in range(tries):
        found = summarised((rng.random((seeds, 64)) < chances(64, seeds)).astype(float), low=0.0, high=1.0)
        hits += found.interval.low <= truth <= found.interval.high
    if seeds == 1 and spread:
        assert hits / tries < 0.7
    else:
        assert hits / tries >= 0.92


def test_seeds_that_agree_leave_the_interval_over_questions() -> None:
    scores = np.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert summarised(scores[None], low=0.0, high=1.0).interval == proportion_interval(5, 8)
    same = summarised(np.stack([scores] * 3), low=0.0, high=1.0)
    low, high = bootstrap_mean(scores, bounds=(0.0, 1.0)).pair
    assert same.interval.low <= low < high <= same.interval.high and same.by_seed == [5 / 8] * 3
    gains = np.array([1.0, 0.0, -1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert summarised(gains[None], low=-1.0, high=1.0).interval.pair == pytest.approx(bootstrap_mean(gains).pair)
    apart = summarised(np.stack([np.ones(8), np.zeros(8)]), low=0.0, high=1.0)
    assert apart.interval.pair == [0.0, 1.0]  # two seeds that part know nothing, and stay inside what can be


def test_draws_of_a_control_are_one_arm() -> None:
    first = {"m": {"a": 1.0, "b": 1.0}, "direct": {"a": 0.0, "b": 1.0}}
    drawn = {"random feature 3": {"a": 1.0, "b": 0.0}, "random feature 5": {"a": 0.0, "b": 0.0}}
    other = {"random feature 5": {"a": 1.0, "b": 1.0}, "random feature 9": {"b": 1.0, "a": 0.0}}
    rows = {row["arm"]: row for row in pooled([first | drawn, first | other], "m", lead=True)}
    # What both seeds drew stands by its own name, the others together.
    assert set(rows) == {"m", "direct", "random feature 5", "random feature"}
    assert rows["random feature"]["by_seed"] == [0.5, 0.5] and rows["direct"]["difference"] == 0.5
    assert "difference" not in rows["m"]
    back = {row["arm"]: row for row in pooled([first, first], "direct")}
    assert back["m"]["difference"] == 0.5
    with pytest.raises(UserError, match="no arm of every seed"):
        pooled([first, other], "m")
    with pytest.raises(UserError, match="different items"):
        pooled([first, {"m": {"a": 1.0}}], "m")


def test_a_control_whose_draws_lost_verdicts_states_no_accuracy() -> None:
    """A run names its own draw; the table, where another seed drew another, names what is left of it."""
    first = {"m": {"a": 1.0, "b": 1.0}, "random feature 3": {"a": 0.0, "b": 0.0}, "random 1": {"a": 0.0, "b": 0.0}}
    second = {"m": {"a": 1.0, "b": 0.0}, "random feature 9": {"a": 1.0, "b": 0.0}, "random 2": {"a": 0.0, "b": 1.0}}
    for lost in ("random feature 3", "random feature 9"):
        rows = {row["arm"]: row for row in pooled([first, second], "m", lead=True, unstated={lost})}
        assert rows["random feature"] == {"arm": "random feature"}
        assert rows["m"]["accuracy"] == 0.75 and rows["random"]["difference"] == 0.5
    # A draw of that name that both seeds have is an arm of its own, and takes nothing from the others.
    rows = {row["arm"]: row for row in pooled([first | {"random 7": first["m"]}, second | {"random 7": first["m"]}],
                                              "m", unstated={"random 7"})}  # fmt: skip
    assert rows["random 7"] == {"arm": "random 7"} and "accuracy" in rows["random"]


def test_an_arm_that_a_seed_lacks_is_told() -> None:
    first = {"m": {"a": 1.0}, "direct": {"a": 0.0}, "begins 'To'": {"a": 1.0}, "begins 'We'": {"a": 0.0}}
    second = {"m": {"a": 1.0}, "direct": {"a": 0.0}, "begins 'To'": {"a": 1.0}, "sign flipped": {"a": 0.0}}
    rows = pooled([first, second], "m")
    assert [row["arm"] for row in rows] == ["m", "direct", "begins 'To'", "begins", "sign flipped"]
    assert rows[3:] == [{"arm": "begins", "seeds": 1}, {"arm": "sign flipped", "seeds": 1}]
    assert rows_of(rows)[3] == ("begins", "not under every seed", "", "")
    assert "seeds" not in rows[2] and rows_of(rows)[2][1].startswith("100.0 ")


@pytest.mark.parametrize(("given", "told"), [("0,x", "whole numbers"), ("1,1", "distinct"), ("-1,2", "from 0 on")])
def test_seeds_that_are_refused(given: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        parse_seeds(given)


def test_the_commands_take_seeds(tiny_folder: Path, tmp_path: Path) -> None:
    common = (
        "--model", str(tiny_folder), "--dtype", "float32", "--task", TASK, "--limit", "3", "--max-new-tokens", "5",
        "--seeds", "0,1",
    )  # fmt: skip
    code, text, err = shell(
        "run", "--method", "self-consistency", *common, "--set", "samples=2", "--out", str(tmp_path / "run"), "--json"
    )
    assert code == 0, err
    result = json.loads(text)
    assert result["seeds"] == [0, 1] and [row["arm"] for row in result["arms"]] == ["self-consistency", "direct"]
    assert [Path(folder).name for folder in result["runs"]] == ["seed-0", "seed-1"]
    samples = [(Path(folder) / "samples.jsonl").read_bytes() for folder in result["runs"]]
    assert samples[0] != samples[1]

    methods = ("compare", "--methods", "direct,self-consistency", *common, "--out", str(tmp_path / "all"))
    code, text, err = shell(*methods, "--json")
    assert code == 0, err
    assert json.loads(text) == json.loads((tmp_path / "all" / "comparison.json").read_text())
    assert [row["arm"] for row in json.loads(text)["arms"]] == ["direct", "self-consistency"]
    code, text, err = shell(*methods)
    assert code == 0 and err.count("done") == 4 and "over seeds and questions" in text
    with chdir(tmp_path):
        code, text, err = shell(*methods[:-2])
        assert code == 0 and len(kept := list(Path("runs").glob("compare-*/comparison.json"))) == 1, err
        assert json.loads(kept[0].read_text())["seeds"] == [0, 1] and f"comparison: {kept[0]}" in text

    code, _, err = shell("run", *common, "--seed", "3")
    assert code == 2 and "give one of them" in err and err.count("\n") == 1
    code, _, err = shell("compare", str(tmp_path / "run" / "seed-0"), "--seeds", "0,1")
    assert code == 2 and "give it with --methods" in err and err.count("\n") == 1
