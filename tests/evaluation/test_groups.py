"""Accuracy by subject and level, and of a method that samples the mean over items."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import elicit
from elicit.models import Model
from elicit.report.page import render
from elicit.report.run_section import notes
from elicit.tasks import load_task
from probes.statistics import bootstrap_mean


def test_a_run_tells_accuracy_by_subject_and_level_and_avg_at_k(tiny: Model, tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    lines = [
        {
            "question": f"{n} + 1?",
            "answer": n % 3,
            "split": "test",
            "subject": "AB"[n % 2],
            "level": 1 + n % 3,
            "id": n + 1,
        }
        for n in range(9)
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    handle = elicit.methods.self_consistency.fit(tiny, samples=5, max_new_tokens=6, temperature=1.0)
    run = elicit.evaluate(handle, load_task(str(file)).test, against=["direct"], out=tmp_path / "run", seed=3)
    arm = run.metrics["arms"]["self-consistency"]
    for field, sizes in (("subject", {"A": 5, "B": 4}), ("level", {1: 3, 2: 3, 3: 3})):
        rows = run.metrics["groups"][field]
        assert {row["value"]: row["items"] for row in rows} == sizes
        for row in rows:
            own = [arm["scores"][str(line["id"])] for line in lines if line[field] == row["value"]]
            assert row["accuracy"]["self-consistency"] == pytest.approx(np.mean(own))
    average = run.metrics["samples"]["avg_at_k"]
    shares = np.array([np.mean([t.correct for t in run.traces["self-consistency"][str(n + 1)]]) for n in range(9)])
    assert average["k"] == 5 and average["mean"] == pytest.approx(shares.mean())
    assert average["interval"] == pytest.approx(bootstrap_mean(shares, bounds=(0.0, 1.0), seed=3).pair)
    assert any(line.startswith("avg@5 of self-consistency") for line in notes(run.metrics))
    assert "table of subject" in render(run)


def test_an_auroc_of_0_is_told() -> None:
    arm = {"select": "max", "dropped": {}, "fallbacks": 0, "finish": {}}
    told = {"auroc": 0.0, "auroc_interval": None, "auroc_within": 0.0}
    metrics = {"method": "m", "items": 4, "arms": {"m": arm}, "calibration": told}
    assert "AUROC of Δ for right: 0.00; within a question 0.00." in notes(metrics)
    assert "AUROC of Δ for right: 0.00." in notes({**metrics, "calibration": {**told, "auroc_within": None}})
