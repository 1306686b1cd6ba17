"""Power sampling by rollouts: its law is that of pᵅ, it is a slow version, and its runs count every token drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elicit
from elicit.decoding import Greedy, PowerRollouts, Sampling, StopRule, decode
from elicit.decoding.decoders import RngStream, decoder_from_dict, decoder_to_dict
from elicit.decoding.engine import Batch, decode_batch
from elicit.decoding.rollouts import law, numbers_of
from elicit.methods import power_sampling
from elicit.models import Model
from probes.errors import UserError
from tests.methods.test_power_sampling import FIVE, enumerated, of_five, p_value
from tests.support.hybrid_parts import NAMES, PROMPTS, as_model
from tests.support.shell import shell
from tests.support.tiny import save_tiny, tiny_model

ALPHA, LONGEST = 2.0, 3


def test_rollouts_have_the_law_of_the_power_and_what_looks_less_far_has_not() -> None:
    prompt = [1, 3, 2]
    of_power = enumerated(of_five(), prompt, LONGEST)

    def p(samples: int, **other: Any) -> float:
        whole: dict[str, Any] = {"candidates": FIVE, "rollouts": 2, "horizon": LONGEST, "max_new_tokens": LONGEST}
        return p_value(PowerRollouts(ALPHA, **{**whole, "samples": samples, **other}), of_power, prompt)

    assert p(500, rollouts=4) > 1e-3
    assert p(1500, rollouts=0) < 1e-3
    assert p_value(Sampling(1500, 1 / ALPHA, max_new_tokens=LONGEST), of_power, prompt) < 1e-3
    assert p(300, candidates=2) < 1e-6 and p(300, futures="exchanged") < 1e-6


def test_the_jackknife_takes_the_first_order_of_the_bias_away() -> None:
    """The mean law of many estimates, with and without it, beside the law of the true futures."""
    random = np.random.default_rng(0)
    logp, spread, rows, count = np.log([0.5, 0.3, 0.2]), np.array([0.0, 1.0, 1.5]), 40_000, 6
    true = law(logp[None], (spread**2 / 2)[None, :, None], 1.0)[0]  # the mean of a log-normal weight
    futures = spread[:, None] * random.standard_normal((rows, 3, count))
    corrected = law(np.tile(logp, (rows, 1)), futures, 1.0)
    weights = np.exp(logp) * np.exp(futures).mean(-1)
    plain = weights / weights.sum(-1, keepdims=True)
    assert abs(corrected.mean(0) - true).max() < 0.5 * abs(plain.mean(0) - true).max()
    np.testing.assert_allclose(corrected.sum(-1), 1.0)


@torch.inference_mode()
def slow(model: Model, prompt: list[int], stream: RngStream, how: PowerRollouts, stop: StopRule) -> tuple[Any, int]:
    """One answer, a whole forward a token, each estimate by its equation: its tokens, and all that were drawn."""
    said: list[int] = []
    spent = 0

    def rows(x: list[int]) -> Any:
        return model.lm(torch.tensor([[*prompt, *x]])).logits[0, len(prompt) - 1 :].float()

    def ended(x: list[int]) -> bool:
        return x[-1] in stop.eos_ids or any(s in model.tokenizer.decode(x) for s in stop.strings)

    def weight(x: list[int], begin: int, u: Any) -> tuple[float, int]:  # of a rollout pᵅ/q, and its tokens
        at = begin
        while not ended(x) and len(x) < min(how.max_new_tokens, begin + how.horizon):
            cumulative = torch.softmax(rows(x)[-1] * how.alpha, -1).double().cumsum(-1)
            x = [*x, int(torch.searchsorted(cumulative, u[len(x) - begin] * cumulative[-1], right=True))]
        logits, where = rows(x)[at:-1].double(), (range(len(x) - at), x[at:])
        ratio = how.alpha * logits.log_softmax(-1)[where] - (how.alpha * logits).log_softmax(-1)[where]
        return float(ratio.sum().exp()), len(x) - at

    while not said or (not ended(said) and len(said) < how.max_new_tokens):
        step = len(said)
        logp, ids = rows(said)[-1].log_softmax(-1).topk(how.candidates)
        tokens = min(how.horizon, how.max_new_tokens - 1 - step)
        numbers = numbers_of(stream, step, how.candidates * how.rollouts, tokens)
        numbers = numbers.reshape(how.candidates, how.rollouts, tokens)
        found = [[weight([*said, int(v)], step + 1, u) for u in of] for v, of in zip(ids, numbers, strict=True)]
        zeta = np.array([[w for w, _ in of] for of in found])
        spent += 1 + sum(drawn for of in found for _, drawn in of)

        def law_of(kept: Any, logp: Any = logp, zeta: Any = zeta) -> Any:
            p = np.exp(how.alpha * logp.double().numpy()) * zeta[:, kept].mean(1)
            return p / p.sum()

        m, every = how.rollouts, np.arange(how.rollouts)
        p = m * law_of(every) - (m - 1) / m * sum(law_of(every[every != k]) for k in every)
        p = np.maximum(p, 0) / np.maximum(p, 0).sum()
        said.append(int(ids[np.searchsorted(p.cumsum(), stream.uniform(how.max_new_tokens)[step], side="right")]))
    return said, spent


@pytest.mark.parametrize("architecture", ["llama", "bloom"])
def test_together_they_are_the_slow_version(architecture: str) -> None:
    model = as_model(tiny_model(architecture), architecture)
    decoder = PowerRollouts(1.5, candidates=4, rollouts=3, horizon=2, samples=2, seed=5, max_new_tokens=5)
    stop = StopRule(frozenset(range(2, 9)), ("w30", "w41 w41", "w50"), model.tokenizer)
    made = decode_batch(model, Batch(PROMPTS, NAMES, decoder, stop))
    for prompt, name, samples in zip(PROMPTS, NAMES, made, strict=True):
        for sample, one in enumerate(samples):
            tokens, spent = slow(model, prompt, RngStream(5, name, 0, sample), decoder, stop)
            assert [*one.tokens.tolist(), *([] if one.end is None else [one.end])] == tokens
            assert one.spent == spent
        with torch.inference_mode():
            logits = model.lm(torch.tensor([[*prompt, *one.tokens.tolist()]])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1)[range(len(one.tokens)), one.tokens.tolist()]
        np.testing.assert_allclose(one.logprob, logp.numpy(), rtol=1e-3, atol=1e-4)


def test_a_stop_string_may_begin_in_what_was_said() -> None:
    model = as_model(tiny_model("llama"))
    prompt, said = PROMPTS[0], [40, 31]
    with torch.inference_mode():
        likeliest = int(model.lm(torch.tensor([[*prompt, *said]])).logits[0, -1].argmax())
    stop = StopRule(frozenset(), (model.tokenizer.decode([31, likeliest]),), model.tokenizer)

    def finish(**known: Any) -> str:
        greedy = Greedy(3).policy(["a"], model.choices)
        ((made,),) = decode(model.lm, [[*prompt, *said]], greedy, max_new_tokens=3, stop=stop, **known)
        return f"{made.finish} {len(made.tokens)}"

    assert finish(said=[said]) == "stop 1" and finish() == "length 3"


def test_a_run_has_it_beside_its_controls(tiny: Model, tmp_path: Path) -> None:
    items = elicit.load_task("chain-sum:min_terms=2,max_terms=2", limit=3).test
    handle = power_sampling.fit(tiny, form="rollouts", candidates=3, rollouts=2, horizon=3, max_new_tokens=5, alpha=1.5)
    run = elicit.evaluate(handle, items, against=power_sampling.controls(handle), out=tmp_path / "run")
    again = elicit.evaluate(handle, items, against=(), out=tmp_path / "again", batch_rows=1)
    for item, (trace,) in again.traces["power-sampling"].items():
        assert [trace.tokens] == [t.tokens for t in run.traces["power-sampling"][item]] and trace.moves is None
        assert trace.spent > len(trace.tokens) + 1
        assert sum(t.spent for t in run.traces["low-temperature@budget"][item]) <= trace.spent
        (bare,) = run.traces["no rollouts"][item]
        assert bare.spent == len(bare.tokens) + (bare.finish == "eos")
    assert "exchanged futures" in run.traces and "no moves" not in run.traces
    assert elicit.Run.load(run.folder).traces == run.traces


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path))
    for option in ("candidates=0", "rollouts=-1", "horizon=0", "form=neither", "alpha=0.0"):
        command = ("run", "--method", "power-sampling", "--model", folder, "--set", "form=rollouts", "--set", option)
        code, _, err = shell(*command)
        assert code == 2 and option.split("=")[0] in err and err.count("\n") == 1
    decoder = PowerRollouts(2.0, max_new_tokens=4)
    assert decoder_from_dict(decoder_to_dict(decoder)) == decoder
    with pytest.raises(UserError, match="futures"):
        PowerRollouts(futures="none")
    with pytest.raises(UserError, match="no policy"):
        decoder.policy(["a"], 5)
