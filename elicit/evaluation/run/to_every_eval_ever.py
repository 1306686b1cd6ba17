"""A run as records of every-eval-ever, schema 0.3.0: of each arm an aggregate JSON, and its answers as JSON Lines.

They lie where that collection keeps them: `data/COLLECTION/DEVELOPER/MODEL/UUID.json` and `UUID_samples.jsonl`. A line
is a question: the answer that the arm's selection took stands first, the arm's others after it. What the schema asks
for and a run does not know (who evaluated, whose model it is) is `unknown`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from elicit.decoding.trace import Trace
from elicit.evaluation.metrics.verdicts import not_stated
from elicit.evaluation.run.arms import Arm
from elicit.evaluation.run.run import Run
from elicit.evaluation.run.store import METRICS
from elicit.tasks.base import Item
from probes.errors import UserError
from probes.files import make_folder, write_whole

SCHEMA = "0.3.0"
UNKNOWN = "unknown"


def write_every_eval_ever(run: Run, folder: Path) -> list[Path]:
    """Write the records of each arm below `folder`/data.

    Args:
        run: a finished run.
        folder: that is there.

    Returns:
        The aggregate files, in the order of the run's arms.

    Raises:
        UserError: a run that states no accuracy of an arm.
    """
    if why := not_stated(run.metrics["arms"], len(run.items)):
        raise UserError(f"{str(run.folder)!r} cannot be exported as accuracies. {why}")
    return [_arm(Arm(name, run, name), folder) for name in run.metrics["arms"]]


def _arm(arm: Arm, folder: Path) -> Path:
    run = arm.run
    key = json.dumps([run.store.config["identity"], arm.key], sort_keys=True, default=str)
    name = str(uuid.UUID(bytes=hashlib.sha256(key.encode()).digest()[:16], version=4))
    model = _model(run.metrics["model"]["name"])
    developer, _, short = model.rpartition("/")
    place = Path("data", _part(f"elicit_{run.metrics['task']}"), _part(developer or UNKNOWN), _part(short))
    made = f"{(run.folder / METRICS).stat().st_mtime:.0f}"
    about = {
        "schema_version": SCHEMA, "evaluation_id": f"{run.metrics['task']}/{model}/{arm.key}/{made}",
        "model_id": model, "evaluation_name": run.metrics["task"], "evaluation_result_id": f"{name}:accuracy",
    }  # fmt: skip
    items = [item for item in run.items if item.id in arm.scores]
    chosen = arm.chosen([item.id for item in items])
    lines = [json.dumps({**about, **_line(arm, item, one)}) for item, one in zip(items, chosen, strict=True)]
    text = "\n".join(lines) + "\n"
    make_folder(folder / place)
    samples = place / f"{name}_samples.jsonl"
    write_whole(folder / samples, text)
    path = folder / place / f"{name}.json"
    detailed = {
        "format": "jsonl", "file_path": samples.as_posix(), "hash_algorithm": "sha256",
        "checksum": hashlib.sha256(text.encode()).hexdigest(), "total_rows": len(lines),
    }  # fmt: skip
    write_whole(path, json.dumps({**_aggregate(arm, about, made), "detailed_evaluation_results": detailed}, indent=1))
    return path


def _model(name: str) -> str:
    """A hub id as it is; of a path its last part."""
    return (
        name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else name.rstrip("/").rpartition("/")[2]
    )


def _part(name: str) -> str:
    """A name as a folder may have it."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or UNKNOWN


def _aggregate(arm: Arm, about: dict[str, str], made: str) -> dict[str, Any]:
    run, found = arm.run, arm.run.metrics["arms"][arm.key]
    low, high = found["interval"]
    decoder = arm.about["decoder"]
    settings = {
        "temperature": decoder.get("temperature"), "top_p": decoder.get("top_p"), "top_k": decoder.get("top_k") or None,
        "max_tokens": decoder.get("max_new_tokens") or None,
    }  # fmt: skip
    model = {key: str(value) for key, value in run.metrics["model"].items() if key in ("sha256", "dtype") and value}
    return {
        "schema_version": SCHEMA, "evaluation_id": about["evaluation_id"], "retrieved_timestamp": made,
        "source_metadata": {
            "source_type": "evaluation_run", "source_name": "elicit", "source_organization_name": UNKNOWN,
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "elicit", "version": version("elicit")},
        "model_info": {
            "name": run.metrics["model"]["name"], "id": about["model_id"], "additional_details": {
                **model, "method": arm.key, "deployment_type": UNKNOWN if arm.foreign else "self_deployed",
                "model_availability": UNKNOWN,
            },
        },
        "evaluation_results": [{
            "evaluation_result_id": about["evaluation_result_id"], "evaluation_name": about["evaluation_name"],
            "source_data": {"dataset_name": run.metrics["task"], "source_type": "other"},
            "metric_config": {
                "metric_id": "accuracy", "metric_name": "Accuracy", "metric_kind": "accuracy",
                "metric_unit": "proportion", "lower_is_better": False, "score_type": "continuous", "min_score": 0.0,
                "max_score": 1.0, "additional_details": {"select": found["select"]},
            },
            "score_details": {
                "score": found["accuracy"],
                "uncertainty": {
                    "confidence_interval": {
                        "lower": low, "upper": high, "confidence_level": 0.95, "method": "Agresti-Coull",
                    },
                    "num_samples": len(arm.scores),
                },
            },
            "generation_config": {
                "generation_args": {key: value for key, value in settings.items() if value is not None},
                "additional_details": {"decoder": json.dumps(decoder, default=str)},
            },
        }],
    }  # fmt: skip


def _line(arm: Arm, item: Item, chosen: Trace) -> dict[str, Any]:
    traces = arm.traces[item.id]
    score = arm.scores[item.id]
    found = [] if chosen.answer is None else [{
        "turn_idx": 0, "source": "output.raw", "extracted_value": chosen.answer,
        "extraction_method": chosen.found_by or UNKNOWN, "is_terminal": True,
    }]  # fmt: skip
    return {
        "sample_id": item.id, "interaction_type": "single_turn",
        "input": {"raw": item.question, "reference": [] if item.answer is None else [item.answer]},
        "output": {"raw": [chosen.text, *(trace.text for trace in traces if trace is not chosen)]},
        "answer_attribution": found, "evaluation": {"score": score, "is_correct": score >= 1.0}, **_usage(traces),
    }  # fmt: skip


def _usage(traces: Sequence[Trace]) -> dict[str, Any]:
    """Nothing where a log of another program counted none."""
    if traces[0].prompt_tokens < 0 or min(trace.spent for trace in traces) < 0:
        return {}
    read, spent = traces[0].prompt_tokens, sum(trace.spent for trace in traces)
    return {"token_usage": {"input_tokens": read, "output_tokens": spent, "total_tokens": read + spent}}
