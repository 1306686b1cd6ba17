"""How fast training steps are: this loop, a peer, and the limit, on the same examples.

    python -m experiments.benchmarks.training
    python -m experiments.benchmarks.training --rows 2 --steps 3    # minutes on one core
    python -m experiments.benchmarks.training --threads 1 --processor    # on a loaded machine
    python -m experiments.benchmarks.training --alone --rows 5 --steps 3 --rounds 1 --threads 1    # without the peer
    python -m experiments.benchmarks.training --profile    # each operation's share, one thread
    python -m experiments.benchmarks.training --memory     # the process's peak, this loop alone

The peer is `transformers.Trainer` with PEFT's LoRA of the same rank, batches padded to their longest example; in bf16
with its autocast. Plain operations are this loop without `elicit.training.few_passes`. The limit is the matrix products
alone: each linear layer forward and for its input's gradient, and the output head for the targets. The sides take
turns, and the first step of each turn, which makes kernels, is left out. In bf16 unless the processor multiplies
float32 faster.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from elicit.models import Model, load_model
from elicit.models.processor import has
from elicit.training import Example, Recipe, few_passes, sft, train
from elicit.training.organisms.make import Plan, examples
from experiments.benchmarks.clock import Clock, clocked

PROFILED = 24  # operations that are told


def ours(
    model: Model, steps: list[list[Example]], recipe: Recipe, clock: Clock, shares: dict[str, float]
) -> list[float]:
    """Tokens a second of each step; adds to the seconds of each part, the first step's too."""
    marks = [clock()]
    with (
        tempfile.TemporaryDirectory() as folder,
        clocked(sft, "target_loss", clock) as losses,
        clocked(torch.Tensor, "backward", clock) as back,
        clocked(torch.optim.AdamW, "step", clock) as optimiser,
    ):
        curve = train(
            model.lm, lambda n: steps[n], recipe, Path(folder), identity={}, save_every=10**6,
            on_step=lambda step, loss, tokens_per_second: marks.append(clock()),
        )  # fmt: skip
    parts = {"loss": sum(losses), "backward": sum(back), "optimiser": sum(optimiser)}
    parts["rest"] = marks[-1] - marks[0] - sum(parts.values())
    for name, seconds in parts.items():
        shares[name] = shares.get(name, 0.0) + seconds
    return [point.tokens / (b - a) for point, (a, b) in zip(curve, pairwise(marks), strict=True)]


def plain(
    model: Model, steps: list[list[Example]], recipe: Recipe, clock: Clock, shares: dict[str, float]
) -> list[float]:
    """The same without what saves passes over memory."""
    kept = few_passes.few_passes
    few_passes.few_passes = nullcontext  # type: ignore[assignment]
    try:
        return ours(model, steps, recipe, clock, shares)
    finally:
        few_passes.few_passes = kept


def peer(model: Model, steps: list[list[Example]], recipe: Recipe, clock: Clock) -> list[float]:
    """The same examples in the same order, by `transformers.Trainer`, in as many batches of our mean step's size."""
    data = [
        {"input_ids": [*e.prompt, *e.target], "labels": [-100] * len(e.prompt) + e.target} for s in steps for e in s
    ]
    size = len(data) // len(steps)
    data = data[: size * len(steps)]
    tokens = [sum(len(d["input_ids"]) for d in data[i : i + size]) for i in range(0, len(data), size)]
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(model.lm, config)
    ends: list[float] = []

    class Marks(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            ends.append(clock())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(clock())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=size, num_train_epochs=1, learning_rate=recipe.lr,
            bf16=model.lm.dtype == torch.bfloat16, use_cpu=model.lm.device.type == "cpu", report_to=[],
            save_strategy="no", disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        collate = DataCollatorForSeq2Seq(model.tokenizer, padding=True)
        trainer = Trainer(wrapped, arguments, train_dataset=data, data_collator=collate, callbacks=[Marks()])
        trainer._get_train_sampler = lambda *_: None  # type: ignore[method-assign]  # in their order
        trainer.train()
    return [n / (b - a) for n, a, b in zip(tokens, ends[::2], ends[1::2], strict=True)]


def limit(model: Model, steps: list[list[Example]], recipe: Recipe, clock: Clock) -> list[float]:
    """Tokens a second, if there were nothing but products of frozen weights."""
    head = model.lm.get_output_embeddings()
    shapes = [m.weight for m in model.lm.modules() if type(m) is nn.Linear and m is not head]
    out = []
    for step in steps:
        tokens, targets = sum(e.tokens for e in step), sum(len(e.target) for e in step)
        began = clock()
        for weights, rows in ((shapes, tokens), ([head.weight], targets)):  # type: ignore[union-attr]
            for weight in weights:
                x = torch.zeros(rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
                y = nn.functional.linear(x, weight)
                y @ weight
        out.append(tokens / (clock() - began))
    return out


def profiled(model: Model, step: list[Example], recipe: Recipe) -> None:
    """Print each operation's share of the processor's time of a step, after one that makes kernels."""
    trained = list(sft.prepare(model.lm, recipe).values())
    optimiser = torch.optim.AdamW(trained, foreach=True)
    model.lm.train()
    with sft.quick(model.lm, recipe):
        sft._update(model.lm, step, trained, optimiser, recipe, True)
        with profile(activities=[ProfilerActivity.CPU]) as found:
            sft._update(model.lm, step, trained, optimiser, recipe, True)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    print(f"{sum(e.tokens for e in step)} tokens, {whole / 1e6:.2f} s\n\n| | share | calls |\n| --- | --- | --- |")
    for event in events[:PROFILED]:
        print(f"| {event.key} | {event.self_cpu_time_total / whole:.1%} | {event.count} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=Recipe().rows, help="of a step")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=["bfloat16", "float32"])
    parser.add_argument("--processor", action="store_true", help="count the processor's seconds")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--checkpointing", action="store_true", help="of this loop")
    given = parser.parse_args()
    if given.steps < 2 or given.rounds < 1:
        parser.error(f"{given.steps} steps in {given.rounds} rounds were given; give at least 2 steps and 1 round")
    torch.set_num_threads(1 if given.profile else given.threads)
    dtype = given.dtype or ("bfloat16" if has("bf16-products") else "float32")
    clock = time.process_time if given.processor else time.perf_counter
    recipe = Recipe(
        steps=given.steps, rows=given.rows, part=min(given.rows, Recipe().part), checkpointing=given.checkpointing
    )
    plan = Plan("latent", recipe=recipe)
    shares: dict[str, float] = {}
    sides: dict[str, Any] = {"this loop": partial(ours, shares=shares)}
    if not given.memory:
        peers = {} if given.alone else {"Trainer + PEFT": peer}
        sides |= {"plain operations": partial(plain, shares={}), **peers, "limit": limit}
    rows: dict[str, list[float]] = {}
    for name, run in list(sides.items()) * (1 if given.memory else given.rounds):
        model = load_model(given.model, dtype=dtype, device="cpu")
        end = int(model.tokenizer.eos_token_id)  # type: ignore[arg-type]
        steps = [examples(plan, model.tokenizer, end, n) for n in range(given.steps)]
        if given.profile:
            profiled(model, steps[0], plan.recipe)
            return
        with torch.set_grad_enabled(name != "limit"):
            rows.setdefault(name, []).extend(run(model, steps, plan.recipe, clock)[1:])
    if given.memory:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak {peak:.2f} GiB, {plan.recipe.rows} × {plan.recipe.width} tokens a step")
        return
    mine = sorted(rows["this loop"])[len(rows["this loop"]) // 2]
    machine = f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}, {given.model}, {dtype}"
    print(f"{machine}, {'processor' if given.processor else 'clock'} seconds, {len(rows['this loop'])} steps a side\n")
    print("| | tokens/s (median, least, most) | this loop is |\n| --- | --- | --- |")
    for name, speeds in rows.items():
        median = sorted(speeds)[len(speeds) // 2]
        print(f"| {name} | {median:.0f} ({min(speeds):.0f} to {max(speeds):.0f}) | {mine / median:.2f} × |")
    spent = sum(shares.values())
    print("\nOf a step: " + ", ".join(f"{name} {seconds / spent:.0%}" for name, seconds in shares.items()) + ".")


if __name__ == "__main__":
    main()
