"""The state of a training on TRL, in place of transformers' checkpoints, whose optimisers and generators are pickles.

transformers says when a checkpoint is due, and finds its place in the data again. What is written then is one
safetensors file (`elicit.training.checkpoint`): weights, moments and torch's generators; in its header the trainer's
state, the schedule and what the caller keeps. With it a training in one process ends at the same weights as one that
was not stopped: on a CPU in fp32 to the bit, where its samples come from the decoding loop. Several processes, sharded
weights, another optimiser than AdamW and a reference that moves keep no state: what was stopped there begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from elicit.training.checkpoint import load_state, read_state, write_state

STATE = "trl.safetensors"
MORE = ("optim", "optim_target_modules", "sync_ref_model")  # options of TRL with which more would have to be kept
CPU, CUDA = "rng/cpu", "rng/cuda"


class Checkpoint:
    """What a training on TRL is resumed from.

    Args:
        folder: of the training.
        wanted: what the state belongs to; of several entries one is `recipe`.
        every: steps between two states; 0: none is kept or read.
        size: steps that belong together: a state is written after whole ones alone.

    Raises:
        UserError: the state of another training.
    """

    def __init__(self, folder: Path, wanted: dict[str, Any], every: int, size: int = 1) -> None:
        self.file, self.wanted = folder / STATE, json.loads(json.dumps(wanted))
        self.every = -(-every // size) * size
        self.more: Callable[[], Any] = dict  # what the caller keeps, as JSON holds it
        self.found = read_state(self.file, self.wanted) if every else None

    @property
    def kept(self) -> Any:
        """What the caller kept; None where there is no state."""
        return None if self.found is None else self.found[0]["more"]

    @property
    def arguments(self) -> dict[str, Any]:
        """When transformers is to ask for a state."""
        return {"save_strategy": "steps", "save_steps": self.every} if self.every else {"save_strategy": "no"}

    def write(self, made: Any) -> None:
        """The state of a trainer after a step.

        Raises:
            UserError: it cannot be written.
        """
        about = {
            "trainer": {**asdict(made.state), "log_history": []}, "schedule": made.lr_scheduler.state_dict(),
            "more": self.more(),
        }  # fmt: skip
        write_state(self.file, self.wanted, _trained(made), made.optimizer, about, _generators())

    def put(self, made: Any) -> None:
        """Weights, moments and schedule in a trainer that was prepared."""
        assert self.found is not None
        about, tensors = self.found
        load_state(_trained(made), made.optimizer, tensors, about["trainer"]["global_step"])
        made.lr_scheduler.load_state_dict(about["schedule"])
        for group, rate in zip(made.optimizer.param_groups, made.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
            if group.get("fused"):  # which counts where the weights are
                for p in group["params"]:
                    if kept := made.optimizer.state.get(p):
                        kept["step"] = kept["step"].to(p.device)

    def put_generators(self) -> None:
        assert self.found is not None
        tensors = self.found[1]
        torch.set_rng_state(tensors[CPU])
        for device in range(torch.cuda.device_count()):
            if (state := tensors.get(f"{CUDA}/{device}")) is not None:
                torch.cuda.set_rng_state(state, device)

    @contextmanager
    def opened(self) -> Iterator[str | None]:
        """The folder that transformers resumes from, with the trainer's state in it; None where there is no state."""
        from transformers.trainer import TRAINER_STATE_NAME

        if self.found is None:
            yield None
            return
        with TemporaryDirectory() as folder:
            (Path(folder) / TRAINER_STATE_NAME).write_text(json.dumps(self.found[0]["trainer"]), encoding="utf-8")
            yield folder

    def remove(self) -> None:
        """Of a training that is finished."""
        self.file.unlink(missing_ok=True)


def _trained(made: Any) -> dict[str, nn.Parameter]:
    return {name: p for name, p in made.model.named_parameters() if p.requires_grad}


def _generators() -> dict[str, Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {CPU: torch.get_rng_state(), **{f"{CUDA}/{device}": state for device, state in enumerate(cuda)}}
