"""Samples by column: the same as the journal's own, and the statistics on them the same as their slow forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from elicit.decoding import Sampling
from elicit.decoding.selection import select
from elicit.elicited import Elicited
from elicit.evaluation import Run, evaluate
from elicit.evaluation.run import store as store_module
from elicit.evaluation.run.store import PARQUET
from elicit.evaluation.run.table import outcomes, traces
from elicit.models import Model
from probes.auroc import auroc, auroc_interval, auroc_within
from probes.statistics import bootstrap_mean, resampled_means
from tests.support.toys import load_talker, toy_task
from tests.support.unsealed import unsealed
from tests.support.written import written_run, written_task


def test_columns_hold_what_the_journal_holds(tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ROWS", 3)  # several groups of rows
    items = written_task(5)
    arms = {"m": lambda item, b: f"so {b}", "direct": lambda item, b: f"it is {item.answer}"}
    run = written_run(tiny, tmp_path / "run", items, "m", arms, branches=4)
    run = Run.load(unsealed(run.folder))
    with (run.folder / "samples.jsonl").open("a") as file:
        file.write('{"source": "m", "batch": 9, "of": 2')  # a line that a power cut left
    run.store.write_table([item.id for item in reversed(items.items)])
    whole = run.store.traces()
    assert pq.read_metadata(run.folder / PARQUET).num_row_groups > 4
    found = outcomes(run.folder / PARQUET)
    assert list(found) == list(whole) and list(found["m"]) == [item.id for item in reversed(items.items)]
    for source, by_item in whole.items():
        for item, some in by_item.items():
            assert traces(run.folder / PARQUET, source, [item]) == {item: some}
            for trace, outcome in zip(some, found[source][item], strict=True):
                for name in outcome._fields:
                    assert getattr(outcome, name) == pytest.approx(getattr(trace, name)), name
                assert outcome.correct == trace.correct
    assert traces(run.folder / PARQUET, "m", []) == {}


def test_an_answer_without_tokens_is_the_least_likely(tiny: Model, tmp_path: Path) -> None:
    run = written_run(tiny, tmp_path / "run", written_task(2), "direct", {"direct": lambda item, b: "x"})
    run = Run.load(unsealed(run.folder))
    text = (run.folder / "samples.jsonl").read_text()
    for name in ("tokens", "ends", "top1", "top2", "entropy", "logprob"):
        start = text.index(f'"{name}": [')
        text = text[:start] + f'"{name}": []' + text[text.index("]", start) + 1 :]
    (run.folder / "samples.jsonl").write_text(text)
    run.store.write_table(["q-0", "q-1"])
    empty = outcomes(run.folder / PARQUET)["direct"]["q-0"][0]
    assert empty.mean_logprob == float("-inf") and empty.total_logprob == 0.0


def test_the_end_token_counts_in_the_whole_answer(tmp_path: Path) -> None:
    """Whether the model would end here belongs to how likely an answer is; older runs have no such number."""
    talker = load_talker(tmp_path / "model")
    task = toy_task(3)
    handle = Elicited(talker, "m", decoder=Sampling(16, 1.0, max_new_tokens=4), select="logprob")
    run = evaluate(handle, task.test, out=tmp_path / "run")
    ended = [one for some in run.traces["m"].values() for one in some if one.finish == "eos"]
    assert len(ended) > 5
    for trace in ended:
        item = next(item for item in task.test if item.id == trace.item)
        ids = handle.prompt_ids(item) + trace.tokens
        logits = talker.lm(torch.tensor([ids])).logits[0, -1]
        ends = logits.log_softmax(-1)[sorted(talker.eos_ids)].tolist()
        assert trace.end_logprob is not None and min(abs(trace.end_logprob - end) for end in ends) < 1e-4
        assert trace.total_logprob == pytest.approx(sum(trace.logprob) + trace.end_logprob, abs=1e-3)
        assert run.outcomes["m"][trace.item][trace.index].total_logprob == pytest.approx(trace.total_logprob)
    for item, some in run.traces["m"].items():
        best = max((one for one in some if not one.dropped), key=lambda one: one.total_logprob, default=some[0])
        assert select("logprob", run.outcomes["m"][item], task.grader).branch == best.index


def test_auroc_within_is_the_auroc_of_each_question() -> None:
    rng = np.random.default_rng(0)
    question = rng.integers(0, 30, 200)
    score, right = rng.integers(0, 6, 200) / 5.0, rng.random(200) < 0.4
    slow = [auroc(score[question == q], right[question == q]) for q in np.unique(question)]
    assert auroc_within(score, right, question) == pytest.approx([v for v in slow if not np.isnan(v)])
    assert not len(auroc_within(score, np.ones(200, dtype=bool), question))
    assert not len(auroc_within(np.empty(0), np.empty(0, dtype=bool), np.empty(0, dtype=int)))


def test_the_interval_of_the_auroc_is_near_that_of_resampled_questions() -> None:
    rng = np.random.default_rng(1)
    question = np.sort(rng.integers(0, 200, 900))
    score = np.round(rng.random(900) + 0.3 * (question % 2), 1)
    right = rng.random(900) < 0.3 + 0.4 * (question % 2)  # answers to a question are alike
    draw, values = np.random.default_rng(7), []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(question == q) for q in draw.integers(0, 200, 200)])
        values.append(auroc(score[rows], right[rows]))
    found = auroc_interval(score, right, question, 200)
    assert found is not None and found.pair == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.012)
    # answers that are only said again tell nothing more
    again = auroc_interval(*(np.repeat(one, 4) for one in (score, right, question)), 200)
    assert again is not None and again.pair == pytest.approx(found.pair)
    assert auroc_interval(score, np.ones(900, dtype=bool), question, 200) is None
    best = auroc_interval(right.astype(float), right, question, 200)
    assert best is not None and best.high == 1.0 and best.low == pytest.approx(0.025 ** (1 / 200))


def test_resamples_of_few_values_are_those_of_rows() -> None:
    rng = np.random.default_rng(2)
    few = rng.choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.6, 0.3])
    slow = few[np.random.default_rng(3).integers(0, 400, (4000, 400))].mean(axis=1)
    fast = resampled_means(few[:, None], resamples=4000)[:, 0]
    assert fast.mean() == pytest.approx(slow.mean(), abs=2e-3)
    assert np.quantile(fast, [0.025, 0.975]) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=6e-3)
    many = rng.normal(size=300)
    assert resampled_means(many[:, None], resamples=50).std() == pytest.approx(many.std() / 300**0.5, rel=0.3)
    clusters = np.repeat(np.arange(40), 10)
    assert bootstrap_mean(few, clusters).high > few.mean() > bootstrap_mean(few, clusters).low
