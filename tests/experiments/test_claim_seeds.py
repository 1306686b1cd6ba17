"""A claim over several seeds: intervals over seeds and questions, what one seed misses, the command and its record; and
what a call would have cost with nothing found done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from elicit.decoding.decoders import Greedy
from elicit.decoding.pace import Pace
from elicit.elicited import Elicited
from elicit.evaluation import Run
from elicit.methods.compare import fit_seconds
from elicit.models.prompts import Prompt
from experiments.claims import base
from experiments.claims.base import Finding, Study, claim, claims, study_of
from experiments.claims.plan import planned
from experiments.claims.record import _total, kept
from experiments.claims.rules import (
    CONFIRMED,
    HOLDS,
    NO_ROOM,
    NOT_TESTABLE,
    OPEN,
    UNDECIDED,
    Condition,
    Judgement,
    lead,
)
from experiments.claims.seeds import judged_over_seeds, pooled
from experiments.claims.seeds import over_seeds as claim_over_seeds
from probes.statistics import Interval, over_seeds
from steering.adapters import Adapter
from tests.experiments.test_claims import command, shelf  # noqa: F401
from tests.support.adapters import config, written


def gains(share: float, n: int = 60, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).permutation(n) < share * n).astype(float)


def test_a_lead_is_judged_over_seeds_and_questions() -> None:
    nothing = np.zeros(60)
    each = [lead("a lead", gains(share, seed=n), nothing, together=2) for n, share in enumerate((0.3, 0.4, 0.5))]
    found = pooled(each)
    wanted = over_seeds(np.stack([gains(share, seed=n) for n, share in enumerate((0.3, 0.4, 0.5))]), confidence=0.975)
    assert found.interval == wanted and found.value == pytest.approx(0.4) and found.outcome == HOLDS
    assert pooled(each[:1]) is each[0]
    # seeds of which one works: three of them do not confirm what one alone would
    apart = [lead("a lead", gains(share), nothing) for share in (0.9, 0.0, 0.1)]
    assert apart[0].outcome == HOLDS and pooled(apart).outcome == OPEN


def test_what_is_no_mean_over_questions_is_as_uncertain_as_its_seeds_are() -> None:
    each = [Condition("a ratio", value, Interval(value - 0.1, value + 0.3), unit="") for value in (0.6, 0.6, 0.6)]
    assert pooled(each).interval.pair == pytest.approx([0.5, 0.9])
    far = [replace(one, value=one.value + move) for one, move in zip(each, (-0.3, 0.0, 0.3), strict=True)]
    assert pooled(far).interval.low < 0.6 - 4.3 * 0.3 / 3**0.5
    undefined = replace(each[0], value=float("nan"), interval=Interval(float("nan"), float("nan")))
    assert Judgement((pooled([*each, undefined]),)).verdict == NOT_TESTABLE
    tested = [replace(one, p=p) for one, p in zip(each, (0.001, 0.01, 0.04), strict=True)]
    assert pooled(tested).p == pytest.approx(2 * np.mean([0.001, 0.01, 0.04]))
    assert not pooled([*each, replace(each[0], room=False)]).room
    untold = [replace(one, p=p) for one, p in zip(each, (0.001, float("nan"), 0.04), strict=True)]
    assert pooled(untold).outcome == NO_ROOM  # as with that seed alone


def test_conditions_belong_together_by_name_in_whatever_order() -> None:
    a, b = (Condition(name, v, Interval(v - 0.1, v + 0.1)) for name, v in (("over a 3", 0.5), ("over b", -0.5)))
    found = judged_over_seeds({0: Judgement((a, b)), 1: Judgement((b, replace(a, name="over a 9")))})
    assert {one.name: round(one.value, 6) for one in found.conditions} == {"over a": 0.5, "over b": -0.5}


def test_of_conditions_that_no_seed_shares_none_is_drawn() -> None:
    one = Condition("a lead", 0.5, Interval(0.4, 0.6))
    seeds = {0: Finding(Judgement((one,)), "", [], go.Figure()), 1: Finding(Judgement((one, one)), "", [], go.Figure())}
    assert [trace.name for trace in claim_over_seeds(seeds).figure.data if trace.name] == ["over seeds"]


def test_seeds_that_ask_the_same_are_one_claim() -> None:
    one = Judgement((Condition("over random feature 3", 0.5, Interval(0.4, 0.6)),))
    two = Judgement((Condition("over random feature 9", 0.5, Interval(0.4, 0.6)),))
    assert [c.name for c in judged_over_seeds({0: one, 1: two}).conditions] == ["over random feature"]
    failed = Judgement(one.conditions, ("the training gained nothing",))
    both = judged_over_seeds({0: one, 7: failed})
    assert both.verdict == NOT_TESTABLE and "seed 7: the training gained nothing" in both.reason
    fewer = judged_over_seeds({0: one, 1: Judgement((*two.conditions, *one.conditions))})
    assert fewer.verdict == NOT_TESTABLE and "different conditions (1 with seed 0, 2 with seed 1)" in fewer.reason


def found(study: Study) -> Finding:
    """Leads that the seed alone decides."""
    right = gains((0.5, 0.6, 0.55, 0.0)[study.seed], seed=study.seed)
    judged = Judgement((lead("it leads", right, np.zeros(60)),))
    return Finding(judged, f"lead of seed {study.seed}", [{"arm": "a", "n": 60}], go.Figure(), ["as drawn"])


class Named:
    """What a record says of a model."""

    @staticmethod
    def describe() -> dict[str, str]:
        return {"name": "x", "sha256": "0" * 64, "dtype": "float32"}


def test_the_command_measures_with_each_seed(
    shelf: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(base.Claim, "measure", property(lambda self: found))
    monkeypatch.setattr(base, "load_model", lambda *_, **__: Named)
    monkeypatch.setattr("experiments.claims.record.measure_pace", lambda model: Pace(1, 0.25, 1.0))
    index = tmp_path / "index.md"
    index.write_text("<!-- claims --><!-- end of the claims -->")
    monkeypatch.setattr("experiments.claims.listing.INDEX", index)
    monkeypatch.setattr("experiments.claims.__main__.INDEX", index)
    code, out, err = command(capsys, "held", "--seeds", "0,1,2", "--runs", str(tmp_path / "runs"))
    assert code == 0, err
    record = kept(claim("held"))
    assert record is not None and record.verdict == CONFIRMED and record.scale["seeds"] == "0, 1, 2"
    assert record.command == "python -m experiments.claims held --seeds 0,1,2" and record.pace == 0.25
    assert [row["seed"] for row in record.table] == [0, 1, 2] and record.notes == ["as drawn"]
    assert set(record.data) == {"0", "1", "2"} and "0, 1, 2" in index.read_text() and "lead of seed 2" in out
    code, _, _ = command(capsys, "held", "--seeds", "0,1,3", "--runs", str(tmp_path / "runs"))
    assert kept(claim("held")).verdict == UNDECIDED  # type: ignore[union-attr]
    assert record.reused == 0  # this call asked for no runs
    for words, said in (
        (("--seeds", "0,x"), "whole numbers"),
        (("--seeds", "0,1", "--set", "seed=3"), "give one of them"),
    ):
        code, _, err = command(capsys, "held", *words)
        assert code == 2 and said in err


@pytest.fixture
def one_study(tiny_folder: Path, tmp_path: Path) -> Callable[[], Study]:
    """Calls of a claim on a tiny model, which find each other's runs."""
    few = {"model": str(tiny_folder), "task": "organism", "limit": 4, "max_new_tokens": 4}
    return lambda: study_of(claims()["corrupted_thoughts"], quick=True, changes=few, runs=tmp_path)


def test_runs_that_are_found_done_count_with_what_they_took(one_study: Callable[[], Study]) -> None:
    first, second, third = (one_study() for _ in range(3))
    runs = first.compared(["direct", "cot-prompt"])
    first.compared(["direct"])  # its own is no other call's
    assert _total(first.reused.values()) == 0
    took = [sum(run.metrics["seconds"].values()) + fit_seconds(_fit(run)) for run in runs.values()]
    assert min(took) > 0
    second.compared(["direct", "cot-prompt"])
    assert _total(second.reused.values()) == round(sum(took), 1)
    (runs["direct"].folder / "metrics.json").unlink()  # stopped before its end: what it took is not known
    third.compared(["direct", "cot-prompt"])
    assert _total(third.reused.values()) is None


def test_a_training_that_another_call_did_is_not_told(one_study: Callable[[], Study], tmp_path: Path) -> None:
    before = one_study()
    lora = before.model.lm.config.model_type, config("LORA")
    written(tmp_path / "adapter", *lora)
    after = one_study()
    for study, known in ((before, True), (after, False)):
        handle = Elicited(study.model, "trained", Prompt(), Greedy(4), adapter=Adapter(tmp_path / "adapter"))
        study.evaluated(handle, {}, f"trained-{known}")
        assert (_total(study.reused.values()) == 0) is known


def test_a_plan_counts_what_was_found_done_and_says_what_it_does_not_know() -> None:
    one = claims()["corrupted_thoughts"]
    record = kept(one)
    assert record is not None
    known = replace(record, seconds=6.0, reused=54.0, seeds=[], settings={**record.settings, "limit": 80})
    plan = planned(one, known)
    assert plan.minutes == pytest.approx(one.settings["limit"] / 80) and not plan.least
    assert plan.row()["cost"] == "2 min"
    assert planned(one, replace(known, reused=None)).row()["cost"].startswith("at least ")
    trains = claims()["proxy_filter"]
    record = kept(trains)
    assert record is not None
    had = record.settings | {"arms": "all", "updates": 24, "positions": 10, "thought_tokens": 4}
    had |= {name: trains.settings[name] for name in ("limit", "max_new_tokens", "group")}
    plan = planned(trains, replace(record, settings=had, seconds=60.0, reused=0.0, seeds=[]))
    assert plan.minutes == pytest.approx(3 * 2 * 2 * 2 * 2)  # seeds, arms, updates, positions and tokens of a thought


def _fit(run: Run) -> Path:
    return run.folder.parent.parent / "fits" / run.folder.name / "fit.json"
