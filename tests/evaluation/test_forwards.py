"""Forward passes beside tokens: counted, kept, shown where they are not one a token, and absent from older runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

import elicit
from elicit.evaluation.metrics.format import FORWARDS
from elicit.evaluation.regrade import regrade
from elicit.evaluation.run.store import PARQUET
from elicit.evaluation.run.table import outcomes, traces
from elicit.models import Model
from elicit.report.comparison import compare_runs, head_of, rows_of
from elicit.report.run_section import arm_table
from elicit.tasks.grading import NumberGrader
from tests.support.unsealed import unsealed

TASK = "chain-sum:min_terms=2,max_terms=2"


def made(tiny: Model, folder: Path) -> elicit.Run:
    items = elicit.load_task(TASK, limit=3).test
    handle = elicit.methods.cot_decoding.fit(tiny, items, k=4, max_new_tokens=6)
    return elicit.evaluate(handle, items, against=["direct"], out=folder)


def test_branches_share_the_pass_over_their_prompt(tiny: Model, tmp_path: Path) -> None:
    run = made(tiny, tmp_path / "run")
    for some in run.traces["cot-decoding"].values():
        assert [t.forwards for t in some] == [t.spent - (n > 0) for n, t in enumerate(some)]
    branched, direct = (run.metrics["arms"][name] for name in ("cot-decoding", "direct"))
    assert branched["forwards_per_item"] == branched["tokens_per_item"] - 3
    assert direct["forwards_per_item"] == direct["tokens_per_item"]
    head, rows = arm_table(run.metrics)
    assert head[3] == FORWARDS and [row[3] for row in rows] == [
        f"{arm['forwards_per_item']:.0f}" for arm in (branched, direct)
    ]
    compared = compare_runs([run])
    assert FORWARDS in head_of(compared) and all(len(row) == len(head_of(compared)) for row in rows_of(compared))


def test_answers_that_are_asked_for_cost_passes(tiny: Model, tmp_path: Path) -> None:
    items = elicit.load_task(TASK, limit=2).test
    handle = replace(elicit.methods.direct.fit(tiny, max_new_tokens=4), span="prompted")
    run = elicit.evaluate(handle, items, against=(), out=tmp_path / "run")
    for (trace,) in run.traces["direct"].values():
        assert trace.forwards == trace.spent > len(trace.tokens)
    head, _ = arm_table(run.metrics)
    assert FORWARDS not in head  # one a token: the column would say nothing


def test_regrading_keeps_them_and_older_runs_have_none(tiny: Model, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    run = made(tiny, tmp_path / "run")
    monkeypatch.setattr(NumberGrader, "version", "another", raising=False)
    config = json.loads(json.dumps(run.metrics["arms"]))
    again = regrade(run, tmp_path / "again")
    assert again.metrics.keys() == run.metrics.keys() | {"validation"}
    for name, arm in again.metrics["arms"].items():
        assert arm["forwards_per_item"] == config[name]["forwards_per_item"]
    table = unsealed(run.folder) / PARQUET
    pq.write_table(pq.read_table(table).drop_columns(["forwards"]), table)
    assert {o.forwards for some in outcomes(table)["direct"].values() for o in some} == {-1}
    assert all(t.forwards == -1 for some in traces(table, "direct", list(run.traces["direct"])).values() for t in some)
    for arm in run.metrics["arms"].values():
        del arm["forwards_per_item"]
    assert FORWARDS not in arm_table(run.metrics)[0]
