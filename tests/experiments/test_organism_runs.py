"""Every mechanism on organisms whose truth is known: it must recover the gap, and nothing where there is none.

A new mechanism joins by its name in `MECHANISMS`; those that train for minutes are run by `make test-slow`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from elicit import evaluate
from elicit.evaluation.metrics.gap import recovered
from elicit.methods import MECHANISMS, direct, fit, quick_of
from elicit.methods import cot_prompt as ceiling
from elicit.models import load_model
from elicit.tasks import load_task

pytestmark = pytest.mark.real
LATENT, TWIN = "smollm2-135m-latent", "smollm2-135m-absent"
ITEMS = 32
TRAINED = ("critique-ft", "one-shot-rlvr")
LEAST = {"critique-ft": 0.1}  # of the gap, on so few questions: critiques wear what they open; of the others 0.4


def scores(name: str, method: str, folder: Path) -> dict[str, np.ndarray]:
    """Right or wrong on the same questions: the mechanism, direct answers and thoughts when asked for."""
    model = load_model(name, device="cpu")
    task = load_task("organism", limit=ITEMS)
    handle = fit(method, model, task.solved, max_new_tokens=200, **quick_of(method))
    against = {m.NAME: m.fit(model, task.solved, max_new_tokens=200) for m in (direct, ceiling)}
    run = evaluate(handle, task.test, against=against, out=folder / name)
    return {arm: np.array(list(one["scores"].values())) for arm, one in run.metrics["arms"].items()}


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in TRAINED else ()) for name in MECHANISMS]
)
def test_a_mechanism_recovers_a_known_gap_and_nothing_on_the_twin(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what a method fits is kept in runs/
    right = scores(LATENT, method, tmp_path)
    found = recovered(right[method], right["direct"], right["cot-prompt"])
    assert right["direct"].mean() <= 0.3 and right["cot-prompt"].mean() >= 0.75
    assert found.share is not None and found.share >= LEAST.get(method, 0.4), found
    assert found.gain_interval.low > 0

    twin = scores(TWIN, method, tmp_path)
    nothing = recovered(twin[method], twin["direct"], twin["cot-prompt"])
    assert nothing.gain_interval.low <= 0, nothing
    assert twin["cot-prompt"].mean() <= 0.35
