"""Answers of very unequal length: rows refilled from waiting questions, beside batches that wait for their longest row.

    python -m experiments.benchmarks.refill              # a random model of four layers
    python -m experiments.benchmarks.refill --model smollm2-135m --questions 64 --most 400

Every question's answer has a limit of its own, log-uniform from 20 to 1,500 and drawn once. Both sides have the same
number of rows, decode greedily in fp32 and say the same tokens, which is checked.

- batches: the reference loop, as many questions at a time as there are rows; a row that reached its limit says an end
  token, and rows that have ended are dropped, as in an evaluation.
- refilled: the graph engine's schedule without graphs; a question comes in where rows have ended.

Steps are exact. Seconds, of the processor, depend on what a step costs beside its rows: both sides compute every token
once, so that what is won is the reading of weights and the starting of kernels. Where a step of few rows takes as long
as one of many, as on a GPU, the ratio is that of the steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

import elicit
from elicit.decoding import Generation, Greedy, StopRule, decode
from elicit.decoding.decoders.greedy import GreedyPolicy
from elicit.decoding.engine import Batch
from elicit.decoding.graph.fit import paged
from elicit.decoding.graph.schedule import Schedule
from elicit.decoding.loop import Rows
from experiments.benchmarks.decoding import questions
from probes.confidence import Top2

END = 2
SHORTEST = 20
SMALL = LlamaConfig(
    vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096,
)  # fmt: skip


class Limited(GreedyPolicy):
    """Greedy; a question's last token is an end token."""

    def __init__(self, limits: Int[np.ndarray, " questions"]) -> None:
        self.limits = limits
        self.steps = 0

    def next(self, logits: Float[Tensor, "rows vocab"], top: Top2, rows: Rows, step: int) -> Int[Tensor, " rows"]:
        self.steps += 1
        over = torch.from_numpy(step + 1 >= self.limits[rows.question])
        return torch.where(over, END, super().next(logits, top, rows, step))


def drawn(count: int, most: int) -> list[int]:
    """Limits, log-uniform."""
    some = np.random.default_rng(0).uniform(math.log(SHORTEST), math.log(most + 1), count)
    return [int(n) for n in np.exp(some)]


def batches(
    lm: PreTrainedModel, prompts: Sequence[list[int]], limits: Sequence[int], rows: int
) -> tuple[list[list[int]], int]:
    """What is said, the end tokens left out, and the steps."""
    said: list[list[int]] = []
    steps = 0
    for start in range(0, len(prompts), rows):
        some = np.array(limits[start : start + rows])
        policy = Limited(some)
        out = decode(
            lm, prompts[start : start + rows], policy, max_new_tokens=int(some.max()), stop=StopRule(frozenset({END}))
        )
        said += [g.tokens.tolist() for (g,) in out]
        steps += policy.steps
    return said, steps


@torch.inference_mode()
def refilled(
    lm: PreTrainedModel, prompts: Sequence[list[int]], limits: Sequence[int], rows: int, choices: int
) -> tuple[list[list[int]], int]:
    """The same by a schedule, cut before a limit's last token, which the other side has exchanged."""
    batch = Batch(prompts, [""] * len(prompts), Greedy(max(limits)), StopRule(frozenset({END})))
    with paged(lm):
        schedule = Schedule(lm, batch, choices=choices, rows=rows, every=1, graphs=False, limits=limits)
        made: list[list[Generation]] = schedule.decode()
    return [g.tokens.tolist()[: -1 if g.finish == "length" else None] for (g,) in made], schedule.steps


def given(name: str, count: int) -> tuple[PreTrainedModel, list[list[int]], str]:
    """A model, prompts, and what the model is."""
    if name == "random":
        torch.manual_seed(0)
        lm = AutoModelForCausalLM.from_config(SMALL).float().eval()
        with torch.no_grad():
            for parameter in lm.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.1)
        draw = np.random.default_rng(1)
        prompts = [draw.integers(10, SMALL.vocab_size, int(n)).tolist() for n in draw.integers(20, 60, count)]
        return lm, prompts, "random Llama, 4 layers of width 128, vocabulary 512, float32"
    model = elicit.load_model(name, dtype="float32", device="cpu")
    tokenizer = model.tokenizer
    prompts = [list(tokenizer(f"Q: {text}\nA:")["input_ids"]) for text in questions(count)]
    return model.lm, prompts, str(model.describe())


def speed(arguments: argparse.Namespace) -> dict[str, object]:
    lm, prompts, about = given(arguments.model, arguments.questions)
    limits = drawn(len(prompts), arguments.most)
    choices = lm.get_output_embeddings().weight.shape[0]  # type: ignore[union-attr]
    rounds: list[dict[str, float]] = []
    steps: dict[str, int] = {}
    for number in range(arguments.rounds + 1):
        few = slice(0, 8 if number == 0 else None)  # the first round warms up
        asked = prompts[few], [min(n, 40) for n in limits[few]] if number == 0 else limits
        began = time.process_time()
        one, steps["batches"] = batches(lm, *asked, arguments.rows)
        middle = time.process_time()
        other, steps["refilled"] = refilled(lm, *asked, arguments.rows, choices)
        rounds.append({"batches": middle - began, "refilled": time.process_time() - middle})
        assert one == other, "the two sides do not say the same"
    del rounds[0]
    return {
        "model": about,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "questions": len(prompts),
        "rows": arguments.rows,
        "limits": [min(limits), round(statistics.mean(limits)), max(limits)],
        "steps": steps,
        "batches / refilled, steps": round(steps["batches"] / steps["refilled"], 2),
        "seconds": {name: round(statistics.median(r[name] for r in rounds), 1) for name in rounds[0]},
        "batches / refilled, seconds": round(statistics.median(r["batches"] / r["refilled"] for r in rounds), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random")
    parser.add_argument("--questions", type=int, default=128)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--most", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(speed(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
