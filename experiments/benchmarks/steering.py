"""Tokens a second of steered greedy decoding: our loop, raw hooks, nnsight and TransformerLens, in one run.

    python -m experiments.benchmarks.steering

All contenders continue the same prompts, in one batch, by the same number of tokens (no end token), with the same
model; those that steer add the same vector after the same layer, at the last prompt position and at every generated
token. Contenders take turns within each round, in reversed order in every second one, and ratios are taken within a
round. Peers are written as their users write them, on copies of the model's modules, since both change these.

- ours: `elicit.decoding.decode`, plain and with `steering.hooks.attached`, which also measures what it moved.
- generate: `generate` of `transformers`, plain, with a hook of two lines, and with `steering.hooks.attached`.
- nnsight: `generate` of a `TransformersModel`. Optional: `pip install nnsight`.
- transformer-lens: `generate` of a `TransformerBridge`. Optional: `pip install transformer-lens`.

`same tokens` is the fraction of tokens that equal those of `generate` with the two-line hook (or of plain `generate`):
what steers otherwise, or not at all, would show there. In bfloat16 near-ties fall either way in other kernels.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import elicit
from elicit.decoding import Greedy, StopRule, decode
from elicit.models import Model
from experiments.benchmarks.decoding import questions
from probes.batching import left_pad
from probes.sites import Site, blocks, width
from steering.backends.lens import TransformerLens
from steering.backends.nnsight import NNsight
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, Plan, When

LAYER, STRENGTH = 15, 8.0
PEERS = {"nnsight": "nnsight", "transformer-lens": "transformer_lens"}
Contender = Callable[[list[list[int]], int], Tensor]
"""Continues prompts by so many tokens; the new tokens, [prompts, tokens]."""


def direction(model: Model) -> Direction:
    vector = torch.randn(width(model.lm), generator=torch.Generator().manual_seed(0))
    return Direction(vector / vector.norm(), Site(LAYER))


def plan_of(model: Model) -> Plan:
    return (Intervention(Add(direction(model)), STRENGTH, when=When.every_step()),)


def ours(model: Model, plan: Plan | None) -> Contender:
    def run(prompts: list[list[int]], tokens: int) -> Tensor:
        policy = Greedy(tokens).policy([str(i) for i in range(len(prompts))], model.vocab_size)
        stop = StopRule(frozenset())
        if plan is None:
            out = decode(model.lm, prompts, policy, max_new_tokens=tokens, stop=stop)
        else:
            with attached(model.lm, [plan]) as session:
                out = decode(model.lm, prompts, policy, max_new_tokens=tokens, stop=stop, steering=session)
            session.editor.delivery().check()
        return torch.tensor([branch.tokens.tolist() for branches in out for branch in branches])

    return run


def plain(model: Model) -> Contender:
    def run(prompts: list[list[int]], tokens: int) -> Tensor:
        ids, mask, _ = left_pad(prompts, model.lm.device)
        arguments = dict(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
        out: Tensor = model.lm.generate(ids, attention_mask=mask.long(), **arguments)  # type: ignore[operator]
        return out[:, ids.shape[1] :]

    return run


def raw_hook(model: Model) -> Contender:
    vector = (STRENGTH * direction(model).vector).to(model.lm.dtype)
    generate = plain(model)

    def hook(_: torch.nn.Module, __: object, out: Tensor) -> Tensor:
        out[:, -1] += vector
        return out

    def run(prompts: list[list[int]], tokens: int) -> Tensor:
        handle = blocks(model.lm)[LAYER].register_forward_hook(hook)
        try:
            return generate(prompts, tokens)
        finally:
            handle.remove()

    return run


def our_hooks(model: Model) -> Contender:
    generate = plain(model)

    def run(prompts: list[list[int]], tokens: int) -> Tensor:
        with attached(model.lm, [plan_of(model)]):
            return generate(prompts, tokens)

    return run


def nnsight_peer(model: Model) -> Contender:
    import nnsight

    tokenizer: Any = model.tokenizer
    peer = NNsight(model.lm, tokenizer).model
    block = peer.model.layers[LAYER]
    vector = (STRENGTH * direction(model).vector).to(model.lm.dtype)

    def run(prompts: list[list[int]], tokens: int) -> Tensor:
        ids, mask, _ = left_pad(prompts, model.lm.device)
        given = {"input_ids": ids, "attention_mask": mask.long()}
        arguments = dict(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
        with peer.generate(given, **arguments) as tracer:
            for _ in tracer.iter[:tokens]:
                block.output[:, -1] += vector
            out = nnsight.save(tracer.result)
        new: Tensor = out[:, ids.shape[1] :]
        return new

    return run


def lens_peer(model: Model) -> Contender:
    tokenizer: Any = model.tokenizer
    bridge = TransformerLens(model.lm, tokenizer).bridge
    vector = (STRENGTH * direction(model).vector).to(model.lm.dtype)

    def hook(h: Tensor, hook: object) -> Tensor:
        h[:, -1] += vector
        return h

    @torch.no_grad()
    def run(prompts: list[list[int]], tokens: int) -> Tensor:
        ids, mask, _ = left_pad(prompts, model.lm.device)
        with bridge.hooks([(f"blocks.{LAYER}.hook_resid_post", hook)]):
            out = bridge.generate(
                ids,
                attention_mask=mask.long(),
                max_new_tokens=tokens,
                do_sample=False,
                stop_at_eos=False,
                return_type="tokens",
                verbose=False,
            )
        new: Tensor = out[:, ids.shape[1] :]
        return new

    return run


def contenders(model: Model) -> dict[str, Contender]:
    found = {
        "ours, unsteered": ours(model, None),
        "ours, steered": ours(model, plan_of(model)),
        "generate, unsteered": plain(model),
        "generate, raw hook": raw_hook(model),
        "generate, our hooks": our_hooks(model),
    }
    for peer, make in (("nnsight", nnsight_peer), ("transformer-lens", lens_peer)):
        if importlib.util.find_spec(PEERS[peer]) is not None:
            found[f"{peer}, steered"] = make(model)
    return found


def speed(arguments: argparse.Namespace) -> dict[str, object]:
    model = elicit.load_model("smollm2-135m", dtype="bfloat16", device="cpu")
    tokenizer: Any = model.tokenizer
    prompts = [list(tokenizer(f"Q: {t}\nA:")["input_ids"]) for t in questions(arguments.prompts)]
    count: int = arguments.tokens
    found = contenders(model)
    for run in found.values():
        run(prompts[:2], 2)
    rounds: list[dict[str, float]] = []
    answers: dict[str, Tensor] = {}
    for number in range(arguments.rounds):
        rates: dict[str, float] = {}
        for name in list(found)[:: -1 if number % 2 else 1]:
            began = time.perf_counter()
            answers[name] = found[name](prompts, count)
            rates[name] = answers[name].numel() / (time.perf_counter() - began)
            assert answers[name].shape == (len(prompts), count)
        rounds.append({name: rates[name] for name in found})

    def ratio(over: str, under: str) -> float:
        return round(statistics.median(r[over] / r[under] for r in rounds), 3)

    def same(name: str) -> float:
        wanted = answers["generate, unsteered" if "unsteered" in name else "generate, raw hook"]
        return round(float((answers[name] == wanted).float().mean()), 3)

    others = [name for name in found if not name.startswith("ours") and "unsteered" not in name]
    installed = {peer: importlib.metadata.version(peer) for peer in PEERS if importlib.util.find_spec(PEERS[peer])}
    return {
        "model": model.describe(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "peers": installed,
        "prompts": len(prompts),
        "prompt tokens": [min(map(len, prompts)), max(map(len, prompts))],
        "new tokens": count,
        "rounds": rounds,
        "tokens/s": {name: round(statistics.median(r[name] for r in rounds), 1) for name in found},
        "same tokens": {name: same(name) for name in found},
        "tokens that steering changed": round(
            float((answers["generate, raw hook"] != answers["generate, unsteered"]).float().mean()), 3
        ),
        "ours, steered / unsteered": ratio("ours, steered", "ours, unsteered"),
        "generate, raw hook / unsteered": ratio("generate, raw hook", "generate, unsteered"),
        "generate, our hooks / raw hook": ratio("generate, our hooks", "generate, raw hook"),
        "ours, steered / others": {name: ratio("ours, steered", name) for name in others},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(speed(arguments), indent=2))


if __name__ == "__main__":
    main()
