"""The same mechanism, model, prompts and streams say the same by `evaluate` and by Inspect, whatever waits together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import get_model

from elicit import methods
from elicit.decoding.decoders import RngStream
from elicit.evaluation.evaluator import evaluate
from elicit.evaluation.run.arms import arms_of
from elicit.models.model import load_model
from elicit.tasks.base import Items
from elicit.tasks.registry import load_task
from tests.inspect.task import as_task

CASES = {
    "cot-decoding": {"k": 3, "max_new_tokens": 16},
    "self-consistency": {"samples": 3, "max_new_tokens": 16, "temperature": 0.9, "seed": 5},
    "cot-prompt": {"max_new_tokens": 16},
}
NUMBERS = (1, 20, 64)  # connections


def branches(log: Any) -> dict[tuple[str, int], Any]:
    """Of each sample and epoch the chosen text, and the tokens of all branches in their order."""
    out = {}
    for sample in log.samples:
        about = sample.output.metadata["elicit"]
        tokens = [one["tokens"] for one in sorted(about["branches"], key=lambda one: one["index"])]
        out[sample.id, sample.epoch] = (sample.output.completion, tokens)
    return out


def own(handle: Any, items: Items, folder: Path) -> dict[str, Any]:
    """The same of an evaluation of the suite's own."""
    run = evaluate(handle, items, out=folder)
    (arm,) = arms_of([run])
    chosen = arm.chosen([item.id for item in items])
    traces = run.traces[handle.method]
    return {
        item.id: (trace.text, [one.tokens for one in traces[item.id]])
        for item, trace in zip(items, chosen, strict=True)
    }


@pytest.mark.parametrize("method", CASES)
def test_three_epochs_say_the_same_as_an_evaluation_at_any_number_of_connections(
    method: str, tiny: Path, tmp_path: Path, evaluated: Callable[..., Any]
) -> None:
    task = load_task("organism", limit=8)
    model = get_model(
        f"elicit/{method}:{tiny}", dtype="float32", kind="by-sample", fit_task="organism", fit_limit=8, **CASES[method]
    )
    handle = methods.fit(method, load_model(str(tiny), dtype="float32"), task.solved, **CASES[method])
    expected = own(handle, task.test, tmp_path / "run")
    made = [
        branches(evaluated(as_task(task.test), model, epochs=3, max_connections=number, max_samples=number))
        for number in NUMBERS
    ]
    assert {key[0]: value for key, value in made[0].items() if key[1] == 1} == expected
    assert made[1] == made[0]
    assert made[2] == made[0]
    again = [made[0][item.id, epoch] for item in task.test for epoch in (1, 2, 3)]
    differ = [len({repr(one) for one in again[n : n + 3]}) > 1 for n in range(0, len(again), 3)]
    assert all(differ) if method == "self-consistency" else not any(differ)


def test_an_epoch_draws_from_the_stream_of_its_number(tiny: Path, evaluated: Callable[..., Any]) -> None:
    items = load_task("organism", limit=2).test
    options = CASES["self-consistency"]
    model = get_model(f"elicit/self-consistency:{tiny}", dtype="float32", kind="by-sample", **options)
    handle = methods.fit("self-consistency", load_model(str(tiny), dtype="float32"), **options)
    found = branches(evaluated(as_task(items), model, epochs=2, seed=11))
    drafts = handle.respond([handle.prompt_ids(items[0])], ["whole"], [RngStream(11, items[0].id, 1)])
    assert found[items[0].id, 2][1] == [one.generation.tokens.tolist() for one in drafts[0]]


@pytest.mark.real
def test_an_organism_says_the_same(tmp_path: Path, evaluated: Callable[..., Any]) -> None:
    name, options = "smollm2-135m-latent", {"k": 3, "max_new_tokens": 24}
    items = load_task("organism", limit=4).test
    model = get_model(f"elicit/cot-decoding:{name}", dtype="float32", kind="by-sample", **options)
    log = evaluated(as_task(items), model)
    found = {key[0]: value for key, value in branches(log).items()}
    handle = model.api.asked.handle
    assert found == own(handle, items, tmp_path / "run")
    run = evaluate(handle, items, out=tmp_path / "run")
    deltas = {item.id: [t.delta for t in run.traces["cot-decoding"][item.id]] for item in items}
    for sample in log.samples:
        told = [one["delta"] for one in sample.output.metadata["elicit"]["branches"]]
        assert told == pytest.approx(deltas[sample.id], abs=1e-5)  # batches differ
