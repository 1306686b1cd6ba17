"""The int8 engine: products are those of integers, bookkeeping is the reference's, and its departure is told."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import elicit
from elicit.decoding import int8_weights
from elicit.decoding.decoders import Branching, Greedy, Sampling
from elicit.decoding.engine import check_training, decode_batch, engine_of
from elicit.decoding.engines.int8 import MEASURED_ON, Int8Engine
from elicit.decoding.int8_weights import int8, layers
from elicit.decoding.loop import StopRule
from elicit.methods import direct
from elicit.models import processor
from elicit.models.model import Model, Provenance
from elicit.report.run_section import notes
from elicit.tasks.registry import load_task
from probes.errors import UserError
from steering.adapters import Adapter, applied
from tests.decoding.test_engines import NEW, batch, plan, same
from tests.steering.test_backends import tokenizer
from tests.support.adapters import IDS, base, config, everything, written
from tests.support.tiny import tiny_model

pytestmark = [pytest.mark.usefixtures("one_thread", "all_layers"), pytest.mark.needs("int8-products")]


@pytest.fixture
def all_layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those of tiny models are small."""
    monkeypatch.setattr(int8_weights, "LEAST", 1)
    int8_weights._ROUNDED.clear()
    yield
    int8_weights._ROUNDED.clear()


def model_of(architecture: str, lm: Any = None, engine: str = "hf") -> Model:
    lm = tiny_model(architecture) if lm is None else lm
    return Model(architecture, lm, tokenizer(), Provenance(architecture, "", "", architecture), engine)


class Slow(nn.Linear):
    """What a layer computes in eight bits, written down: numbers in float32, the sum of products of integers exact."""

    largest: Tensor | None = None
    levels = 127

    def forward(self, x: Tensor) -> Tensor:
        smooth = torch.ones(self.in_features)
        if self.largest is not None:
            smooth = self.largest**0.5 / self.weight.abs().amax(0) ** 0.5
        weight, given = self.weight * smooth, x * (1 / smooth)
        step, size = weight.abs().amax(1, keepdim=True) / 127, given.abs().amax(-1, keepdim=True).clamp_min(1e-30)
        rounded = torch.floor(given * (self.levels / size) + (self.levels + 1.5)) - (self.levels + 1)  # halves go up
        out = (rounded.double() @ (weight / step).round().double().T).float() * (step[:, 0] / self.levels) * size
        return out if self.bias is None else out + self.bias


def slow(lm: Any, channels: Any) -> Any:
    """A copy of a model whose linear layers are `Slow`."""
    lm = copy.deepcopy(lm)
    for path, layer in layers(lm).items():
        layer.__class__ = Slow
        layer.largest = channels.get(path)
        layer.levels = 127 if processor.has("int8-sums") else 63
    return lm


@pytest.mark.processor
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("levels", ["those of this processor", "seven bits"])
def test_products_are_those_of_the_integers_and_no_row_sees_another(
    bias: bool, levels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest numbers too, whose sums 16 bits do not hold; rows of zeros; what is not finite stays so."""
    if levels == "seven bits":
        monkeypatch.setitem(processor.CAPABILITIES, "int8-sums", lambda: False)
    layer = nn.Linear(192, 80, bias=bias)
    with torch.no_grad():
        layer.weight[:40] = 1.0
        layer.weight[20:40] *= -1
    model = nn.Sequential(layer)
    x = torch.randn(3, 7, 192)
    x[0, 0], x[0, 1], x[0, 2] = 5.0, -5.0, 0.0
    largest = torch.linspace(0.5, 9, 192)
    for channels in ({}, {"0": largest}):
        int8_weights._ROUNDED.clear()
        wanted = slow(model, channels)(x)
        with torch.inference_mode(), int8(model, channels):
            assert "forward" in vars(layer)
            found = model(x)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
            assert torch.equal(model(x[1, 3]), found[1, 3]) and torch.equal(model(x[1:]), found[1:])
            assert model(torch.full((1, 192), torch.nan)).isnan().all()
            assert not model(torch.full((1, 192), torch.inf)).isfinite().any()
        assert "forward" not in vars(layer)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_it_decodes_as_the_reference_does_the_same_rounded_model(architecture: str) -> None:
    """Greedy, branches and samples of the same streams; plans a row; end tokens and stop strings."""
    model = model_of(architecture, engine="int8")
    engine = engine_of(model)
    assert isinstance(engine, Int8Engine)
    wanted_of = model_of(architecture, slow(model.lm, engine.channels))
    ended = decode_batch(wanted_of, batch(Greedy(NEW)))
    end, last = int(ended[0][0].tokens[3]), int(ended[1][0].tokens[4])
    stop = StopRule(frozenset({end}), (f"t{last}",), tokenizer())
    rows: Any = ([(), plan(), plan()[:1]], [1, 0, 2])
    for given in (
        batch(Greedy(NEW), *rows, lengths=[4, 3, 2]),
        batch(Sampling(2, max_new_tokens=NEW), *rows),
        replace(batch(Branching(2, NEW)), stop=stop),
    ):
        same(decode_batch(model, given), decode_batch(wanted_of, given))
    assert any(g.finish != "length" for (g,) in decode_batch(model, replace(batch(Greedy(NEW)), stop=stop)))
    plain = decode_batch(replace(model, engine="hf"), batch(Greedy(NEW)))
    off = [
        abs(g.logprob[0] - w.logprob[0])
        for (g,), (w,) in zip(plain, decode_batch(model, batch(Greedy(NEW))), strict=True)
    ]
    assert 0 < max(off) < 0.5


def test_the_model_is_afterwards_what_it_was_and_what_an_adapter_adds_is_not_rounded(tmp_path: Path) -> None:
    lm = base("llama")
    written(tmp_path / "lora", "llama", config("LORA"))
    adapter, model = Adapter(tmp_path / "lora"), model_of("llama", lm, "int8")
    before = everything(lm)
    with torch.inference_mode():
        plain = lm(IDS).logits
    decode_batch(model, batch(Greedy(NEW), adapter=adapter))
    with torch.inference_mode():
        assert torch.equal(lm(IDS).logits, plain)
    after = everything(lm)
    assert before.keys() == after.keys()
    with applied(lm, adapter):
        paths = layers(lm)
        assert len(paths) == 4 * 7 + 1 and not any("lora" in path or "base_layer" in path for path in paths)
        with int8(lm, {}):
            added = [m for name, m in lm.named_modules() if "lora_A" in name and isinstance(m, nn.Linear)]
            assert added and not any("forward" in vars(m) for m in added)


def test_a_weight_that_is_written_to_is_rounded_anew() -> None:
    model = nn.Sequential(nn.Linear(64, 64, bias=False))
    x = torch.randn(2, 64)
    for _ in range(2):
        with torch.inference_mode(), int8(model, {}):
            out = model(x)
        torch.testing.assert_close(out, nn.functional.linear(x, model[0].weight), rtol=0.1, atol=0.05)
        with torch.no_grad():
            model[0].weight.mul_(-3)


def test_a_run_tells_how_far_it_departs(tiny: Model, tmp_path: Path) -> None:
    task = load_task("chain-sum", limit=4)
    model = replace(tiny, engine="int8")
    run = elicit.evaluate(direct.fit(model, max_new_tokens=6), task.test, against=[], out=tmp_path / "run")
    engine = engine_of(model)
    assert isinstance(engine, Int8Engine)
    ids = torch.tensor([tiny.tokenizer(MEASURED_ON)["input_ids"][:256]])
    with torch.no_grad():
        exact = tiny.lm(ids).logits[0, :-1].log_softmax(-1)
        rounded = slow(tiny.lm, engine.channels)(ids).logits[0, :-1].log_softmax(-1)
    off = (rounded - exact).gather(1, ids[0, 1:, None]).abs()
    told = engine.departure
    assert told.tokens == len(off) > 50 and told.dtype == "float32"
    assert (told.mean, told.largest) == pytest.approx((float(off.mean()), float(off.max())), rel=0.1)
    assert told.same == pytest.approx(float((exact.argmax(-1) == rounded.argmax(-1)).float().mean()), abs=0.03)
    (decoded,) = run.store.config["execution"]["decoded_by"]
    assert decoded.startswith("int8 (shared-prefix, 99% of weights in 8 bits") and decoded.endswith(f"; {told})")
    assert run.metrics["decoding_notes"] == [f"linear layers were computed in int8: {told}"]
    assert f"Decoding: linear layers were computed in int8: {told}." in notes(run.metrics)  # below the table
    assert run.store.config["identity"]["engines"] == ["int8"]


def test_what_it_cannot_do_is_refused_in_one_line(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="the int8 engine does not see weights that are trained; train with the hf"):
        check_training(replace(tiny, engine="int8"))
    with pytest.raises(UserError, match="takes models in float32 or bfloat16 and this is float16; use the hf engine"):
        engine_of(model_of("llama", copy.deepcopy(tiny.lm).half(), "int8"))
    with pytest.raises(UserError, match="computes on a CPU and llama is on meta; use the hf engine"):
        engine_of(model_of("llama", copy.deepcopy(tiny.lm).to("meta"), "int8"))
    monkeypatch.setattr(int8_weights, "free_bytes", lambda device: 1000)
    with pytest.raises(UserError, match=r"in eight bits needs 0\.00 GB and 0\.00 GB are free; free some, load"):
        engine_of(replace(tiny, engine="int8"))
    monkeypatch.setattr(int8_weights, "LEAST", 1 << 30)
    with pytest.raises(UserError, match="LlamaForCausalLM has no linear layers that are worth computing in int8"):
        engine_of(replace(tiny, engine="int8"))
    monkeypatch.setitem(processor.CAPABILITIES, "int8-products", lambda: False)
    with pytest.raises(UserError, match="needs oneDNN's products of an x86 processor with AVX2; use the hf engine"):
        engine_of(replace(tiny, engine="int8"))
