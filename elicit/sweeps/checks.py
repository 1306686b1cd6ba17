"""What every job of a sweep would be refused for, told when it is planned: names, and values of `elicit run`'s options.

Nothing is looked for that another machine may have: models, files and devices are looked at by the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elicit.decoding.engine import check_engine
from elicit.models.model import DTYPES
from elicit.tasks import hub, lm_eval, outside
from elicit.tasks.base import SPLITS
from elicit.tasks.registry import load_task
from probes.errors import UserError, unknown
from probes.files import file_named


def check_run(run: Mapping[str, Any]) -> None:
    """Refuse values of options that no job could take.

    Raises:
        UserError: an unknown dtype, split or engine, a number below 1.
    """
    for key, names in (("dtype", DTYPES), ("split", (*SPLITS, "all"))):
        if key in run and run[key] not in names:
            raise unknown(key, run[key], names)
    for key in ("limit", "max_new_tokens", "batch_rows"):
        if run.get(key, 1) < 1:
            raise UserError(f"run.{key} = {run[key]} was given; give at least 1")
    check_engine(run.get("engine", "hf"))


def check_task(name: str) -> None:
    """Refuse a task that is none, or a generated one whose parameters are not its own.

    Raises:
        UserError: an unknown name or parameter.
    """
    base = name.partition(":")[0]
    written = name.split(",", 1)[0]
    if not name or base == lm_eval.FAMILY or base in hub.TASKS or outside.named(written):
        return
    if base.endswith((".jsonl", ".json")) or "/" in base or "\\" in name or file_named(name) or file_named(base):
        return
    load_task(name, limit=1)  # a generated one, of which an item is drawn, or none
