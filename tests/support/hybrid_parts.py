"""What the tests of hybrid decoding share: tiny pairs, vectors and gates, and a slow reference without caches."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from elicit.decoding import Generation, Greedy, Hybrid, StopRule, decode
from elicit.decoding.cache import Candidates, SharedPrefixState
from elicit.decoding.decoders.gates import OracleGate, ProbeGate
from elicit.decoding.decoders.partner import HybridSteering
from elicit.models import Model
from elicit.models.model import Provenance
from probes.sites import Site, reading
from steering.categories.coefficient import CoefficientHead
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, When
from steering.storage import register
from tests.support.tiny import VOCAB, tiny_model

PROMPTS = [[5, 9, 3], [7, 1, 2, 8, 40, 41, 42, 43, 44, 45], [11] * 6, [3]]
NAMES = ["a", "b", "c", "d"]
NO_STOP = StopRule(frozenset())
LIMIT = 8


@register
@dataclass(frozen=True, eq=False)
class Nearest:
    """A taxonomy: the category is the direction with the largest product."""

    centres: Float[Tensor, "categories d"]

    def labels(self, x: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        return (x @ self.centres.to(x.device).T).argmax(-1)


def words(changed: dict[int, str] | None = None, size: int = VOCAB) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words; those that begin with < are special."""
    vocabulary = {(changed or {}).get(i, f"w{i}"): i for i in range(size)}
    tokenizer = Tokenizer(WordLevel(vocab=vocabulary, unk_token="w0"))
    tokenizer.add_special_tokens([word for word in vocabulary if word.startswith("<")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def as_model(lm: PreTrainedModel, name: str = "tiny", tokenizer: PreTrainedTokenizerFast | None = None) -> Model:
    return Model(name, lm, tokenizer or words(), Provenance(name, "made here", "", name))


def other(architecture: str, seed: int = 1) -> PreTrainedModel:
    """A model of the same shape with other weights, close enough to agree now and then."""
    lm = deepcopy(tiny_model(architecture))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return lm


def directions(length: float = 6.0, site: Site | None = None, count: int = 3) -> dict[int, Direction]:
    generator = torch.Generator().manual_seed(7)
    drawn = torch.randn(count, 32, generator=generator)
    return {c: Direction(v / v.norm() * length, site or Site(1), name=f"v{c}") for c, v in enumerate(drawn)}


def heads(count: int = 3, site: Site | None = None) -> dict[int, CoefficientHead]:
    """Coefficients from -0.5 to 2 that depend on the position."""
    drawn = torch.randn(count, 32, generator=torch.Generator().manual_seed(13)) * 0.1
    return {c: CoefficientHead(w, 1.0, -0.5, 2.0, site or Site(1), {}) for c, w in enumerate(drawn)}


def oracle() -> OracleGate:
    return OracleGate(Nearest(torch.randn(3, 32, generator=torch.Generator().manual_seed(3))), Site(2))


def run(
    settings: Hybrid, base: Model, partner: HybridSteering, prompts: list[list[int]] | None = None, **arguments: Any
) -> list[Generation]:
    given = PROMPTS if prompts is None else prompts
    policy = settings.joint(base, partner, NAMES[: len(given)])
    out = decode(base.lm, given, policy, max_new_tokens=settings.max_new_tokens, **{"stop": NO_STOP, **arguments})
    return [generation for (generation,) in out]


def greedy(lm: PreTrainedModel, limit: int = LIMIT) -> list[list[int]]:
    out = decode(lm, PROMPTS, Greedy().policy(NAMES, VOCAB), max_new_tokens=limit, stop=NO_STOP)
    return [generation.tokens.tolist() for (generation,) in out]


def tokens(generations: list[Generation]) -> list[list[int]]:
    return [g.tokens.tolist() for g in generations]


@torch.no_grad()
def forward(lm: PreTrainedModel, ids: list[int]) -> Tensor:
    return lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def reference(
    base: PreTrainedModel, partner: PreTrainedModel, given: HybridSteering, prompt: list[int], settings: Hybrid
) -> tuple[list[int], list[int]]:
    """One token after the other, from whole forwards; steered through `attached` on the last w positions (0: all)."""
    assert isinstance(given.gate, OracleGate)
    ids, taken = list(prompt), []
    for _ in range(settings.max_new_tokens):
        with reading(base, [given.site]) as mine:
            own = int(forward(base, ids).argmax())
        with reading(partner, [given.gate.site]) as seen:
            heard = forward(partner, ids)
        choice, number = own, 0
        if int(heard.argmax()) != own:
            category = int(given.gate.taxonomy.labels(seen[given.gate.site][-1:]))
            best = float(heard[own])
            told = 1.0 if given.heads is None else float(given.heads[category](mine[given.site][-1:]))
            for candidate, (coefficient, window) in enumerate(settings.candidates, start=1):
                vectors = [given.vectors[category], *([given.bias] if given.bias else [])]
                # steps of a plain forward: its last position is step 0
                when = When(first=1 - window) if window else When.everywhere()
                plan = tuple(Intervention(Add(v), coefficient * told, when=when) for v in vectors)
                with attached(base, [plan]):
                    token = int(forward(base, ids).argmax())
                if settings.select == "none" or float(heard[token]) > best:
                    choice, number, best = token, candidate, float(heard[token])
                if settings.select == "none":
                    break
        ids.append(choice)
        taken.append(number)
    return ids[len(prompt) :], taken


class Counting:
    """A partner's module whose forwards are counted."""

    def __init__(self, lm: PreTrainedModel) -> None:
        self.calls = 0
        lm.register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1


def probe(threshold: float) -> ProbeGate:
    generator = torch.Generator().manual_seed(11)
    return ProbeGate(torch.randn(2, 32, generator=generator), torch.zeros(2), Site(2, "resid_pre"), (2, 0), threshold)


def save_lora(base: Path, folder: Path) -> Path:
    """A LoRA adapter with random weights on a saved model, as PEFT saves it."""
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What every look ahead adds, with the rows' last tokens."""
    seen: list[tuple[Tensor, Tensor]] = []
    plain = SharedPrefixState.peek

    def peek(self: SharedPrefixState, candidates: Candidates) -> Any:
        seen.append((candidates.delta.clone(), candidates.rows.clone()))
        return plain(self, candidates)

    monkeypatch.setattr(SharedPrefixState, "peek", peek)
    return seen
