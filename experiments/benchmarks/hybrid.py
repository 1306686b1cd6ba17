"""Seconds of hybrid decoding: our loop, the two models decoding apart, and the published scheme, in one run.

    python -m experiments.benchmarks.hybrid            # the organisms; any two models of one tokenizer

All contenders answer the same questions by the same number of tokens (no end token).

- apart: base and partner decode greedily, each alone, all questions in one batch; the sum of the two is what no joint
  decoding of them can avoid.
- hybrid: our loop, all questions in one batch, eight candidates wherever the two differ.
- published: the scheme of arXiv 2510.07364 without caches, one question after the other: for every token two forwards
  of the thinking model over the whole text (one for its token, one for its activations), one of the base, and, where
  the two differ, one more of the base for each candidate. It emits the same tokens by the same rule.

The vectors are random ones of half the stream's norm: what is timed does not depend on what they mean, only on how
often the two models differ, which is reported. `same tokens` is the fraction of positions at which hybrid and published
agree; in bfloat16 near-ties fall either way, and the texts part after the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

import elicit
from elicit.decoding import Generation, Greedy, Hybrid, StopRule, decode
from elicit.decoding.decoders.gates import OracleGate
from elicit.decoding.decoders.partner import HybridSteering
from elicit.models import Model
from experiments.benchmarks.decoding import questions
from probes.sites import Site, depth, on_site, reading, width
from steering.directions import Direction

CATEGORIES = 8
COEFFICIENTS = tuple(0.25 * i for i in range(1, 9))


@dataclass(frozen=True)
class Nearest:
    """Some taxonomy: the category is the direction with the largest product."""

    centres: Float[Tensor, "categories d"]

    def labels(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        return (x @ self.centres.to(x.device).T).argmax(-1)


def given(base: Model, partner: Model, prompt: list[int]) -> HybridSteering:
    """Random vectors half way up the base, and a random taxonomy half way up the partner."""
    site, read = Site(depth(base.lm) // 2), Site(depth(partner.lm) // 2)
    with torch.no_grad(), reading(base.lm, [site]) as seen:
        base.lm(input_ids=torch.tensor([prompt], device=base.lm.device), use_cache=False)
    norm = float(seen[site][1:].float().norm(dim=-1).median())  # the first position's is far beyond all others
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(CATEGORIES, width(base.lm), generator=generator)
    vectors = {c: Direction(v / v.norm() * norm / 2, site, name=f"random {c}") for c, v in enumerate(drawn)}
    centres = torch.randn(CATEGORIES, width(partner.lm), generator=generator)
    return HybridSteering(vectors, OracleGate(Nearest(centres), read), partner)


def apart(model: Model, prompts: list[list[int]], tokens: int) -> None:
    policy = Greedy(tokens).policy([""] * len(prompts), model.vocab_size)
    decode(model.lm, prompts, policy, max_new_tokens=tokens, stop=StopRule(frozenset()))


def hybrid(base: Model, partner: HybridSteering, prompts: list[list[int]], tokens: int) -> list[Generation]:
    policy = Hybrid(COEFFICIENTS, max_new_tokens=tokens).joint(base, partner, [str(i) for i in range(len(prompts))])
    out = decode(base.lm, prompts, policy, max_new_tokens=tokens, stop=StopRule(frozenset()))
    return [generation for (generation,) in out]


@torch.inference_mode()
def published(base: Model, partner: HybridSteering, prompt: list[int], tokens: int) -> list[int]:
    """One question, everything computed anew for every token."""
    gate, thinking = partner.gate, partner.model
    assert isinstance(gate, OracleGate) and isinstance(thinking, Model)
    ids = list(prompt)

    def last(model: Model) -> Tensor:
        device = model.lm.device
        # The output layer of the last position alone: to its credit.
        keep = torch.tensor([len(ids) - 1], device=device)
        out = model.lm(input_ids=torch.tensor([ids], device=device), use_cache=False, logits_to_keep=keep)
        return out.logits[0, -1]

    def steered(delta: Tensor) -> Tensor:
        def hook(h: Tensor) -> Tensor:
            h = h.clone()
            h[:, -1] += delta.to(h)
            return h

        handle = on_site(base.lm, partner.site, hook)
        try:
            return last(base)
        finally:
            handle.remove()

    for _ in range(tokens):
        heard = last(thinking)
        choice = int(last(base).argmax())
        with reading(thinking.lm, [gate.site]) as seen:
            last(thinking)
        if int(heard.argmax()) != choice:
            category = int(gate.taxonomy.labels(seen[gate.site][-1:].float()))
            vector = partner.vectors[category].vector
            options = [choice, *(int(steered(c * vector).argmax()) for c in COEFFICIENTS)]
            choice = options[int(heard[options].argmax())]
        ids.append(choice)
    return ids[len(prompt) :]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    out = work()
    return time.perf_counter() - began, out


def speed(arguments: argparse.Namespace) -> dict[str, object]:
    base, thinking = (
        elicit.load_model(name, dtype=arguments.dtype, device="cpu") for name in (arguments.base, arguments.partner)
    )
    tokenizer: Any = base.tokenizer
    prompts = [list(tokenizer(f"Q: {text}\nA:")["input_ids"]) for text in questions(arguments.questions)]
    count: int = arguments.tokens
    partner = given(base, thinking, prompts[0])
    hybrid(base, partner, prompts[:2], 2)
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        one, _ = timed(lambda: apart(base, prompts, count))
        two, _ = timed(lambda: apart(thinking, prompts, count))
        ours, found = timed(lambda: hybrid(base, partner, prompts, count))
        rounds.append({"base": one, "partner": two, "hybrid": ours})
    peer, texts = timed(lambda: [published(base, partner, prompt, count) for prompt in prompts])
    notes = torch.cat([torch.from_numpy(generation.notes) for generation in found])
    same = [a == b for g, text in zip(found, texts, strict=True) for a, b in zip(g.tokens, text, strict=True)]
    middle = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    both = middle["base"] + middle["partner"]
    return {
        "base": base.describe(),
        "partner": thinking.describe(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "questions": len(prompts),
        "prompt tokens": [min(map(len, prompts)), max(map(len, prompts))],
        "new tokens": count,
        "candidates": len(COEFFICIENTS),
        "share of tokens at which they differ": round(float((notes[:, 0] == 1).float().mean()), 3),
        "share of tokens steered": round(float((notes[:, 1] > 0).float().mean()), 3),
        "rounds": rounds,
        "seconds": {**{name: round(value, 2) for name, value in middle.items()}, "published": round(peer, 2)},
        "hybrid / apart": round(statistics.median(r["hybrid"] / (r["base"] + r["partner"]) for r in rounds), 2),
        "published / hybrid": round(peer / middle["hybrid"], 1),
        "published / apart": round(peer / both, 1),
        "same tokens": round(sum(same) / len(same), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m-latent")
    parser.add_argument("--partner", default="smollm2-135m-thinking")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    print(json.dumps(speed(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
