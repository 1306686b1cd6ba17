"""What encoding costs: greedy decoding with one SAE feature added, set or scaled, beside decoding without it.

    python -m experiments.benchmarks.features

An added feature is a vector and needs no encoder. To set or scale it, it must be read: one column of the encoder for a
JumpReLU or ReLU feature; all columns, at the steered positions alone, for a TopK feature, whose value depends on its
rivals. The SAEs have random weights of the given width: the work is the same. For comparison the whole SAE is encoded
and decoded at the same positions, as a hook that replaces the stream's SAE part would. Contenders take turns within a
round, ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from typing import Any

import torch
from torch import Tensor

import elicit
from elicit.models import Model
from experiments.benchmarks.decoding import questions
from experiments.benchmarks.steering import LAYER, Contender, ours
from probes.sae import SAE
from probes.sites import Site, on_site, width
from steering.interventions import Add, Intervention, Plan, ScaleFeature, SetFeature, When

PLAIN = "plain decoding"
FEATURE = 7


def random_sae(kind: str, d_model: int, d_sae: int, k: int) -> SAE:
    draw = torch.Generator().manual_seed(0)
    encoder = torch.randn(d_model, d_sae, generator=draw) / d_model**0.5
    bias = torch.zeros(d_sae)
    bias[FEATURE] = 100.0  # it fires everywhere, so that scaling it always does something
    return SAE(
        W_enc=encoder, b_enc=bias, W_dec=encoder.T.contiguous(), b_dec=torch.zeros(d_model),
        site=Site(LAYER), activation=kind, k=k if kind == "topk" else 0,
        threshold=torch.full((d_sae,), 0.1) if kind == "jumprelu" else None, name=f"random {kind}",
    )  # fmt: skip


def whole(model: Model, sae: SAE) -> Contender:
    """Every forward encodes and decodes its newest positions with the whole SAE and puts the error back."""
    run = ours(model, None)

    def hook(h: Tensor) -> Tensor:
        x = h[:, -1].float()
        decoded = sae.decode(sae.encode(x))
        h = h.clone()
        h[:, -1] = (decoded + (x - decoded)).to(h.dtype)
        return h

    def steered(prompts: list[list[int]], tokens: int) -> Tensor:
        handle = on_site(model.lm, sae.site, hook)
        try:
            return run(prompts, tokens)
        finally:
            handle.remove()

    return steered


def contenders(model: Model, d_sae: int, k: int) -> dict[str, Contender]:
    def plan(change: Any) -> Plan:
        return (Intervention(change, 2.0, "raw", When.every_step()),)

    out = {PLAIN: ours(model, None)}
    for kind in ("jumprelu", "topk"):
        sae = random_sae(kind, width(model.lm), d_sae, k)
        feature = sae.feature(FEATURE, 1.0, 1.0)
        out[f"add, {kind}"] = ours(model, plan(Add(feature)))
        out[f"set, {kind}"] = ours(model, plan(SetFeature(feature)))
        out[f"scale, {kind}"] = ours(model, plan(ScaleFeature(feature)))
        out[f"whole SAE, {kind}"] = whole(model, sae)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--width", type=int, default=2304, help="latents of the SAE")
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    model = elicit.load_model("smollm2-135m", dtype="bfloat16", device="cpu")
    tokenizer: Any = model.tokenizer
    prompts = [list(tokenizer(f"Q: {t}\nA:")["input_ids"]) for t in questions(given.prompts)]
    found = contenders(model, given.width, given.k)
    for run in found.values():
        run(prompts[:2], 2)
    rounds: list[dict[str, float]] = []
    for number in range(given.rounds):
        seconds: dict[str, float] = {}
        for name in list(found)[:: -1 if number % 2 else 1]:
            began = time.perf_counter()
            found[name](prompts, given.tokens)
            seconds[name] = time.perf_counter() - began
        rounds.append(seconds)
    report = {
        "model": model.describe(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "prompts × tokens": [len(prompts), given.tokens],
        "latents": given.width,
        "tokens/s": {
            name: round(len(prompts) * given.tokens / statistics.median(r[name] for r in rounds), 1) for name in found
        },
        "time over plain decoding": {
            name: round(statistics.median(r[name] / r[PLAIN] for r in rounds), 3) for name in found if name != PLAIN
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
