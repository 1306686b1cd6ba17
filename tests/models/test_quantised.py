"""Quantised weights: what a CPU can read is decoded, captured and steered in the dtype that was asked for; the rest is
refused in one line."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import elicit
from elicit.methods import cot_decoding
from elicit.models import Model, load_model, quantised
from elicit.models.identity import grounds
from elicit.tasks import load_task
from probes.capture import capture
from probes.errors import UserError
from probes.sites import Site
from steering.backends.lens import TransformerLens
from steering.directions import Direction
from steering.hooks import attached
from steering.interventions import Add, Intervention, When
from tests.support.tiny import save_tiny

IDS = [[5, 9, 3, 7, 40, 41], [6, 8, 11]]
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def variant(folder: Path, config: dict[str, Any], made: Callable[[str, Tensor], dict[str, Tensor]]) -> Path:
    """The tiny model with this quantisation in its configuration and other tensors for its linear layers'."""
    save_tiny(folder)
    weights = load_file(folder / "model.safetensors")
    inside = {key for key, w in weights.items() if ".layers." in key and w.ndim == 2}
    for key in inside:
        weights |= made(key, weights.pop(key))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, **({"quantization_config": config} if config else {})}))
    return folder


def fp8(key: str, weight: Tensor) -> dict[str, Tensor]:
    scale = weight.abs().max() / 448
    return {key: (weight / scale).to(torch.float8_e4m3fn), f"{key}_scale_inv": scale.reshape(1, 1)}


def rounded(key: str, weight: Tensor) -> dict[str, Tensor]:
    quantised_weight, scale = fp8(key, weight).values()
    return {key: quantised_weight.float() * scale}


@pytest.fixture(scope="module")
def of_fp8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return variant(tmp_path_factory.mktemp("q") / "fp8", FP8, fp8)


@pytest.fixture(params=["torchao", "bitsandbytes"])
def int8(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """A model that was quantised to eight bits by a library, saved, and loaded."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed: pip install 'elicit[quantised]'")
    folder = save_tiny(tmp_path / "plain")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what these libraries say when they are imported
        if request.param == "torchao":
            from torchao.quantization import Int8WeightOnlyConfig
            from transformers import TorchAoConfig

            config: Any = TorchAoConfig(Int8WeightOnlyConfig())
        else:
            from transformers import BitsAndBytesConfig

            config = BitsAndBytesConfig(load_in_8bit=True)
        lm = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, device_map={"": "cpu"}, dtype=torch.bfloat16
        )
        lm.save_pretrained(tmp_path / "int8")
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "int8")
        return load_model(str(tmp_path / "int8"), dtype="bfloat16", device="cpu")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8_is_read_into_plain_weights_on_a_cpu(of_fp8: Path, tmp_path: Path, dtype: str) -> None:
    ours = load_model(str(of_fp8), dtype=dtype, device="cpu")
    plain = load_model(str(variant(tmp_path / "plain", {}, rounded)), dtype=dtype, device="cpu")
    assert {p.dtype for p in ours.lm.parameters()} == {getattr(torch, dtype)}
    with torch.no_grad():
        mine, theirs = (m.lm(torch.tensor(IDS[:1]), use_cache=False).logits for m in (ours, plain))
    assert torch.equal(mine, theirs)
    assert ours.quantised == f"fp8, read into plain weights in {dtype}" and not plain.quantised
    assert ours.describe()["quantised"] == ours.quantised and "quantised" not in plain.describe()


def check_is_used_in(model: Model, dtype: torch.dtype) -> None:
    """Captured, steered and branched: everything in this dtype, and branches as a forward without a cache."""
    acts = capture(model.lm, IDS, [Site(1), Site(2, "mlp_out")])
    assert acts is not None and {h.dtype for h in acts.values.values()} == {dtype}
    direction = Direction(torch.randn(32, generator=torch.Generator().manual_seed(0)), Site(1))
    with attached(model.lm, [(Intervention(Add(direction), 1.0, when=When.everywhere()),)]):
        steered = capture(model.lm, IDS, [Site(1)])
    assert steered is not None
    assert torch.equal(steered.values[Site(1)], acts.values[Site(1)] + direction.vector.to(dtype))
    task = load_task("chain-sum", limit=2)
    handle = cot_decoding.fit(model, task.fit, k=3, max_new_tokens=6)
    answers = handle.answers(task.test[:1])
    prompt = handle.prompt_ids(task.test[0])
    for trace in answers[0]:
        with torch.no_grad():
            logits = model.lm(torch.tensor([[*prompt, *trace.tokens]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        logprob = logits.float().log_softmax(-1).gather(1, torch.tensor(trace.tokens)[:, None])[:, 0]
        assert (logprob - torch.tensor(trace.logprob)).abs().max() < (1e-4 if dtype == torch.float32 else 0.4)


def test_fp8_is_captured_steered_and_branched(of_fp8: Path) -> None:
    check_is_used_in(load_model(str(of_fp8), dtype="float32", device="cpu"), torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_eight_bits_are_captured_steered_and_branched(int8: Model) -> None:
    # `LLM.int8` looks for outliers over a whole batch (bitsandbytes 0.50.2); torchao has no such thing.
    mixed = ", by the largest of all its batch (llm_int8_threshold 6)" if "bitsandbytes" in int8.quantised else ""
    assert quantised.quantised(int8.lm) and int8.quantised.endswith(f"computed in bfloat16{mixed}")
    check_is_used_in(int8, torch.bfloat16)
    with pytest.raises(UserError, match="not tried on quantised weights"):
        TransformerLens(int8.lm, int8.tokenizer)


@pytest.mark.parametrize(("threshold", "wanted"), [(0.0, 0.0), (4, 4.0), (None, None), ("high", None)])
def test_a_threshold_is_read_as_it_stands(tmp_path: Path, threshold: Any, wanted: float | None) -> None:
    if find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed: pip install 'elicit[quantised]'")
    given = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": threshold}
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": given}))
    if wanted is not None:
        assert quantised.stored(tmp_path, "m") == quantised.Stored("bitsandbytes", 8, wanted)
        return
    with pytest.raises(UserError, match="llm_int8_threshold of 'm' is not as expected"):
        quantised.stored(tmp_path, "m")


def test_a_run_says_how_its_weights_are_held(of_fp8: Path, tmp_path: Path) -> None:
    model = load_model(str(of_fp8), dtype="float32", device="cpu")
    task = load_task("chain-sum", limit=2)
    handle = elicit.methods.direct.fit(model, task.fit, max_new_tokens=4)
    run = elicit.evaluate(handle, task.test, out=tmp_path / "run")
    assert run.store.config["execution"]["quantised"] == ["fp8, read into plain weights in float32"]
    assert grounds(task.test, [model])["quantised"] == ["fp8, read into plain weights in float32"]


def test_the_hash_is_over_what_the_files_hold(of_fp8: Path, tmp_path: Path) -> None:
    first = load_model(str(of_fp8), dtype="float32", device="cpu").provenance.sha256
    copy = shutil.copytree(of_fp8, tmp_path / "copy")
    assert load_model(str(copy), dtype="bfloat16", device="cpu").provenance.sha256 == first
    weights = load_file(copy / "model.safetensors")
    scale = next(key for key in weights if key.endswith("scale_inv"))
    save_file({**weights, scale: weights[scale] * 2}, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_model(str(copy), dtype="float32", device="cpu").provenance.sha256 != first


@pytest.mark.parametrize("kind", sorted(quantised.READERS))
def test_what_is_not_installed_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "_there", lambda module: False)
    folder = variant(tmp_path / kind, {"quant_method": kind, "bits": 4}, fp8)
    with pytest.raises(UserError) as caught:
        load_model(str(folder), dtype="float32", device="cpu")
    packages = " ".join(quantised.READERS[kind].values())
    assert f"run pip install {packages}, or give" in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_read_here_is_refused_in_one_line(tmp_path: Path) -> None:
    if find_spec("kernels") is not None:
        pytest.skip("kernels is installed, which reads this kind")
    for config, words in (
        ({"quant_method": "eetq"}, "holds weights quantised by eetq, which cannot be read here .*--device cuda"),
        ({"quant_method": "eetk"}, "unknown quantisation of .*'eetk'.*eetq"),
    ):
        folder = variant(tmp_path / config["quant_method"], config, fp8)
        with pytest.raises(UserError, match=words) as caught:
            load_model(str(folder), dtype="float32", device="cpu")
        assert "\n" not in str(caught.value)
