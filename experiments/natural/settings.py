"""Which models, tasks and methods stand in the table, and with which settings each is fitted."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from elicit.methods import (
    cot_decoding,
    cot_prompt,
    critique_ft,
    direct,
    get,
    one_shot_rlvr,
    sae_steer,
    self_consistency,
    vector_transfer,
)
from elicit.tasks import load_task
from elicit.tasks.base import Task
from probes.errors import UserError, unknown

# Each with the prompts that it is asked by: a base continues; an instruct model does so too, or is spoken to.
MODELS = {"gemma3-270m-base": ("qa",), "qwen2.5-coder-0.5b": ("chat", "qa")}
PROMPTS = ("qa", "chat")
# Each with the kind of answer that is looked for; a file of a task's questions is read as the task is.
TASKS = {"multiarith": "number", "gsm8k": "number", "math-500": "math"}
# Cheapest first.
METHODS = tuple(
    module.NAME
    for module in (
        direct, cot_prompt, cot_decoding, self_consistency, sae_steer, critique_ft, vector_transfer, one_shot_rlvr
    )
)  # fmt: skip
# Where the settings of a method on a natural model stand already, and which of them are that one model's.
CONFIGURED = {
    cot_decoding.NAME: "cot_decoding/multiarith.toml",
    sae_steer.NAME: "sae_steer/qwen2.5-coder-0.5b.toml",
    vector_transfer.NAME: "vector_transfer/qwen2.5-coder-0.5b.toml",
}
OF_ONE_MODEL = ("sae", "partner", "layers")
SAE: dict[str, Any] = {"tokens": 60_000, "context": 64, "epochs": 5}
# The thinking model of a base: an adapter on right solutions of its own, found when it was asked to think.
PARTNER: dict[str, Any] = {
    "targets": "solutions", "ask": "think", "problems": 24, "candidates": 4, "steps": 16, "lr": 4e-4, "rows": 3
}  # fmt: skip


def names(text: str, known: tuple[str, ...], what: str) -> list[str]:
    """Names that were given, joined by commas.

    Raises:
        UserError: one that is not known.
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in known:
            raise unknown(what, name, known)
    return found


def tasks(text: str) -> dict[str, str]:
    """Tasks that were given, joined by commas, each by where its questions are: `multiarith` is the hub's,
    `multiarith=HALF.jsonl` a file of them.

    Raises:
        UserError: one that is not known, or stands twice.
    """
    out: dict[str, str] = {}
    for one in filter(None, (part.strip() for part in text.split(","))):
        name, equals, file = one.partition("=")
        (name,) = names(name, tuple(TASKS), "task") or [""]
        if name in out or not name or (equals and not file):
            raise UserError(f"task {one!r} was given; give each of {', '.join(TASKS)} once, or as NAME=FILE.jsonl")
        out[name] = file or name
    return out


def load(name: str, source: str, limit: int) -> Task:
    """The questions of a task, by whose kind of answer they are graded wherever they come from."""
    if source != name and not Path(source).expanduser().is_file():
        raise UserError(f"there is no file {source!r} of the task {name}; give the path of a JSON Lines file")
    return load_task(source, limit=limit, kind=TASKS[name])


def options(sae: Path, partner: Path) -> dict[str, dict[str, Any]]:
    """What each method is told beside prompt, limit and seed.

    Args:
        sae: the folder of the SAE that is trained for `sae-steer`.
        partner: the folder of the adapter that is trained for `vector-transfer`.
    """
    told: dict[str, dict[str, Any]] = {name: dict(get(name).quick) for name in METHODS}
    for name, file in CONFIGURED.items():
        configured = tomllib.loads((Path(__file__).parent.parent / file).read_text(encoding="utf-8"))["options"]
        told[name] |= {key: value for key, value in configured.items() if key not in OF_ONE_MODEL}
    told[self_consistency.NAME] |= {"samples": told[cot_decoding.NAME]["k"]}
    told[sae_steer.NAME] |= {"sae": str(sae)}
    told[vector_transfer.NAME] |= {"partner": str(partner)}
    return told
