"""Trainings on TRL that were stopped go on where they were, and end at the same weights, to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from elicit.models import Model
from elicit.training import trl_common, trl_sft
from elicit.training.recipe import Example, Point, Recipe
from elicit.training.rl import trl_grpo
from elicit.training.rl.log import read_log
from elicit.training.rl.loop import Trained
from elicit.training.rl.settings import Settings
from elicit.training.sft import batches
from elicit.training.trl_state import STATE, Checkpoint
from probes.errors import UserError
from tests.support.toys import toy_task, vowels

pytest.importorskip("trl", reason=f"TRL is not installed; {trl_common.INSTALL}")

TASK = toy_task()
EXAMPLES = [Example([5 + n, 6, 7], [8 + n, 9]) for n in range(6)]
SETTINGS = Settings(
    updates=4, per_rollout=2, rollouts=4, group=2, part=2, reward="vowels", max_new_tokens=4, lr=2e-2, rank=2,
    preflight=4, seed=3, kl=0.05, advantage="dr-grpo",
)  # fmt: skip


class Stopped(Exception):
    """As a power cut."""


def weights(folder: Path) -> dict[str, str]:
    files = (*folder.glob("adapter/*.safetensors"), *folder.glob("model/*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def reinforced(model: Model, folder: Path, settings: Settings = SETTINGS, **more: Any) -> Trained:
    return trl_grpo.train(model, TASK.fit[:2], settings, folder, rewards={"vowels": vowels}, **more)


def test_reinforcement_learning_goes_on(tiny: Model, tmp_path: Path) -> None:
    """Stopped within a rollout's updates, it goes on from the rollout's beginning."""

    def stop(curve: Any) -> None:
        if len(curve) == 3:
            raise Stopped

    told: list[int] = []
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    undisturbed = reinforced(tiny, whole)
    with pytest.raises(Stopped):
        reinforced(tiny, stopped, on_step=stop)
    assert len(list(read_log(stopped))) == 8 and not weights(stopped)
    with pytest.raises(UserError, match="holds a training with another lr; give another folder"):
        reinforced(tiny, stopped, dataclasses.replace(SETTINGS, lr=1e-2))
    resumed = reinforced(tiny, stopped, on_step=lambda curve: told.append(len(curve)))
    assert told == [3, 4] and weights(stopped) == weights(whole) != {}
    assert [p._replace(seconds=0) for p in resumed.curve] == [p._replace(seconds=0) for p in undisturbed.curve]
    assert list(read_log(stopped)) == list(read_log(whole)) and resumed.preflight == undisturbed.preflight
    assert not (stopped / STATE).exists()


@pytest.mark.parametrize("rank", [2, 0])
def test_training_on_targets_goes_on(tiny: Model, tmp_path: Path, rank: int) -> None:
    recipe = Recipe(steps=4, rows=2, width=16, part=2, lr=1e-2, warmup=2, rank=rank, weight_decay=0.1)

    def trained(folder: Path, **more: Any) -> list[Point]:
        batch = batches(EXAMPLES, recipe.rows, recipe.width, recipe.seed)
        return trl_sft.train(tiny, batch, recipe, folder, identity={"data": "six"}, state_every=2, **more)

    def stop(step: int, loss: float, tokens_per_second: float) -> None:
        if step == 2:
            raise Stopped

    told: list[int] = []
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    undisturbed = trained(whole)
    with pytest.raises(Stopped):
        trained(stopped, on_step=stop)
    resumed = trained(stopped, on_step=lambda step, *_: told.append(step))
    assert told == [2, 3] and weights(stopped) == weights(whole) != {}
    assert [p._replace(seconds=0) for p in resumed] == [p._replace(seconds=0) for p in undisturbed]


def test_where_no_state_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(given: dict[str, Any]) -> Checkpoint:
        return trl_common.checkpoint(tmp_path, {"recipe": {}}, 3, given, 2)

    assert made({}).arguments == {"save_strategy": "steps", "save_steps": 4}
    for given in ({"optim": "sgd"}, {"sync_ref_model": True}, {"fsdp": "full_shard"}):
        assert made(given).arguments == {"save_strategy": "no"} and made(given).kept is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert made({}).arguments == {"save_strategy": "no"}
