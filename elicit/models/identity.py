"""What samples and verdicts rest on beside weights and settings. Where any of it changes, an older result is another's.

What is kept and found again (a run, a comparison, a fit) carries this in its identity or in its folder's name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from elicit.models.model import Model
from elicit.tasks.base import Items
from elicit.tasks.grading import identity_of

SCHEMA = 2  # of what a run's identity holds; older runs are read, and are no command's own result


def grounds(items: Items, models: Iterable[Model]) -> dict[str, Any]:
    """As JSON and TOML can hold it.

    Args:
        items: that are answered or learned from.
        models: that answer, each with its tokenizer.

    Returns:
        The schema of runs; hashes of the items (with gold answers and kinds) and of the tokenizers (with chat
        templates); the grader with its versions; the tokens that end an answer. Models that share them count once.
        Engines, where one is not `hf`; how many ids are never chosen, and how weights are quantised, where
        there are any such. Of 16-bit models on a CPU how prompts are prefilled, which decides how they round.
    """
    models = list(models)
    round_by_parts = any(m.lm.device.type == "cpu" and m.dtype in ("bfloat16", "float16") for m in models)
    engines = {model.engine for model in models}
    weights = sorted({model.quantised for model in models})
    unlisted = sorted({len(model.unlisted) for model in models})
    return {
        "schema": SCHEMA,
        "items": hash_of_items(items),
        "grader": identity_of(items.task.grader),
        "tokenizer": _hash(sorted({model.encoding_sha256 for model in models})),
        "ends": [list(ends) for ends in sorted({tuple(sorted(model.eos_ids)) for model in models})],
        **({"engines": sorted(engines)} if engines - {"hf"} else {}),
        **({"unlisted": unlisted} if any(unlisted) else {}),
        **({"quantised": weights} if any(weights) else {}),
        **({"prefill": "parts"} if round_by_parts else {}),
    }


def hash_of_items(items: Items) -> str:
    """Over ids, questions, gold answers, kinds of answer, and what else a grader reads of an item."""
    return _hash([[i.id, i.question, i.answer, items.task.kind_of(i), i.metadata] for i in items])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
