"""How fast an update of reinforcement learning is: this loop and TRL's `GRPOTrainer`, on the same work, in one run.

    python -m experiments.benchmarks.rl                            # about five minutes on two cores
    python -m experiments.benchmarks.rl --updates 4                # the figures of README.md; twice as long
    python -m experiments.benchmarks.rl --rollouts 8 --tokens 8    # whether it runs: a minute or two on one core
    python -m experiments.benchmarks.rl --memory                   # the process's peak, this loop alone

An update is 32 rollouts of one prompt, 48 tokens each (no end token is let through, so that both compute as many),
their rewards, log-probabilities of the base for KL, loss, gradient and step of a LoRA adapter, in bf16.

- TRL trains through `elicit.training.rl.trl_grpo`, with its own generation, without gradient checkpointing, in each of
  the ways that a CPU may like: all rollouts in one forward or eight at a time, fused attention or plain products. The
  fastest of them counts.
- sampling is `decode` here and `generate` there; loss is all the rest of the update.
- decoding: the same samples by the decoding loop, of the base without an adapter.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import elicit
from elicit.decoding import Sampling, StopRule, decode
from elicit.models import Model, Prompt, load_model
from elicit.tasks.base import Items
from elicit.training.rl import loop, trl_grpo
from elicit.training.rl.rewards import parse
from elicit.training.rl.settings import Settings
from elicit.training.rl.trl_rollouts import Bridge
from elicit.training.trl_common import run
from experiments.benchmarks.clock import clocked

GROUP = 8
ENDLESS = Prompt("template", template="{question}\n")  # without stop strings
Times = list[tuple[float, float]]  # of each update: sampling, all of it


class Endless(Model):
    """A model without an end token."""

    @property
    def eos_ids(self) -> frozenset[int]:
        return frozenset()


def example() -> Items:
    return elicit.load_task("gsm-symbolic", limit=4).fit[:1]


def settings(updates: int, rollouts: int, tokens: int) -> Settings:
    return Settings(
        updates=updates, rollouts=rollouts, group=GROUP, part=GROUP, max_new_tokens=tokens, reward="random:0.5",
        preflight=8,
    )  # fmt: skip


def ours(model: Model, how: Settings) -> Times:
    """Updates of the loop."""
    with tempfile.TemporaryDirectory() as folder, clocked(loop, "sample") as sampling:
        made = loop.train(model, example(), how, Path(folder), prompt=ENDLESS)
    assert all(point.tokens == how.rollouts * how.max_new_tokens for point in made.curve)
    return [(s, point.seconds) for s, point in zip(sampling, made.curve, strict=True)]


def peer(model: Model, how: Settings, part: int, attention: str) -> Times:
    """The same by TRL, from one update's beginning to its end."""
    from transformers import TrainerCallback

    begins: list[float] = []
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            begins.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    bridge = Bridge(model, example(), how, ENDLESS, parse(how.reward), {}, own=False)
    before = model.lm.config._attn_implementation
    model.lm.set_attn_implementation(attention)
    try:
        with tempfile.TemporaryDirectory() as folder:
            given = {"per_device_train_batch_size": part, "generation_kwargs": {"min_new_tokens": how.max_new_tokens}}
            made, _ = trl_grpo.trainer(model, bridge, Path(folder), given, callbacks=[Clock()])
            with clocked(made, "_generate_single_turn") as sampling:
                run(made, how.updates)
    finally:
        model.lm.set_attn_implementation(before)
    assert bridge.tokens == how.rollouts * how.max_new_tokens
    return [(s, b - a) for s, a, b in zip(sampling, begins, ends, strict=True)]


def decoding(model: Model, how: Settings) -> list[float]:
    """Seconds of the same samples without an adapter."""
    prompt = ENDLESS.ids(example()[0].question, model.tokenizer)
    out = []
    for n in range(how.updates):
        decoder = Sampling(how.rollouts, 1.0, max_new_tokens=how.max_new_tokens, first_sample=n * how.rollouts)
        began = time.perf_counter()
        decode(
            model.lm, [prompt], decoder.policy(["x"], model.vocab_size), max_new_tokens=how.max_new_tokens,
            stop=StopRule(frozenset()),
        )  # fmt: skip
        out.append(time.perf_counter() - began)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--updates", type=int, default=2, help="the first of each side makes kernels and is left out")
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    if given.updates < 2 or given.rollouts < GROUP or given.rollouts % GROUP:
        parser.error(
            f"{given.updates} updates of {given.rollouts} rollouts were given; give at least 2 updates, and rollouts "
            f"that are a multiple of {GROUP}"
        )
    how = settings(given.updates, given.rollouts, given.tokens)
    torch.set_num_threads(given.threads)
    loaded = load_model(given.model, dtype="bfloat16", device="cpu")
    model = Endless(loaded.name, loaded.lm, loaded.tokenizer, loaded.provenance)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    mine = ours(model, how)[1:]  # kernels are made in the first
    if given.memory:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        size = f"{how.rollouts} rollouts of {how.max_new_tokens} tokens"
        print(f"peak {peak:.2f} GiB, of it {before:.2f} before training; {size}, LoRA")
        return
    rows: dict[str, Times] = {"this loop": mine}
    for part in dict.fromkeys((how.rollouts, GROUP)):
        for attention in ("sdpa", "eager"):
            rows[f"TRL, {part} a forward, {attention}"] = peer(model, how, part, attention)[1:]
    again = ours(model, how)[1:]
    alone = statistics.median(decoding(model, how)[1:])
    rows["this loop"] = [*mine, *again]

    def middle(times: Times, of: int) -> float:
        return statistics.median(t[of] for t in times)

    best = min((name for name in rows if name != "this loop"), key=lambda name: middle(rows[name], 1))
    print(f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}, {given.model}\n")
    print("| | update s (least to most) | sampling s | loss s | this loop is |\n| --- | --- | --- | --- | --- |")
    for name, times in rows.items():
        whole = [total for _, total in times]
        rest = statistics.median(total - sampling for sampling, total in times)
        print(
            f"| {name} | {middle(times, 1):.1f} ({min(whole):.1f} to {max(whole):.1f}) | {middle(times, 0):.1f} | "
            f"{rest:.1f} | {middle(times, 1) / middle(rows['this loop'], 1):.2f} × |"
        )
    sampled, tokens = middle(rows["this loop"], 0), how.rollouts * how.max_new_tokens
    print(
        f"\nTRL at its best ({best}): {middle(rows[best], 1) / middle(rows['this loop'], 1):.2f} × our update. "
        f"Sampling {tokens / sampled:.0f} tokens/s with an adapter, {tokens / alone:.0f} without "
        f"({alone / sampled:.0%})."
    )


if __name__ == "__main__":
    main()
