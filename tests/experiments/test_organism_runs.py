"""Every mechanism on organisms whose truth is known: it must recover the gap, unless it is known not to, and nothing
where there is none.

A new mechanism joins by its name in `MECHANISMS`; those that take minutes are run by `make test-slow`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from elicit import evaluate
from elicit.evaluation import Run
from elicit.evaluation.metrics.gap import recovered
from elicit.methods import MECHANISMS, direct, fit, quick_of
from elicit.methods import cot_prompt as ceiling
from elicit.methods.sae_steer import pipeline
from elicit.models import load_model
from elicit.tasks import load_task

pytestmark = [pytest.mark.real, pytest.mark.long]
LATENT, TWIN = "smollm2-135m-latent", "smollm2-135m-absent"
# By simulation with 12% right directly and 94% when told to think: a mechanism with 70% right passes in 98% of draws of
# 24 questions (32: 99%, 16: 91%), and on the twin one that lends 40% more fails in 99% (32: 100%, 16: 89%).
ITEMS = 24
FITTED = 32  # of each split that a mechanism is fitted on
# Two are trained, a third's answers take two models each; the others decode for one to five minutes on two cores.
FOR_MINUTES = ("critique-ft", "one-shot-rlvr", "vector-transfer", "sae-steer", "power-sampling", "budget-forcing")
# Measured on their pages, and nothing certain: without thoughts, and by tools that the organism was not taught to use.
FINDS_NOTHING = ("no-thinking", "cognitive-tools")
# Thoughts of next tokens begin with a mark that this organism was never shown; modes are learned in more updates than
# a test has.
UNMEASURED = ("rlp", "thinkless", "quiet-star", "backward-reasoning", "dpo-teacher")
TRIED = [name for name in MECHANISMS if name not in (*FINDS_NOTHING, *UNMEASURED)]
# Known not to recover it: thoughts have a tenth of what it draws from at most (experiments/organisms/README.md).
NOTHING = ("power-sampling",)
MOST = 0.25  # of the gap, on so few questions
# Of the gap, on so few questions; of the others 0.4. Critiques wear what they open; a thought after an answer is often
# about that answer.
LEAST = {"critique-ft": 0.1, "budget-forcing": 0.1}
# Smaller than the methods' own short fits (`QUICK`).
SMALL: Mapping[str, dict[str, Any]] = {
    "cot-decoding": {"k": 5},
    "sae-steer": {"candidates": 2, "strengths": "4", "dev": 8, "read": 16},
    "power-sampling": {"block": 200, "moves": 3},
    "vector-transfer": {"read": 24, "dev": 12, "categories": "4", "coefficients": "1"},
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of these tests: xdist gives each of its workers one in it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def right(run: Run) -> dict[str, np.ndarray]:
    """Right or wrong by arm, of the same questions in the same order."""
    return {arm: np.array(list(one["scores"].values())) for arm, one in run.metrics["arms"].items()}


def scores(name: str, method: str, folder: Path, shared: Path) -> dict[str, np.ndarray]:
    """The mechanism, direct answers and thoughts when asked for; the last two are decoded once for all mechanisms."""
    model = load_model(name, device="cpu")
    task = load_task("organism", limit=FITTED)
    test = task.test[:ITEMS]
    options = SMALL.get(method, quick_of(method))
    handle = fit(method, model, task.solved, max_new_tokens=200, **options)
    alone, asked = (one.fit(model, task.solved, max_new_tokens=200) for one in (direct, ceiling))
    with FileLock(shared / f"{name}.lock"):  # who comes second reads the finished run
        known = evaluate(alone, test, against={ceiling.NAME: asked}, out=shared / name)
    return right(known) | right(evaluate(handle, test, against={}, out=folder / name))


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in FOR_MINUTES else ()) for name in TRIED]
)
def test_a_mechanism_recovers_a_known_gap_and_nothing_on_the_twin(
    method: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a method fits is kept in runs/
    # The card of the chosen feature, which nothing here looks at: on 32 questions it takes longer than the rest.
    monkeypatch.setattr(pipeline, "FALSIFIED_ON", 2)
    found_by = scores(LATENT, method, tmp_path, shared)
    found = recovered(found_by[method], found_by["direct"], found_by["cot-prompt"])
    assert found_by["direct"].mean() <= 0.3 and found_by["cot-prompt"].mean() >= 0.75
    if method in NOTHING:
        assert found.share is not None and found.share <= MOST and found.gain_interval.low <= 0, found
    else:
        assert found.share is not None and found.share >= LEAST.get(method, 0.4), found
        assert found.gain_interval.low > 0

    twin = scores(TWIN, method, tmp_path, shared)
    nothing = recovered(twin[method], twin["direct"], twin["cot-prompt"])
    assert nothing.gain_interval.low <= 0, nothing
    assert twin["cot-prompt"].mean() <= 0.35
