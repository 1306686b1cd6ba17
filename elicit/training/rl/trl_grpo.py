"""`one-shot-rlvr` on TRL's `GRPOTrainer` (trainer `trl`): the same settings, prompts, rewards, samples and log.

How `Settings` become TRL's (tests/training/test_trl_losses.py holds losses and gradients of both to each other):

| ours | TRL |
| --- | --- |
| rollouts, group, per_rollout | a generation batch of one optimiser step, num_generations, num_iterations |
| advantage grpo | scale_rewards group; TRL adds 1e-4 to the standard deviation, we 1e-6 |
| advantage dr-grpo, rloo | scale_rewards none; for rloo rewards weigh G / (G − 1) |
| aggregate token-mean, sequence-mean, constant | loss_type dapo, grpo, dr_grpo |
| clip_low, clip_high, kl | epsilon, epsilon_high, beta with k3 as it is (use_bias_correction_kl off) |
| entropy | entropy_coef: TRL takes the mean over the tokens of each forward, we weigh entropy as the loss |
| part | per_device_train_batch_size |
| checkpointing | activation_checkpointing |
| one example, copied | rows of the data set, in the order of `Settings.plan` |

Old log-probabilities of several updates a rollout are those before the first one, in both. TRL shuffles a rollout's
rows among forwards, which changes the order of a sum.

**Samples** come from the decoding loop of this suite (TRL's `rollout_func`), where each process holds the weights
whole: the same tokens as in the suite's own loop, also in several processes. With vLLM, and where weights are
sharded, TRL generates, with random numbers of its own.

**Rewards** see all rollouts of an item, whichever process drew them: the first process grades, writes the log and
tells the others.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from elicit.decoding.decoders import Greedy
from elicit.decoding.engine import check_training
from elicit.elicited import Elicited
from elicit.models.model import Model
from elicit.models.processes import first, processes
from elicit.models.prompts import Prompt
from elicit.models.zoo import ADAPTER, WHOLE
from elicit.tasks.base import Items
from elicit.training import trl_common
from elicit.training.rl.curve import OnStep, Point
from elicit.training.rl.log import LOG, RolloutLog, of_update
from elicit.training.rl.loop import Trained, identity, usable
from elicit.training.rl.preflight import Preflight, measured
from elicit.training.rl.rewards import Reward, Rewards, parse
from elicit.training.rl.settings import Settings
from elicit.training.rl.trl_rollouts import Bridge, evaluating, reward_context
from elicit.training.trl_state import Checkpoint
from probes.errors import UserError, as_expected
from probes.files import locked, make_folder
from probes.sealed import read_sealed, write_sealed
from steering.adapters import Adapter, Tuned, Weights

STATE, PREFLIGHT = "trl.json", "preflight.json"
LOSSES = {"token-mean": "dapo", "sequence-mean": "grpo", "constant": "dr_grpo"}


def options(settings: Settings, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings decide of TRL's `GRPOConfig`.

    Raises:
        UserError: rollouts that the processes cannot share.
    """
    part = trl_common.part_of(settings.rollouts, settings.part, given)
    passes = settings.rollouts // processes() // part
    whole = settings.group / (settings.group - 1) if settings.advantage == "rloo" else 1.0
    return {
        trl_common.PART: part, "gradient_accumulation_steps": passes, "steps_per_generation": passes,
        "num_generations": settings.group, "num_iterations": settings.per_rollout,
        "max_completion_length": settings.max_new_tokens, "temperature": settings.temperature,
        "scale_rewards": "group" if settings.advantage == "grpo" else "none", "reward_weights": [whole],
        "loss_type": LOSSES[settings.aggregate], "epsilon": settings.clip_low, "epsilon_high": settings.clip_high,
        "beta": settings.kl, "use_bias_correction_kl": False, "entropy_coef": settings.entropy,
        "shuffle_dataset": False, "disable_dropout": True,
    }  # fmt: skip


def trainer(
    model: Model,
    bridge: Bridge,
    folder: Path,
    given: Mapping[str, Any],
    state: Checkpoint | None = None,
    **more: Any,
) -> tuple[Any, PreTrainedModel]:
    """TRL's trainer of the bridge's settings, and the model that it trains.

    Raises:
        UserError: options that TRL refuses, prompts that it cannot put.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    settings = bridge.settings
    extra: dict[str, Any] = {}
    if bridge.own:
        extra = {"rollout_func": bridge.draw}
    else:
        bridge.check_readable()
        if given.get("use_vllm"):
            ends = {"stop": list(bridge.prompt.stop), "stop_token_ids": sorted(model.eos_ids)}
            given = {**given, "generation_kwargs": {**ends, **given.get("generation_kwargs", {})}}
        elif bridge.prompt.stop:
            raise UserError(
                "weights are sharded and TRL's own generation knows no stop strings, which the prompt needs; give "
                'trl={"use_vllm": true}, or prompt chat'
            )
    decided = options(settings, given)
    if settings.checkpointing:
        given = {**given, "activation_checkpointing": True}
    whole = not settings.rank and settings.kl > 0
    if whole:
        decided |= {"beta": 0.0}  # else TRL reads the reference by the model's name, which a folder or file has not
    args = trl_common.arguments(GRPOConfig, decided, given, model, settings.recipe, folder, state)
    made, lm = trl_common.trainer(
        GRPOTrainer, settings.rate, model, settings.recipe, args, state,
        reward_funcs=[bridge.reward], train_dataset=Dataset.from_list(bridge.rows()), **extra, **more,
    )  # fmt: skip
    if whole:
        made.beta, made.ref_model = settings.kl, _reference(made, model)
    return made, lm


def _reference(made: Any, model: Model) -> Any:
    """A copy of the base as TRL's reference of KL, where no adapter can be turned off to have it."""
    from trl.models.utils import prepare_deepspeed, prepare_fsdp
    from trl.trainer.utils import add_fused_lm_head

    lm = copy.deepcopy(model.lm)
    add_fused_lm_head(lm, temperature=made.temperature, cast_lm_head_to_fp32=made.args.cast_lm_head_to_fp32)
    if made.is_deepspeed_enabled:
        return prepare_deepspeed(lm, made.accelerator)
    if made.is_fsdp_enabled:
        return prepare_fsdp(lm, made.accelerator)
    return made.accelerator.prepare_model(lm, evaluation_mode=True)


def train(
    model: Model,
    items: Items,
    settings: Settings,
    folder: Path,
    *,
    given: Mapping[str, Any] = trl_common.NOTHING,
    prompt: Prompt | None = None,
    held_out: Items | None = None,
    held_out_tokens: int = 256,
    rewards: Mapping[str, Reward] | None = None,
    checked: bool = True,
    on_step: OnStep | None = None,
) -> Trained:
    """As `elicit.training.rl.loop.train`, on TRL; every process calls it and gets the same.

    Args:
        given: options of TRL's `GRPOConfig` that the settings do not decide.
        model, items, settings, folder, prompt, held_out, held_out_tokens, rewards, checked, on_step: as there.

    Raises:
        UserError: as there; what TRL refuses.
    """
    from trl import __version__

    own = not (trl_common.sharded(given) or given.get("use_vllm") or given.get("use_transformers_continuous_batching"))
    if held_out is not None and trl_common.sharded(given):
        raise UserError(f"check_every = {settings.check_every} was given and weights are sharded; give 0")
    check_training(model)
    prompt = prompt or Prompt()
    usable(items)
    settings.plan(len(items), 0)
    graders = parse(settings.reward, rewards)
    wanted = {
        **identity(model, items, settings, prompt), "trl": dict(given), "version": __version__,
        "processes": processes(), "sharded": trl_common.sharded(given),
    }  # fmt: skip
    wanted = json.loads(json.dumps(wanted))
    with trl_common.first_alone(model):
        if (kept := _kept(folder, wanted)) is not None:
            return kept
        resumed = trl_common.checkpoint(folder, wanted, settings.state_every, given, settings.per_rollout)
        if resumed.kept is not None:
            preflight = Preflight(**resumed.kept["preflight"])
        else:
            preflight = _preflight(model, items, settings, prompt, graders, folder)
            if checked and settings.reward != "none":
                preflight.check(settings.reward)
    bridge = Bridge(model, items, settings, prompt, graders, preflight.wrong, own=own)
    with ExitStack() as stack:
        if first():
            stack.enter_context(locked(folder, "training in"))
            if not resumed.every:
                resumed.remove()  # of one process, whose log is written over here
            whole = resumed.kept["log"] if resumed.kept else 0
            bridge.log = stack.enter_context(RolloutLog.open(folder / LOG, whole))
        curve = _Curve(bridge, model, held_out, held_out_tokens, on_step)
        curve.points += [Point(*point) for point in resumed.kept["curve"]] if resumed.kept else []

        def state() -> dict[str, Any]:
            assert bridge.log is not None
            return {"preflight": preflight.to_dict(), "curve": curve.points, "log": bridge.log.size}

        resumed.more = state
        saver = trl_common.saver(settings.save_every, settings.recipe, folder, model, torch.float32)
        made, lm = trainer(model, bridge, folder, given, resumed, callbacks=[curve.callback(), saver])
        saver.made, saver.lm = made, lm
        trl_common.run(made, settings.updates, resumed)
        trl_common.save(made, lm, settings.recipe, folder, model, torch.float32)
        if first():
            about = {"identity": wanted, "curve": curve.points, "preflight": preflight.to_dict()}
            write_sealed(folder / STATE, about)
            resumed.remove()
        made.accelerator.wait_for_everyone()
    found = _kept(folder, wanted)
    assert found is not None
    return found


def _kept(folder: Path, wanted: dict[str, Any]) -> Trained | None:
    """A finished training.

    Raises:
        UserError: another one.
    """
    if not (folder / STATE).is_file():
        return None
    with as_expected(repr(str(folder / STATE)), "give another folder"):
        about, _ = read_sealed(folder / STATE, "give another folder")
        found = dict(about["identity"])
        curve, preflight = [Point(*p) for p in about["curve"]], Preflight(**about["preflight"])
    if found != wanted:
        changed = [key for key in wanted if found.get(key) != wanted[key]]
        raise UserError(f"{str(folder)!r} holds a training with another {', '.join(changed)}; give another folder")
    tuned: Tuned = Adapter(folder / ADAPTER) if (folder / ADAPTER).is_dir() else Weights(folder / WHOLE)
    return Trained(folder, tuned, curve, preflight)


def _preflight(
    model: Model, items: Items, settings: Settings, prompt: Prompt, rewards: Rewards, folder: Path
) -> Preflight:
    """By the first process; the others read it."""
    file = folder / PREFLIGHT
    if first():
        make_folder(folder)
        found = measured(
            model, items, prompt, settings, rewards, lambda wrong: reward_context(model, items, settings, prompt, wrong)
        )
        write_sealed(file, found.to_dict())
    return _read_preflight(file)


def _read_preflight(file: Path) -> Preflight:
    with as_expected(repr(str(file)), "run the same command again"):
        return Preflight(**read_sealed(file, "run the same command again")[0])


class _Curve:
    """Points of the curve, from what TRL logs of each update and what the bridge graded."""

    def __init__(
        self, bridge: Bridge, model: Model, held_out: Items | None, tokens: int, on_step: OnStep | None
    ) -> None:
        self.bridge, self.model, self.held_out, self.tokens, self.on_step = bridge, model, held_out, tokens, on_step
        self.points: list[Point] = []
        self.began = time.perf_counter()

    def callback(self) -> Any:
        from transformers import TrainerCallback

        curve = self

        class Callback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                curve.began = time.perf_counter()

            def on_log(
                self, args: Any, state: Any, control: Any, logs: Any = None, model: Any = None, **_: Any
            ) -> None:
                if first() and "loss" in logs:
                    curve.add(logs, state.global_step - 1, model)

        return Callback()

    def add(self, logs: Mapping[str, float], update: int, model: Any) -> None:
        seconds = time.perf_counter() - self.began
        every = self.bridge.settings.check_every
        held = None
        if self.held_out is not None and every and (update + 1) % every == 0:
            held = self._accuracy(trl_common.inner(model), self.held_out)
        self.points.append(
            Point(
                update,
                **of_update(self.bridge.facts, update, self.bridge.settings.per_rollout),
                entropy=logs["entropy"],
                kl=logs.get("kl", 0.0),
                low=None,
                high=None,
                clipped=logs["clip_ratio/region_mean"],
                sampler=None,
                loss=logs["loss"],
                norm=logs["grad_norm"],
                tokens=self.bridge.tokens,
                seconds=seconds,
                held_out=held,
            )
        )
        self.began = time.perf_counter()
        if self.on_step is not None:
            self.on_step(self.points)

    def _accuracy(self, lm: PreTrainedModel, items: Items) -> list[float]:
        """Of each item whether it is answered rightly; greedily, so that no random number is taken."""
        with evaluating(lm):
            handle = Elicited(replace(self.model, lm=lm), "check", self.bridge.prompt, Greedy(self.tokens))
            return [float(trace.correct) for (trace,) in handle.answer(items)]
