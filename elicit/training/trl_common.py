"""The same trainings on TRL, and so under `accelerate`: several processes, FSDP, DeepSpeed, generation by vLLM.

`trainer="trl"` is an option of the methods that train. In one process they are called as ever; of several, which
`accelerate launch` starts, each runs the same program: the first does what is not training (samples the base,
chooses, grades, writes), the others read what it wrote, and all train.

    accelerate launch --multi_gpu --num_processes 8 -m elicit run --method one-shot-rlvr --trainer trl

(on CPUs the same with `--device cpu`: with `--cpu` accelerate starts one process, whatever is asked for).

What a method's own options decide is translated, and refused among TRL's options, so that a setting has one name.
All else is TRL's: `--set 'trl={"use_vllm": true, "activation_checkpointing": true}'`, in a file `[options.trl]`.

The base is copied, and the copy is trained: TRL exchanges a model's forward and its configuration, and sharding takes
its weights apart. Where all weights are trained (rank 0) the copy is in fp32 and is multiplied in bf16. Its dropout
is 0, as in the suite's own loop; what is saved has the base's in its configuration.

A stopped training of one process goes on from a state of this suite (`elicit.training.trl_state`), others begin anew;
a finished training is read.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from elicit.models.model import Model
from elicit.models.processes import PATIENCE, check_launch, processes
from elicit.training.lora import lora_config
from elicit.training.recipe import Recipe
from elicit.training.saved import due, save_trained, step_folder
from elicit.training.sft import train_all
from elicit.training.trl_state import MORE, Checkpoint
from probes.errors import UserError, unknown

TRAINERS = {"own": "the loop of this suite, one process", "trl": "TRL under accelerate, any number of processes"}
NOTHING: dict[str, Any] = {}
INSTALL = "pip install 'elicit[train]'"
PART = "per_device_train_batch_size"
# Of any training: what is decided here, or cannot be kept to.
FIXED = (
    "output_dir", "max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_steps", "warmup_ratio", "max_grad_norm", "weight_decay", "seed", "data_seed", "gradient_accumulation_steps",
    "resume_from_checkpoint", "save_strategy", "save_steps", "eval_strategy", "do_eval", "logging_steps",
    "logging_strategy",
)  # fmt: skip


def check(trainer: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown trainer, options of TRL without TRL, and TRL where it is not installed.

    Raises:
        UserError: one of these.
    """
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    if trainer == "own":
        if options:
            raise UserError(f"trl = {dict(options)} was given and trainer is own; give trainer=trl")
        if processes() > 1:
            raise UserError(
                f"{processes()} processes were launched and trainer is own, which trains in one; give trainer=trl"
            )
        return
    check_launch()
    try:
        import trl  # noqa: F401
    except ImportError as error:
        raise UserError(f"trainer trl was given and TRL is not installed ({error}); {INSTALL}") from error


@contextmanager
def first_alone(model: Model) -> Iterator[None]:
    """The first process goes through the block before the others, who then find what it wrote."""
    if processes() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState(cpu=on_cpu(model), timeout=PATIENCE).main_process_first():
        yield


def on_cpu(model: Model) -> bool:
    return model.lm.device.type == "cpu"


def sharded(options: Mapping[str, Any]) -> bool:
    """Whether no process holds the weights whole."""
    launched = any(os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true" for kind in ("FSDP", "DEEPSPEED"))
    return launched or bool(options.get("fsdp") or options.get("deepspeed"))


def checkpoint(
    folder: Path, wanted: dict[str, Any], every: int, options: Mapping[str, Any], size: int = 1
) -> Checkpoint:
    """What a training resumes from; of several processes, sharded weights and options that need more kept, nothing.

    Args:
        folder, wanted, every, size: as `Checkpoint` takes them.
        options: TRL's own.
    """
    whole = processes() == 1 and not sharded(options) and not set(MORE) & set(options)
    return Checkpoint(folder, wanted, every if whole else 0, size)


def part_of(rows: int, part: int, options: Mapping[str, Any]) -> int:
    """Rows of one forward in one process, of `rows` that all processes share.

    Raises:
        UserError: rows that cannot be shared out evenly.
    """
    each, left = divmod(rows, processes())
    chosen = options.get(PART, min(part, each))
    if left or not each or not isinstance(chosen, int) or chosen < 1 or each % chosen:
        raise UserError(
            f"{rows} rows a step are shared by {processes()} processes, {chosen} a forward; give numbers that divide"
        )
    return chosen


def arguments(
    kind: type,
    decided: Mapping[str, Any],
    options: Mapping[str, Any],
    model: Model,
    recipe: Recipe,
    folder: Path,
    state: Checkpoint | None = None,
) -> Any:
    """TRL's configuration: fixed by the method, set by the user, our defaults.

    Args:
        kind: `GRPOConfig` or `SFTConfig`.
        decided: by the method's own options.
        options: TRL's own.
        model, recipe, folder: what is trained, how and where.
        state: what is resumed from, if anything.

    Raises:
        UserError: an option that TRL lacks or that is decided, a value that it refuses.
    """
    for key in options:
        if key == PART:  # what is decided took it up
            continue
        if key in decided or key in FIXED:
            raise UserError(f"trl option {key!r} was given and is decided here; set it by the method's own options")
        if key not in {field.name for field in fields(kind)}:
            raise unknown(f"option of TRL's {kind.__name__}", key, [field.name for field in fields(kind)])
    checkpointed = options.get("gradient_checkpointing", False)  # the older of two names
    low = model.lm.dtype == torch.bfloat16 or not recipe.rank  # whole weights as the suite's own loop has them
    usual = {
        "bf16": low, "fp16": not low and model.lm.dtype == torch.float16, "use_cpu": on_cpu(model),
        "dataloader_pin_memory": not on_cpu(model), "activation_checkpointing": checkpointed, "report_to": [],
        "disable_tqdm": True, "ddp_timeout": int(PATIENCE.total_seconds()), "ddp_find_unused_parameters": False,
    }  # fmt: skip
    fixed = {
        "output_dir": str(folder), "max_steps": recipe.steps, "learning_rate": recipe.lr, "adam_beta1": 0.9,
        "adam_beta2": 0.99, "weight_decay": recipe.weight_decay, "max_grad_norm": recipe.clip, "seed": recipe.seed,
        "logging_steps": 1, **({"save_strategy": "no"} if state is None else state.arguments),
    }  # fmt: skip
    try:
        return kind(**{**usual, **fixed, **options, **decided})
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"TRL refuses {dict(options)} ({' '.join(str(error).split())}); give other options") from error


def trainer(
    kind: type,
    rate: Callable[[int], float],
    model: Model,
    recipe: Recipe,
    args: Any,
    state: Checkpoint | None = None,
    **more: Any,
) -> tuple[Any, PreTrainedModel]:
    """A trainer of this kind on a copy of the base, and the copy, which has PEFT's layers where there is a rank.

    Args:
        kind: `GRPOTrainer` or `SFTTrainer`.
        rate: the learning rate of a step.
        model, recipe: the base, and the adapter's rank, alpha and seed.
        args, more: for the trainer.
        state: what is resumed from, if anything.
    """

    class Trainer(kind):  # type: ignore[misc]
        """With the schedule and the states of this suite, and without reporting."""

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            optimiser = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler: Any = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: rate(n) / recipe.lr)
            return self.lr_scheduler

        def _save_checkpoint(self, *_: Any) -> None:
            assert state is not None
            state.write(self)

        def _load_from_checkpoint(self, *_: Any) -> None:
            return  # weights are put in their places with the moments

        def _load_optimizer_and_scheduler(self, *_: Any) -> None:
            assert state is not None
            state.put(self)

        def _load_rng_state(self, *_: Any) -> None:
            assert state is not None
            state.put_generators()

        def _send_telemetry(self) -> None:
            return

    lm = without_dropout(copy.deepcopy(model.lm))
    if not recipe.rank:
        lm = lm.float()
        train_all(lm)
    lm.generation_config.eos_token_id = sorted(model.eos_ids)  # type: ignore[union-attr]
    tokenizer = copy.deepcopy(model.tokenizer)
    if tokenizer.pad_token is None and tokenizer.eos_token is None:  # which TRL takes in its place
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # masked, whichever it is
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rollout_func", category=UserWarning)  # that it may change
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        made = Trainer(
            model=lm,
            args=args,
            processing_class=tokenizer,
            peft_config=lora_config(lm, recipe) if recipe.rank else None,
            **more,
        )
    from transformers import PrinterCallback  # not above: it brings the whole of peft, and every command imports this

    made.remove_callback(PrinterCallback)  # standard output is the command's
    return made, lm


def without_dropout(lm: PreTrainedModel) -> PreTrainedModel:
    """The same model with every dropout at 0: of modules, of their numbers and of the configuration, which some read.

    Evaluation mode would not do: trainers leave it at every step, and transformers checkpoints in training mode alone.
    """
    for module in lm.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        vars(module).update(dict.fromkeys(_dropouts(module), 0.0))
    for config in _configs(lm):
        vars(config).update(dict.fromkeys(_dropouts(config), 0.0))
    return lm


@contextmanager
def _dropout_of(lm: PreTrainedModel, base: PreTrainedModel) -> Iterator[None]:
    """The model's configuration with the base's dropout inside the context."""
    kept = [(config, _dropouts(config)) for config in _configs(lm)]
    for config, of_base in zip(_configs(lm), _configs(base), strict=True):
        vars(config).update(_dropouts(of_base))
    try:
        yield
    finally:
        for config, found in kept:
            vars(config).update(found)


def _configs(lm: PreTrainedModel) -> list[PreTrainedConfig]:
    return [lm.config, *(getattr(lm.config, name) for name in lm.config.sub_configs)]


def _dropouts(of: object) -> dict[str, float]:
    return {name: value for name, value in vars(of).items() if "drop" in name and isinstance(value, float)}


def run(made: Any, steps: int, state: Checkpoint | None = None) -> None:
    """Train all steps, or what a state leaves of them.

    Raises:
        UserError: TRL trained fewer. It returns normally where its data set is smaller than one step.
    """
    with warnings.catch_warnings(), nullcontext() if state is None else state.opened() as folder:
        warnings.filterwarnings("ignore", message="`gradient_checkpointing_", category=FutureWarning)  # TRL's own word
        made.train(resume_from_checkpoint=folder)
    if made.state.global_step != steps:
        raise UserError(
            f"TRL trained {made.state.global_step} of {steps} steps, as it does where a data set is smaller than a "
            "step; give more rows, or fewer rollouts a step"
        )


def save(made: Any, lm: PreTrainedModel, recipe: Recipe, folder: Path, model: Model, dtype: torch.dtype) -> None:
    """What was trained as `elicit.training.saved` saves it, gathered from all processes; the first one writes.

    Args:
        made, lm, recipe: as `trainer` gave and took them.
        folder: in which `adapter/` or `model/` is made.
        model: the base.
        dtype: of an adapter.
    """
    state = made.accelerator.get_state_dict(made.model_wrapped)
    if made.accelerator.is_main_process:
        prefix = "base_model.model."
        gathered = {k.removeprefix(prefix): v for k, v in state.items()}
        with _dropout_of(lm, model.lm):
            save_trained(lm, model.tokenizer, recipe, folder, model.name, dtype, gathered)
    made.accelerator.wait_for_everyone()


def inner(trained: Any) -> PreTrainedModel:
    """The causal LM in what a trainer trains: within PEFT's wrapper, or itself."""
    lm: PreTrainedModel = trained.get_base_model() if hasattr(trained, "peft_config") else trained
    return lm


def saver(every: int, recipe: Recipe, folder: Path, model: Model, dtype: torch.dtype) -> Any:
    """A callback that saves what is trained every so many steps; its `made` and `lm` are what `trainer` gave."""
    from transformers import TrainerCallback

    class Saver(TrainerCallback):
        made: Any = None
        lm: Any = None

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if due(state.global_step, every):
                save(self.made, self.lm, recipe, step_folder(folder, state.global_step), model, dtype)

    return Saver()
