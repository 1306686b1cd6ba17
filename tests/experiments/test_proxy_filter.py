"""Claim 20: its rule comes out each way, all arms have as many positions and tokens, and it runs on a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elicit.models import Model
from elicit.tasks import load_task
from elicit.training.rl.next_token import entropies
from elicit.training.rl.positions import FILTERS, drawn, filtered, positions, tokenized
from experiments.claims import proxy_filter
from experiments.claims.base import Study, claim, study_of
from experiments.claims.plan import planned
from experiments.claims.proxy_filter import ALL, BREADTH, DIRECT, FILTER, FIRST, NUMBER, OPEN_WHY, RANDOM, RLP, others
from experiments.claims.proxy_filter.documents import BARE, KINDS, UNRELATED, WORKED, mixed
from experiments.claims.record import kept, measured
from experiments.claims.rules import CONFIRMED, NOT_CONFIRMED, NOT_TESTABLE, UNDECIDED, VERDICTS
from probes.errors import UserError

N = 60


def right(share: float) -> np.ndarray:
    return (np.arange(N) < round(share * N)).astype(float)


def scored(**shares: float) -> dict[str, np.ndarray]:
    return {name: right(share) for name, share in {DIRECT: 0.1, **shares}.items()}


@pytest.mark.parametrize(
    ("every", "chosen", "verdict"),
    [
        (0.8, 0.4, CONFIRMED),
        (0.5, 0.5, NOT_CONFIRMED),  # it does as well with the filter
        (0.3, 0.7, NOT_CONFIRMED),  # better
        (0.45, 0.4, UNDECIDED),
        (0.1, 0.1, NOT_TESTABLE),  # nothing emerged
        (0.8, 0.1, CONFIRMED),
    ],
)
def test_the_rule_comes_out_each_way(every: float, chosen: float, verdict: str) -> None:
    found = proxy_filter.decided(scored(**{ALL: every, FILTER: chosen}))
    assert found.verdict == verdict, found.reason
    assert [one.interest for one in found.conditions] == [0.1, 0.1]


def test_why_is_breadth_or_number_or_open() -> None:
    def why(**shares: float) -> str:
        return proxy_filter.why(scored(**shares))

    both = {ALL: 0.8, FILTER: 0.3}
    assert why(**both, random=0.8, first=0.7) == BREADTH
    assert why(**both, random=0.3, first=0.3) == NUMBER
    assert why(**both, random=0.8, first=0.3) == OPEN_WHY  # as many positions, drawn from all documents alone
    assert why(**both).startswith(f"{OPEN_WHY} (random and first were not run")
    assert "no lead" in why(**{ALL: 0.3, FILTER: 0.3}, random=0.8, first=0.8)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_every_filter_keeps_as_many_positions(rate: float) -> None:
    rng = np.random.default_rng(0)
    unsure = [(rng.random(n) < rate).tolist() for n in (5, 1, 40, 17)]
    for by in FILTERS:
        found = filtered(unsure, by, seed=3)
        assert [len(one) for one in found] == [5, 1, 40, 17]
        assert sum(map(sum, found)) == sum(map(sum, unsure)), by
    assert filtered(unsure, "entropy", 3) == unsure
    flat = list(chain(*filtered(unsure, "first", 3)))
    assert flat == sorted(flat, reverse=True)  # whole documents, from the first one on


def test_the_filter_at_random_takes_every_position_as_often() -> None:
    unsure = [[True] * 6 + [False] * 14]
    often = np.mean([filtered(unsure, "random", seed)[0] for seed in range(2000)], axis=0)
    assert np.abs(often - 0.3).max() < 0.05
    assert filtered(unsure, "random", 1) == filtered(unsure, "random", 1) != filtered(unsure, "random", 2)


def test_documents_are_a_third_of_each_kind_and_no_item_is_in_two(tiny: Model) -> None:
    task = load_task("organism", limit=8)
    found = mixed(tiny, task, 12)
    assert [one.kind for one in found] == list(KINDS) * 4
    questions = [one.text[: one.asked] for one in found if one.kind != UNRELATED]
    assert len(set(questions)) == 8 and all(one.startswith("Q: ") for one in questions)
    words = {kind: [len(one.text.split()) for one in found if one.kind == kind] for kind in KINDS}
    assert all(a > b for a, b in zip(words[WORKED], words[BARE], strict=True))
    assert all(0 <= u - w < 16 for w, u in zip(words[WORKED], words[UNRELATED], strict=True))
    assert mixed(tiny, task, 12) == found != mixed(tiny, task, 12, seed=1)
    for count, said in ((4, "a multiple of 3"), (0, "a multiple of 3"), (15, "10 fit items are needed")):
        with pytest.raises(UserError, match=said):
            mixed(tiny, task, count)


@pytest.fixture
def study(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """All arms, with a filter that keeps about half of the positions."""
    monkeypatch.chdir(tmp_path)
    limit = {"limit": 8, "max_new_tokens": 6, "documents": 3, "task": "organism"}
    documents = mixed(tiny, load_task("organism", limit=8), 3)
    ids = tokenized(tiny.tokenizer, [one.text for one in documents], proxy_filter.LONGEST, 4)
    few: dict[str, Any] = {
        "model": tiny.name, "proxy": tiny.name, "arms": ",".join(proxy_filter.FILTERED), "updates": 2, "positions": 4,
        "group": 2, "thought_tokens": 4, "min_entropy": float(np.median(list(chain(*entropies(tiny.lm, ids))))),
    }  # fmt: skip
    return study_of(claim("proxy_filter"), quick=True, changes={**limit, **few}, runs=tmp_path / "runs")


def test_it_runs_and_all_arms_have_as_many_tokens(study: Study) -> None:
    record = measured(study)
    assert record.verdict in VERDICTS and "(primary)" in record.line and len(record.table) == 6
    rows = {row["arm"]: row for row in record.table}
    few = {name: rows[name]["positions"] for name in (FILTER, RANDOM, FIRST)}
    assert len(set(few.values())) == 1 and int(few[FILTER]) < int(rows[ALL]["positions"])
    assert rows[ALL]["positions"] == rows[RLP]["positions"]
    documents = mixed(study.model, study.task(), 3)
    handles = {
        name: proxy_filter.fitted(study, name, str(proxy_filter.written(documents, study.runs / "claims")))
        for name in proxy_filter.FILTERED
    }
    assert {proxy_filter.tokens_of(one) for one in handles.values()} == {2 * 4 * 2 * 4}
    assert len({one.options["found"]["sha256"] for one in handles.values()}) == 1  # the same documents
    assert len({one.options["found"]["folder"] for one in handles.values()}) == len(handles)  # trainings of their own
    again = measured(study)
    assert (again.verdict, again.line, again.data) == (record.verdict, record.line, record.data)


def test_arms_that_are_no_arms(study: Study) -> None:
    for given, said in (("all,filer", "did you mean filter"), ("filter,random", "give all and filter at least")):
        with pytest.raises(UserError, match=said):
            proxy_filter.arms_of(given)


def test_the_plan_counts_updates_and_arms() -> None:
    one, other = claim("proxy_filter"), kept(claim("gain_as_reward"))
    assert other is not None
    short = {**one.settings, "arms": "all", "updates": one.settings["updates"] // 4}
    for seeds in ([], [0, 1, 2]):
        record = replace(other, settings=short, seconds=60.0, seeds=seeds)
        assert planned(one, record).minutes == pytest.approx(4 * 2 * one.seeds / max(1, len(seeds)))
        few = replace(record, settings={**one.settings, "limit": one.settings["limit"] // 8})
        assert planned(one, few).minutes == pytest.approx(8 * one.seeds / max(1, len(seeds)))


def test_positions_are_drawn_each_once_and_documents_stand_together(tiny: Model) -> None:
    ids = tokenized(tiny.tokenizer, ["the cat sat on the mat", "a dog and a cat ran away"], 128, 4)
    here = positions(tiny.tokenizer, ids)
    there = drawn(here, 6, seed=0)
    assert sorted(one.id for one in there) == sorted(one.id for one in here) and there.items != here.items
    for start in range(0, len(there), 6):
        places = [(one.metadata["document"], one.metadata["position"]) for one in there[start : start + 6]]
        assert places == sorted(places)
    assert drawn(here, 6, seed=0).items == there.items != drawn(here, 6, seed=1).items


def test_other_arms_are_trained_and_asked_as_the_claim_does(study: Study) -> None:
    record = measured(study)
    asked, rows = others._trained(study, [RANDOM, RLP])
    assert {name: one.tolist() for name, one in asked.items()} == {
        name: record.data[name]["scores"] for name in (DIRECT, RANDOM, RLP)
    }
    assert [row["positions"] for row in rows] == [row["positions"] for row in record.table if row["arm"] in asked][1:]


def test_leads_of_other_arms_are_paired_by_question_and_over_seeds() -> None:
    every = {name: np.stack([right(share)] * 3) for name, share in ((DIRECT, 0.1), (ALL, 0.4), (FILTER, 0.6))}
    found = others.over({**every, RANDOM: np.stack([right(0.5), right(0.6), right(0.7)])}, [RANDOM])[RANDOM]
    assert list(found) == [DIRECT, ALL, FILTER]
    assert [one.split(" ")[0] for one in found.values()] == ["+50.0", "+20.0", "+0.0"]
    alone = others.over({**every, RANDOM: np.stack([right(0.6)] * 3)}, [RANDOM])[RANDOM]
    assert alone[FILTER].startswith("+0.0") and alone[FILTER] != found[FILTER]  # seeds that differ are less certain


def test_other_arms_that_are_none_and_seeds_that_are_not_kept() -> None:
    for given, said in (("randm", "did you mean random"), ("all", "other arm")):
        with pytest.raises(UserError, match=said):
            others.arms_of(given)
    with pytest.raises(UserError, match=r"seed 7 was given; .* has 0, 1, 2"):
        others.seeds_of(others._record(), "0,7")


def test_what_is_kept_of_other_arms_is_what_their_scores_give() -> None:
    record, found = others._record(), json.loads((others.HERE / "others.json").read_text(encoding="utf-8"))
    assert (found["settings"], found["model"]) == (record.settings, record.model)
    before = {
        name: np.array([record.data[str(seed)][name]["scores"] for seed in found["seeds"]]) for name in others.KEPT
    }
    after = {name: np.array(one) for name, one in found["scores"].items()}
    assert others.over(before | after, list(after)) == found["leads"]
