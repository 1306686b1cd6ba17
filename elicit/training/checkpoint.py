"""The state of a training: one safetensors file with weights, moments and what else is kept, whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from probes.errors import UserError, as_expected
from probes.files import make_folder
from probes.sealed import check_tensors_file, save_tensors
from steering.storage import read_tensors

KEPT = ("exp_avg", "exp_avg_sq", "step")  # of AdamW, for each parameter


def write_state(
    file: Path,
    wanted: dict[str, Any],
    trained: dict[str, nn.Parameter],
    optimiser: Any,
    about: Any,
    more: Mapping[str, Tensor] | None = None,
) -> None:
    """One file: weights, moments and `more` tensors; in its header what they belong to, and what JSON holds of it.

    Raises:
        UserError: it cannot be written; what was there before is still there.
    """
    tensors = {f"weight/{name}": p.detach() for name, p in trained.items()}
    for name, p in trained.items():
        # None before a parameter's first gradient, which one that is seldom reached (an expert) gets late.
        tensors |= {f"{key}/{name}": t for key, t in (optimiser.state.get(p) or {}).items() if key in KEPT}
    tensors |= more or {}
    make_folder(file.parent)
    held = {k: t.cpu().contiguous() for k, t in tensors.items()}
    try:
        save_tensors(held, file, state=json.dumps([wanted, about]))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{str(file)!r} cannot be written ({error}); the state before it is kept: make room and run the same "
            "command again"
        ) from error


def read_state(file: Path, wanted: dict[str, Any]) -> tuple[Any, dict[str, Tensor]] | None:
    """What `write_state` wrote, if anything: what JSON held, and all tensors.

    Raises:
        UserError: the state of another training, or one that is not as it was written.
    """
    if not file.is_file():
        return None
    check_tensors_file(file, repr(str(file)), "remove it and train again")
    tensors = read_tensors(file)
    with as_expected(repr(str(file)), "remove it and train again"), safe_open(file, "pt") as opened:
        found, about = json.loads(opened.metadata()["state"])
        recipe = dict(found["recipe"])
    if found != wanted:
        old, new = {**found, **recipe}, {**wanted, **wanted["recipe"]}
        changed = [k for k in {**old, **new} if k != "recipe" and old.get(k) != new.get(k)]
        raise UserError(f"{str(file.parent)!r} holds a training with another {', '.join(changed)}; give another folder")
    return about, tensors


def load_state(trained: dict[str, nn.Parameter], optimiser: Any, tensors: Mapping[str, Tensor], steps: int) -> None:
    """Put weights and moments of a state in their places; a parameter that has had no gradient has no moments.

    Args:
        trained, optimiser, tensors: where they belong, and what was kept.
        steps: that were made, for states of before each parameter had its own number.
    """
    for name, p in trained.items():
        p.data.copy_(tensors[f"weight/{name}"])
        found = {key: tensors[f"{key}/{name}"] for key in KEPT if f"{key}/{name}" in tensors}
        if found:
            step = found.pop("step", torch.tensor(float(steps)))
            optimiser.state[p] = {"step": step, **{key: t.to(p.device) for key, t in found.items()}}
