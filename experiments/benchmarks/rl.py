"""How fast an update of reinforcement learning is: this loop and TRL's `GRPOTrainer`, on the same work, in one run.

    python -m experiments.benchmarks.rl                            # about five minutes on two cores
    python -m experiments.benchmarks.rl --updates 4                # the figures of README.md; twice as long
    python -m experiments.benchmarks.rl --rollouts 8 --tokens 8    # whether it runs: a minute or two on one core
    python -m experiments.benchmarks.rl --memory                   # the process's peak, this loop alone
    python -m experiments.benchmarks.rl --long --segment 256       # the peak with two answers of 8,192 tokens
    python -m experiments.benchmarks.rl --uneven                   # answers of unequal length

An update is 32 rollouts of one prompt, 48 tokens each (no end token is let through, so that both compute as many),
their rewards, log-probabilities of the base for KL, loss, gradient and step of a LoRA adapter.

- TRL trains through `elicit.training.rl.trl_grpo`, with its own generation, without gradient checkpointing, in each of
  the ways that a CPU may like: all rollouts in one forward or eight at a time, fused attention or plain products. The
  fastest of them counts.
- sampling is `decode` here and `generate` there; loss is all the rest of the update.
- decoding: the same samples by the decoding loop, of the base without an adapter.
- `--long`: one update of a Llama of random weights (two layers of width 64), float32.
- `--uneven`: the base's log-probabilities and the update on 32 rollouts of random tokens, lengths log-uniform from 8 to
  `--tokens`, drawn once; rollouts of like length together, and all in the width of the longest, in turns. Seconds are
  the processor's.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import random
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
from elicit.models.processor import has
from elicit.tasks.base import Items
from elicit.training.rl import loop, policy, trl_grpo
from elicit.training.rl.learner import learner
from elicit.training.rl.rewards import parse
from elicit.training.rl.settings import Settings
from elicit.training.rl.trl_rollouts import Bridge
from elicit.training.trl_common import run
from experiments.benchmarks.clock import clocked
from experiments.benchmarks.linear import random_model

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


def long(tokens: int, segment: int) -> None:
    """Print the peak of a process that trains on long answers."""
    how = Settings(
        updates=1, rollouts=2, group=2, part=1, preflight=2, reward="random:0.5", max_new_tokens=tokens,
        segment=segment,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        loaded = random_model(Path(folder) / "model", positions=2 * tokens)
        model = Endless(loaded.name, loaded.lm, loaded.tokenizer, loaded.provenance)
        before = peak()
        made = loop.train(model, example(), how, Path(folder) / "made", prompt=ENDLESS, checked=False)
    assert made.curve[0].tokens == how.rollouts * tokens
    print(
        f"peak {peak():.2f} GiB, of it {before:.2f} before training; {how.rollouts} rollouts of {tokens} tokens, "
        f"segments of {segment or tokens}, LoRA, two layers of width 64"
    )


def uneven(model: Model, how: Settings, rounds: int) -> None:
    """Print what parts of like length save."""
    rng = random.Random(0)
    lengths = [round(math.exp(rng.uniform(math.log(8), math.log(how.max_new_tokens)))) for _ in range(how.rollouts)]
    records = [
        {"question": 0, "tokens": rng.sample(range(1000, 20000), length), "advantage": rng.choice((-1.0, 1.0))}
        for length in lengths
    ]
    widths = policy.WIDTHS
    spent: dict[int, list[float]] = {widths: [], 1: []}
    fed = dict.fromkeys(spent, 0)
    with learner(model, how.recipe) as student:
        optimiser = torch.optim.AdamW(student.trained.values(), lr=0.0)
        run = loop._Run(student, example(), how, ENDLESS, parse(how.reward))
        for number in range(rounds + 1):  # the first makes kernels
            for policy.WIDTHS in spent:
                buffer = run.buffer({"records": copy.deepcopy(records), "facts": {}}, {})
                buffer.sampler = [[] for _ in records]  # nobody sampled them
                fed[policy.WIDTHS] = sum(part.mask.numel() for _, part in buffer.batch.parts(how.part))
                began = time.process_time()
                with student.reference() as lm:
                    buffer.reference = policy.logprobs(lm, buffer.batch, how.part, how.temperature)
                run.step(buffer, optimiser, number)
                spent[policy.WIDTHS] += [time.process_time() - began] if number else []
    ratios = sorted(one / some for some, one in zip(spent[widths], spent[1], strict=True))
    print(
        f"{how.rollouts} rollouts of {sum(lengths)} tokens, limit {how.max_new_tokens}: {fed[widths]} positions in "
        f"{statistics.median(spent[widths]):.2f} s beside {fed[1]} in {statistics.median(spent[1]):.2f} s, "
        f"{statistics.median(ratios):.2f} × ({ratios[0]:.2f} to {ratios[-1]:.2f}) as fast"
    )


def peak() -> float:
    """Of the process until now, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--updates", type=int, default=2, help="the first of each side makes kernels and is left out")
    parser.add_argument("--rollouts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="unless given what the processor is fast at")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--segment", type=int, default=0, help="of --long: positions with gradient at a time; 0: all")
    parser.add_argument("--long-tokens", type=int, default=8192, help="of --long")
    parser.add_argument("--uneven", action="store_true")
    parser.add_argument("--rounds", type=int, default=1, help="of --uneven")
    given = parser.parse_args()
    if given.updates < 2 or given.rollouts < GROUP or given.rollouts % GROUP:
        parser.error(
            f"{given.updates} updates of {given.rollouts} rollouts were given; give at least 2 updates, and rollouts "
            f"that are a multiple of {GROUP}"
        )
    how = settings(given.updates, given.rollouts, given.tokens)
    dtype = given.dtype or ("bfloat16" if has("bf16-products") else "float32")
    torch.set_num_threads(given.threads)
    if given.long:
        long(given.long_tokens, given.segment)
        return
    loaded = load_model(given.model, dtype=dtype, device="cpu")
    model = Endless(loaded.name, loaded.lm, loaded.tokenizer, loaded.provenance)
    if given.uneven:
        uneven(model, how, given.rounds)
        return
    before = peak()
    mine = ours(model, how)[1:]  # kernels are made in the first
    if given.memory:
        size = f"{how.rollouts} rollouts of {how.max_new_tokens} tokens"
        print(f"peak {peak():.2f} GiB, of it {before:.2f} before training; {size}, LoRA")
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
    print(f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}, {given.model}, {dtype}\n")
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
