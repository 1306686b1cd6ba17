"""The main job in two fixed sizes, and which of them this machine has time for.

`elicit run --method sae-steer --controls --size auto` times a few steps of decoding and takes `full` where that will
be done in `PATIENCE` seconds, else `short`. What was found stands in the run's `execution`; the same command takes it
from there when it resumes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from probes.errors import UserError, unknown

METHOD = "sae-steer"
SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "limit": 32,
        "max_new_tokens": 192,
        "options": {"candidates": 3, "strengths": "2,4", "read": 32},
    },
    "short": {
        "limit": 16,
        "max_new_tokens": 128,
        "options": {"candidates": 2, "strengths": "2,4", "read": 16, "dev": 8},
    },
}
STEPS = {"full": 3500, "short": 1650}
"""What a size costs, in steps of `elicit.decoding.pace.ROWS` rows: a job's processor seconds over those of a step,
on one thread."""
PATIENCE = 240.0  # seconds
PROMPT = 64  # tokens of a question, at most
AUTO = "auto"


def check_size(given: Mapping[str, Any]) -> None:
    """Refuse a size that is none, and one of another method.

    Raises:
        UserError: that.
    """
    if given["size"] not in (*SIZES, AUTO):
        raise unknown("size", given["size"], [*SIZES, AUTO])
    if given["method"] != METHOD or given["seeds"]:
        raise UserError(
            f"--size {given['size']} was given with method {given['method']!r}; sizes are of one run of {METHOD}: for "
            "others give --limit, --max-new-tokens and --set"
        )


def choose(given: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """The size that is asked for, or that fits; torch then uses the threads that were fastest.

    Args:
        given: the options of the command.
        model: that it will decode.

    Returns:
        For the run's `execution`: the size's `name`; what it was `asked` with; where the machine was tried, its
        `threads`, the `seconds` of a step, the `share` of the processor, the `estimate` in seconds, and the `memory`
        that caches may take.

    Raises:
        UserError: caches that have no room in either size.
    """
    import torch

    from elicit.decoding.pace import measure_pace, threads_to_try
    from elicit.models.memory import free_bytes
    from probes.files import digest

    asked = digest({k: str(v) for k, v in given.items() if k not in ("fresh", "as_json", "out", "dry_run")})
    kept = None if given["fresh"] else next(_kept(given["out"], asked), None)
    if kept is not None:
        if "threads" in kept:
            torch.set_num_threads(kept["threads"])
        return kept
    pace = measure_pace(model, threads_to_try())
    torch.set_num_threads(pace.threads)
    free = free_bytes(model.lm.device)
    room = {name: free is None or _memory(name, given, model) <= free for name in SIZES}
    name = given["size"]
    if name == AUTO:
        name = "full" if room["full"] and STEPS["full"] * pace.seconds <= PATIENCE else "short"
    memory = _memory(name, given, model)
    if not room[name]:
        assert free is not None
        rows = max(1, free * _rows(given) // memory)
        raise UserError(
            f"size {name} keeps up to {memory / 1e9:.2f} GB in caches and {free / 1e9:.2f} GB are free on "
            f"{model.lm.device.type}; give --batch-rows {rows}"
        )
    estimate = STEPS[name] * pace.seconds
    return {"name": name, "asked": asked, **asdict(pace), "estimate": estimate, "memory": memory}


def _rows(given: Mapping[str, Any]) -> int:
    from elicit.evaluation.evaluator import BATCH_ROWS

    return int(given["batch_rows"] or BATCH_ROWS)


def _memory(name: str, given: Mapping[str, Any], model: Any) -> int:
    """Of the largest batch, if every answer goes on to the limit."""
    from elicit.models.memory import cache_bytes

    return cache_bytes(model.lm, _rows(given), PROMPT + SIZES[name]["max_new_tokens"])


def told(size: Mapping[str, Any]) -> str:
    """What is said before the job begins."""
    took = timedelta(seconds=round(size["estimate"]))
    return (
        f"size {size['name']} on {size['threads']} thread{'s' * (size['threads'] > 1)}, of whose time other work "
        f"leaves {size['share']:.0%}: about {took} and up to {size['memory'] / 1e9:.1f} GB for caches"
    )


def _kept(out: Path | None, asked: str) -> Iterator[dict[str, Any]]:
    """The sizes of runs that the same command began."""
    from elicit.evaluation.run.store import CONFIG, Store

    for file in [out / CONFIG] if out is not None else sorted(Path("runs").glob(f"{METHOD}-*/{CONFIG}")):
        if file.is_file():
            try:
                size = Store.read(file.parent).config.get("execution", {}).get("size", {})
            except UserError:  # no run of ours: refused where it is in the way
                continue
            if size.get("asked") == asked:
                yield size
