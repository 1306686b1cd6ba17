"""A run as logs of Inspect: an `.eval` file an arm, of version 2, for `inspect view`, `inspect log dump` and Scout.

Samples of one distribution are epochs, each with its own score; of a search that opens branches one epoch has the
branch that the arm's selection took, and the others follow as further choices of its output. Scores are the run's own,
under the scorer's name `elicit`; that Inspect could score again is not claimed. What Inspect has no place for (Δ, token
ids, how the answer was found) stands as JSON in the metadata of sample and output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from elicit.decoding.trace import Trace
from elicit.evaluation.metrics.verdicts import is_accuracy
from elicit.evaluation.run.arms import Arm
from elicit.evaluation.run.foreign_inspect import HEADER, KIND, LOST, OURS, SAMPLES, START
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import METRICS
from elicit.tasks.base import Item
from probes.files import digest, whole

SCORER = "elicit"
STOPPED = {"length": "max_tokens", "unknown": "unknown"}  # all others stopped by themselves
PLAN = {"name": "plan", "steps": [{"solver": "elicit", "params": {}}], "config": {}}
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip can hold: the same run gives the same bytes


def write_inspect(run: Run, folder: Path) -> list[Path]:
    """Write a log an arm.

    Args:
        run: a finished run.
        folder: that is there; a log of an arm's name in it is replaced.

    Returns:
        The logs, in the order of the run's arms.
    """
    names: dict[str, str] = {}
    for name in run.metrics["arms"]:
        plain = _plain(name)
        same = sum(other == plain or other.startswith(f"{plain}~") for other in names.values())
        names[name] = f"{plain}~{same + 1}" if same else plain  # two names may be one as files
    return [_log(Arm(name, run, name), folder / f"{file}.eval") for name, file in names.items()]


def _log(arm: Arm, path: Path) -> Path:
    with whole(path) as part, ZipFile(part, "w", ZIP_DEFLATED) as log:

        def put(name: str, data: Any) -> None:
            member = ZipInfo(name, EARLIEST)
            member.compress_type = ZIP_DEFLATED
            log.writestr(member, json.dumps(data, allow_nan=False))

        items = [item for item in arm.run.items if item.id in arm.scores]
        epochs = _epochs(arm, items)
        spec = _spec(arm, items, epochs)
        put(START, {"version": 2, "eval": spec, "plan": PLAN})
        usage: dict[str, int] = {}
        values: dict[str, list[float]] = {}
        summaries = []
        for sample in _samples(arm, items, spec["model"]):
            put(f"{SAMPLES}{sample['id']}_epoch_{sample['epoch']}.json", sample)
            values.setdefault(sample["id"], []).append(sample["scores"][SCORER]["metadata"]["score"])
            for key, count in sample["model_usage"].get(spec["model"], {}).items():
                usage[key] = usage.get(key, 0) + count
            kept = ("id", "epoch", "input", "target", "metadata", "scores", "model_usage")
            summaries.append({**{key: sample[key] for key in kept}, "completed": True})
        put("summaries.json", summaries)
        put(HEADER, {
            "version": 2, "status": "success", "eval": spec, "plan": PLAN,
            "results": _results(arm, [float(np.mean(some)) for some in values.values()], len(summaries)),
            "stats": {
                "started_at": spec["created"], "completed_at": spec["created"],
                "model_usage": {spec["model"]: usage} if usage else {},
            },
        })  # fmt: skip
    return path


def _plain(name: str) -> str:
    """A name as a file may have it."""
    return "".join(c if c.isalnum() or c in "-_.@ " else "_" for c in name).strip(". ") or "arm"


def _epochs(arm: Arm, items: Sequence[Item]) -> int:
    return 1 if arm.not_independent else max(len(arm.traces[item.id]) for item in items)


def _spec(arm: Arm, items: Sequence[Item], epochs: int) -> dict[str, Any]:
    run, config = arm.run, arm.run.store.config
    made = datetime.fromtimestamp((run.folder / METRICS).stat().st_mtime, UTC).isoformat(timespec="seconds")
    key = digest([config["identity"], arm.key])
    decoder = arm.about["decoder"]
    settings = {
        "temperature": decoder.get("temperature"), "top_p": decoder.get("top_p"),
        "top_k": decoder.get("top_k") or None, "max_tokens": decoder.get("max_new_tokens") or None,
        "seed": decoder.get("seed"),
    }  # fmt: skip
    about = {"arm": arm.about, "identity": config["identity"], "made": config.get("made", {})}
    return {
        "eval_id": f"{key}e", "run_id": digest(config["identity"]), "task_id": f"{key}t", "created": made,
        "task": run.metrics["task"], "task_version": 0,
        "dataset": {
            "name": run.metrics["task"], "samples": len(items), "sample_ids": [item.id for item in items],
            "shuffled": False,
        },
        "model": f"elicit/{arm.key}:{run.metrics['model']['name']}",
        "model_generate_config": {name: value for name, value in settings.items() if value is not None},
        "config": {"epochs": epochs, "epochs_reducer": ["mean"]},
        "packages": {"elicit": version("elicit")},
        "scorers": [{"name": SCORER, "metrics": [{"name": "accuracy"}, {"name": "stderr"}]}],
        "metadata": {OURS: _json(about)},
    }  # fmt: skip


def _json(value: Any) -> Any:
    """The value as JSON can hold it; TOML has times and infinities, JSON has not."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)


def _samples(arm: Arm, items: Sequence[Item], model: str) -> Iterator[dict[str, Any]]:
    chosen = [] if not arm.not_independent else arm.chosen([item.id for item in items])
    for n, item in enumerate(items):
        traces = arm.traces[item.id]
        answers = [[trace] for trace in traces]
        if chosen:
            answers = [[chosen[n], *(trace for trace in traces if trace is not chosen[n])]]
        for epoch, said in enumerate(answers, start=1):
            yield _sample(arm, item, epoch, said, model)


def _sample(arm: Arm, item: Item, epoch: int, said: Sequence[Trace], model: str) -> dict[str, Any]:
    first = said[0]
    counted = all(trace.spent >= 0 for trace in said) and first.prompt_tokens >= 0
    spent = sum(trace.spent for trace in said)
    usage = {
        "input_tokens": first.prompt_tokens, "output_tokens": spent, "total_tokens": first.prompt_tokens + spent
    }  # fmt: skip
    value: Any = "C" if first.score >= 1 else "I" if first.score == 0 else first.score
    score = {
        "value": value, "answer": first.answer, "explanation": f"found by: {first.found_by or 'nothing'}",
        "metadata": {"score": first.score, **({LOST: first.unjudged} if first.unjudged else {})},
    }  # fmt: skip
    kept = {"select": arm.about["select"], "branches": [_about(trace) for trace in said]}
    return {
        "id": item.id, "epoch": epoch, "input": item.question, "target": item.answer or "",
        "messages": [{"role": "user", "content": item.question}, _message(first, model)],
        "output": {
            "model": model, "choices": [_choice(trace, model) for trace in said], "completion": first.text,
            "metadata": {OURS: _json(kept)}, **({"usage": usage} if counted else {}),
        },
        "scores": {SCORER: score},
        "metadata": {**_json(item.metadata), KIND: arm.run.items.task.kind_of(item)},
        "model_usage": {model: usage} if counted else {},
    }  # fmt: skip


def _message(trace: Trace, model: str) -> dict[str, Any]:
    return {"role": "assistant", "content": trace.text, "source": "generate", "model": model}


def _choice(trace: Trace, model: str) -> dict[str, Any]:
    pieces = trace.pieces if trace.tokens else []  # an empty answer has one end and no token
    tokens = [{"token": piece, "logprob": p} for piece, p in zip(pieces, trace.logprob, strict=True)]
    finite = tokens and all(math.isfinite(p) for p in trace.logprob)
    return {
        "message": _message(trace, model), "stop_reason": STOPPED.get(trace.finish, "stop"),
        **({"logprobs": {"content": tokens}} if finite else {}),
    }  # fmt: skip


def _about(trace: Trace) -> dict[str, Any]:
    return {
        "index": trace.index, "score": trace.score, "answer": trace.answer, "delta": trace.delta,
        "dropped": trace.dropped, "found_by": trace.found_by, "finish": trace.finish, "tokens": trace.tokens,
        "span": trace.span,
    }  # fmt: skip


def _results(arm: Arm, values: Sequence[float], samples: int) -> dict[str, Any]:
    """The mean over epochs, then over questions, as Inspect has it; and the arm's own accuracy, by its selection. Of an
    arm that lost too many verdicts neither."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    metrics: Mapping[str, float] = {"accuracy": float(np.mean(values)), "stderr": error}
    found = arm.run.metrics["arms"][arm.key]
    stated = is_accuracy(found, len(arm.run.items))
    kept = ("select", "accuracy", "interval") if stated else ("select",)
    return {
        "total_samples": samples, "completed_samples": samples,
        "scores": [{
            "name": SCORER, "scorer": SCORER, "reducer": "mean", "scored_samples": len(values), "unscored_samples": 0,
            "metrics": {name: {"name": name, "value": value} for name, value in metrics.items() if stated},
        }],
        "metadata": {OURS: {key: found[key] for key in kept}},
    }  # fmt: skip
