"""Power sampling: its chains have the law pᵅ/Z, are those of a slow version, and stand in runs with what they cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import LlamaConfig, LlamaForCausalLM

import elicit
from elicit.decoding import Power, Sampling, StopRule
from elicit.decoding.decoders import RngStream, decoder_from_dict, decoder_to_dict
from elicit.decoding.engine import Batch, Can, Engine, decode_batch
from elicit.decoding.power import numbers_of
from elicit.methods import power_sampling
from elicit.models import Model
from probes.errors import UserError
from tests.support.hybrid_parts import NAMES, PROMPTS, as_model, words
from tests.support.shell import shell
from tests.support.tiny import save_tiny, tiny_model

FIVE, LONGEST, ALPHA, CHAINS = 5, 4, 2.0, 1500
TASK = "chain-sum:min_terms=2,max_terms=2"


class GreedyAlone(Engine):
    """An engine that claims nothing else."""

    name, can = "plain", Can()

    def decode(self, batch: Batch, on_step: Any = None) -> Any:
        raise AssertionError("it is refused before")


@cache
def of_five() -> Model:
    """A random model of five tokens, the first of which ends an answer."""
    torch.manual_seed(3)
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=FIVE, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, eos_token_id=0, pad_token_id=0, bos_token_id=1, max_position_embeddings=32,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.7)
    return as_model(lm, "five", words(size=FIVE))


@torch.inference_mode()
def enumerated(model: Model, prompt: list[int], longest: int = LONGEST) -> dict[tuple[int, ...], float]:
    """p(answer)ᵅ/Z of every answer of at most `longest` tokens."""
    found: dict[tuple[int, ...], float] = {}
    open_ones = {(): 0.0}
    for length in range(longest):
        logp = torch.log_softmax(model.lm(torch.tensor([[*prompt, *x] for x in open_ones])).logits[:, -1].double(), -1)
        pairs = zip(open_ones.items(), logp.tolist(), strict=True)
        grown = {(*x, v): w + of[v] for (x, w), of in pairs for v in range(FIVE)}
        ended = {x: w for x, w in grown.items() if x[-1] == 0 or length == longest - 1}
        found |= ended
        open_ones = {x: w for x, w in grown.items() if x not in ended}
    weights = np.exp(ALPHA * np.array(list(found.values())))
    return dict(zip(found, (weights / weights.sum()).tolist(), strict=True))


def p_value(decoder: Any, law: dict[tuple[int, ...], float], prompt: list[int]) -> float:
    """Of a decoder's answers under a law: Pearson's test, the rare answers as one."""
    model = of_five()
    stop = StopRule(model.eos_ids)
    ((*made,),) = decode_batch(model, Batch([prompt], ["one"], decoder, stop))
    seen = Counter((*g.tokens.tolist(), *([] if g.end is None else [g.end])) for g in made)
    assert seen.keys() <= law.keys()
    count = len(made)
    often = [x for x, p in law.items() if p * count >= 8]
    counts, expected = [seen[x] for x in often], [law[x] * count for x in often]
    return float(chisquare([*counts, count - sum(counts)], [*expected, count - sum(expected)]).pvalue)


def test_chains_have_the_law_of_the_power_and_low_temperature_has_not() -> None:
    prompt = [1, 3, 2]
    law = enumerated(of_five(), prompt)
    chain = Power(ALPHA, block=2, moves=20, samples=CHAINS, max_new_tokens=LONGEST)
    assert p_value(chain, law, prompt) > 1e-3
    for other in (
        Sampling(CHAINS, 1 / ALPHA, max_new_tokens=LONGEST),
        Power(ALPHA, 2, 0, CHAINS, max_new_tokens=LONGEST),
        Power(ALPHA, 2, 3, CHAINS, max_new_tokens=LONGEST, accept="always"),
    ):
        assert p_value(other, law, prompt) < 1e-9


@torch.inference_mode()
def slow(model: Model, prompt: list[int], stream: RngStream, how: Power, stop: StopRule) -> tuple[list[int], int, int]:
    """One chain, a whole forward a token, probabilities of whole answers: its tokens, accepted moves, tokens spent."""
    spent = 0

    def logits(x: list[int]) -> Any:
        return model.lm(torch.tensor([[*prompt, *x]])).logits[0, len(prompt) - 1 :].float()

    def ended(x: list[int]) -> bool:
        return bool(x) and (x[-1] in stop.eos_ids or any(s in model.tokenizer.decode(x) for s in stop.strings))

    def draw(x: list[int], until: int, u: Any) -> list[int]:
        nonlocal spent
        while not ended(x) and len(x) < until:
            cumulative = torch.softmax(logits(x)[-1] * how.alpha, -1).double().cumsum(-1)
            x = [*x, int(torch.searchsorted(cumulative, u[2 + len(x)] * cumulative[-1], right=True))]
            spent += 1
        return x

    def value(x: list[int]) -> float:  # log pᵅ − log q of the whole answer
        rows, at = logits(x)[:-1].double(), (range(len(x)), x)
        return float((how.alpha * rows.log_softmax(-1)[at] - (how.alpha * rows).log_softmax(-1)[at]).sum())

    x: list[int] = []
    accepted = 0
    for block, until in enumerate([*range(how.block, how.max_new_tokens, how.block), how.max_new_tokens]):
        numbers = numbers_of(stream, block, how.moves, until)
        x = draw(x, until, numbers[0])
        for u in numbers[1:]:
            y = draw(x[: int(u[0] * len(x))], until, u)
            if 1 - u[1] < np.exp(value(y) - value(x)) * len(x) / len(y):
                x, accepted = y, accepted + 1
    return x, accepted, spent


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "bloom"])
def test_together_they_are_the_slow_version(architecture: str) -> None:
    model = as_model(tiny_model(architecture), architecture)
    decoder = Power(1.5, block=4, moves=3, samples=2, seed=5, max_new_tokens=10)
    stop = StopRule(frozenset(range(2, 9)), ("w30", "w41 w41", "w50"), model.tokenizer)
    made = decode_batch(model, Batch(PROMPTS, NAMES, decoder, stop))
    taken = 0
    for prompt, name, chains in zip(PROMPTS, NAMES, made, strict=True):
        for sample, one in enumerate(chains):
            tokens, accepted, spent = slow(model, prompt, RngStream(5, name, 0, sample), decoder, stop)
            assert [*one.tokens.tolist(), *([] if one.end is None else [one.end])] == tokens
            assert (one.moves, one.accepted, one.spent) == (9, accepted, spent)
            taken += accepted
    assert taken
    if architecture == "llama":  # the others' tokens are nearly all alike to them
        assert taken < 9 * 8


def test_an_answer_is_the_same_beside_others_and_its_statistics_are_the_models() -> None:
    model = as_model(tiny_model("qwen2"))
    decoder = Power(2.0, block=5, moves=2, max_new_tokens=9)
    stop = StopRule(frozenset({2, 3}))
    together = decode_batch(model, Batch(PROMPTS, NAMES, decoder, stop))
    for prompt, name, (one,) in zip(PROMPTS, NAMES, together, strict=True):
        ((alone,),) = decode_batch(model, Batch([prompt], [name], decoder, stop))
        assert alone.tokens.tolist() == one.tokens.tolist() and alone.spent == one.spent
        with torch.inference_mode():
            logits = model.lm(torch.tensor([[*prompt, *one.tokens.tolist()]])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1)[range(len(one.tokens)), one.tokens.tolist()]
        np.testing.assert_allclose(one.logprob, logp.numpy(), rtol=1e-3, atol=1e-4)


class _Patience:
    """Somebody who goes away after so many looks, and hears nothing."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def gone(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def hear(self, *said: Any) -> None:
        raise AssertionError(said)


@pytest.mark.parametrize("looks", [0, 1, 4, 20])
def test_chains_of_who_goes_away_end_and_no_other_is_changed(looks: int) -> None:
    model = as_model(tiny_model("llama"), "llama")
    decoder = Power(1.5, block=4, moves=3, samples=2, seed=5, max_new_tokens=10)
    batch = Batch(PROMPTS, NAMES, decoder, StopRule(frozenset({2, 3})))
    whole = decode_batch(model, batch)
    ears = [_Patience(looks), *(_Patience(10**9) for _ in PROMPTS[1:])]
    made = decode_batch(model, replace(batch, listeners=ears))
    for some, others in zip(made[1:], whole[1:], strict=True):
        assert [(g.tokens.tolist(), g.spent, g.moves) for g in some] == [
            (g.tokens.tolist(), g.spent, g.moves) for g in others
        ]
    assert sum(g.spent for g in made[0]) <= looks + 2 < sum(g.spent for g in whole[0])


def test_a_run_has_it_beside_its_controls(tiny: Model, tmp_path: Path) -> None:
    items = elicit.load_task(TASK, limit=3).test
    handle = power_sampling.fit(tiny, block=4, moves=3, max_new_tokens=8, alpha=1.5)
    run = elicit.evaluate(handle, items, against=power_sampling.controls(handle), out=tmp_path / "run")
    again = elicit.evaluate(handle, items, against=(), out=tmp_path / "again", batch_rows=1)
    for some in (run, elicit.Run.load(run.folder), again):
        for (trace,) in some.traces["power-sampling"].values():
            assert trace.moves == 6 and trace.accepted is not None and 0 <= trace.accepted <= 6
            assert trace.spent > len(trace.tokens)
            assert [trace.tokens] == [t.tokens for t in run.traces["power-sampling"][trace.item]]
    for (still,) in run.traces["no moves"].values():
        assert still.moves is None and "moves" not in still.to_dict()
    assert all(t.accepted == t.moves for (t,) in run.traces["every move"].values())
    for item, drawn in run.traces["low-temperature@budget"].items():
        (trace,) = run.traces["power-sampling"][item]
        assert sum(t.spent for t in drawn) <= trace.spent


def test_what_does_not_fit_is_one_line(tiny: Model, tmp_path: Path) -> None:
    for option in ("alpha=0.0", "alpha=-1.0", "block=0", "moves=-1", "samples=0"):
        code, _, err = shell("run", "--method", "power-sampling", "--set", option, "--model", str(save_tiny(tmp_path)))
        assert code == 2 and option.split("=")[0] in err and err.count("\n") == 1
    decoder = Power(2.0, max_new_tokens=4)
    assert decoder_from_dict(decoder_to_dict(decoder)) == decoder
    other = Model("tiny", tiny.lm, tiny.tokenizer, tiny.provenance, f"{__name__}:GreedyAlone")
    with pytest.raises(UserError, match="plain engine cannot do power decoding; it does greedy"):
        decode_batch(other, Batch([[1, 2]], ["a"], decoder, StopRule(frozenset())))
    thoughts = StopRule(frozenset(), (), tiny.tokenizer, thought_tokens=3)
    with pytest.raises(UserError, match="thought_tokens was given with power sampling"):
        decode_batch(tiny, Batch([[1, 2]], ["a"], decoder, thoughts))
    with pytest.raises(UserError, match="no policy"):
        decoder.policy(["a"], 5)
    with pytest.raises(UserError, match="accept"):
        Power(accept="sometimes")
    direct = elicit.methods.get("direct").fit(tiny)
    with pytest.raises(UserError, match="controls of power-sampling"):
        power_sampling.controls(direct)
