"""Logs that Inspect reads and writes, against the package itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai")
from inspect_ai import eval
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import GenerateConfig, ModelOutput, get_model
from inspect_ai.scorer import value_to_float

from elicit.evaluation.imported import import_logs
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.to_inspect import write_inspect
from tests.inspect.sums import spoken, sums

# Inspect leaves streams open, which the collector of garbage tells of.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LOGS = Path(__file__).parents[1] / "evaluation" / "logs"


@pytest.mark.parametrize("form", ["eval", "json"])
def test_a_fresh_log_is_read_as_inspect_reads_it(form: Any, tmp_path: Path) -> None:
    said = iter(range(100))

    def answers(input: Any, tools: Any, tool_choice: Any, config: Any) -> ModelOutput:
        return spoken(f"ANSWER: {next(said) % 7}")

    model = get_model("mockllm/model", custom_outputs=answers, config=GenerateConfig(temperature=0.5))
    [log] = eval(
        sums(), model=model, limit=3, epochs=4, log_dir=str(tmp_path / "logs"), log_format=form, display="none",
        log_realtime=False,
    )  # fmt: skip
    run = import_logs({"a": Path(log.location)}, tmp_path / "run")
    assert log.samples is not None
    right = {
        (str(sample.id), sample.epoch - 1): float((sample.scores or {})["match"].value == "C") for sample in log.samples
    }
    found = {(t.item, t.index): t.score for some in run.traces["a"].values() for t in some}
    assert found == right and 0 < sum(right.values()) < len(right)
    assert run.store.config["arms"]["a"]["decoder"]["temperature"] == 0.5


def test_inspect_reads_what_is_exported(tmp_path: Path) -> None:
    run = import_logs({name: LOGS / f"{name}.eval" for name in ("trained", "base")}, tmp_path / "run")
    (tmp_path / "out").mkdir()
    for path in write_inspect(run, tmp_path / "out"):
        log = read_eval_log(str(path))
        assert (log.version, log.status, log.eval.task) == (2, "success", "sums")
        assert log.samples is not None and log.results is not None
        traces = run.traces[path.stem]
        for sample in log.samples:
            trace = traces[str(sample.id)][sample.epoch - 1]
            assert sample.output.completion == trace.text
            assert value_to_float()((sample.scores or {})["elicit"].value) == trace.score
        mean = sum(t.score for some in traces.values() for t in some) / 12
        assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(mean)
        again = tmp_path / f"{path.stem}.json"
        write_eval_log(log, str(again), format="json")  # by Inspect, and read back here
        back: Run = import_logs({"a": again}, tmp_path / path.stem)
        assert back.metrics["arms"]["a"]["scores"] == run.metrics["arms"][path.stem]["scores"]
