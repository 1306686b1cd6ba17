"""Other rules that choose the mode of a trained model, as often as it thinks itself."""

from __future__ import annotations

from dataclasses import replace

import torch

from elicit.decoding.decoders import ModeGate
from elicit.decoding.decoders.mode_gate import entropy_without
from elicit.decoding.parts import without
from elicit.methods.base import draw_seed
from elicit.methods.thinkless.control_tokens import ControlTokens
from elicit.models.model import Model
from elicit.models.prompts import Prompt
from elicit.tasks.base import Items
from probes.batching import batchable, inputs
from steering.adapters import Tuned, applied

RANDOM, DRAWS = "random gate", 2
ENTROPY = "entropy gate"
ALWAYS = {"always short": 0.0, "always think": 1.0}
TOGETHER = 32  # questions whose first distributions are computed at a time


@torch.inference_mode()
def as_often(
    model: Model, adapter: Tuned | None, put: Prompt, tokens: ControlTokens, items: Items
) -> tuple[float, float]:
    """How often the trained model thinks on some questions, and the threshold by which entropy would do so as often.

    Args:
        model, adapter, put, tokens: what answers, and what its first token says.
        items: the questions, at least one.

    Returns:
        The fraction whose likeliest first token is the one of thought, and the entropy (nats) of the first token, both
        control tokens left out, from which on as many are thought on.
    """
    thinks: list[bool] = []
    entropies: list[float] = []
    never = torch.tensor(model.unlisted, dtype=torch.long)
    with applied(model.lm, adapter):
        for start in range(0, len(items), TOGETHER):
            rows = [put.ids(item.question, model.tokenizer) for item in items[start : start + TOGETHER]]
            for together in batchable(model.lm, rows):
                given = inputs(model.lm, [rows[i] for i in together])
                logits = without(model.lm(**given).logits[:, -1].float(), never)
                thinks += (logits.argmax(-1) == tokens.think).tolist()
                entropies += entropy_without(logits, tokens.ids).tolist()
    return sum(thinks) / len(thinks), threshold(entropies, sum(thinks))


def threshold(entropies: list[float], chosen: int) -> float:
    """A value that so many of these reach: halfway between the last that does and the first that does not."""
    falling = sorted(entropies, reverse=True)
    if not chosen:
        return falling[0] + 1.0
    return (falling[chosen - 1] + (falling[chosen] if chosen < len(falling) else 0.0)) / 2


def gates(tokens: ControlTokens, rate: float, least: float, limit: int, seed: int) -> dict[str, ModeGate]:
    """Decoders by name: coins of that rate, entropy of at least so many nats, and always one mode."""
    gate = ModeGate(tokens.short, tokens.think, rate=rate, seed=seed, max_new_tokens=limit)
    coins = [replace(gate, seed=draw_seed(seed, n)) for n in range(DRAWS)]
    return {
        **{f"{RANDOM} {n}": coin for n, coin in enumerate(coins)},
        ENTROPY: ModeGate(gate.short, gate.think, by="entropy", threshold=least, max_new_tokens=limit),
        **{name: ModeGate(gate.short, gate.think, rate=p, max_new_tokens=limit) for name, p in ALWAYS.items()},
    }
