"""Weights that are missing, left over or of another shape are refused in one line, and nothing else is printed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig

from elicit.models import load_model
from elicit.models.loading import load_whole
from probes.errors import UserError
from tests.support.gguf_files import More, Tensors, write_gguf

UP = "model.layers.1.mlp.up_proj.weight"
EXPERT = "model.layers.1.block_sparse_moe.experts.2.w1.weight"


def same(tensors: Tensors) -> Tensors:
    return tensors


def without(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if name not in names}


def shorter(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: tensors[name][:-1].contiguous()}


def extra(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, **{name: torch.zeros(4) for name in names}}


def changed(
    whole: Path, folder: Path, change: Callable[[Tensors], Tensors], config: dict[str, Any] | None = None
) -> Path:
    shutil.copytree(whole, folder)
    weights, settings = folder / "model.safetensors", folder / "config.json"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **(config or {})}))
    return folder


def refused(folder: Path, *words: str, **arguments: Any) -> None:
    with pytest.raises(UserError) as caught:
        load_model(str(folder), dtype="float32", **(arguments or {"device": "cpu"}))
    assert "\n" not in str(caught.value)
    for word in (repr(str(folder)), *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (without(UP), {}, ["1 missing", UP]),
        (without("lm_head.weight", UP), {}, ["2 missing", "lm_head.weight"]),
        (extra("strange.weight"), {}, ["1 without a place", "strange.weight"]),
        (extra("model.layers.0.self_attn.q_proj.bias"), {}, ["1 without a place"]),
        (extra("vision_tower.weight"), {}, ["1 without a place"]),  # in a model that does not see
        (shorter(UP), {}, ["1 of another shape", f"{UP}: [47, 32] for [48, 32]"]),
        (same, {"num_hidden_layers": 6}, ["18 missing", "model.layers.4.input_layernorm.weight"]),
        (same, {"num_hidden_layers": 2}, ["18 without a place", "model.layers.2.input_layernorm.weight"]),
        (same, {"vocab_size": 200}, ["2 of another shape", "[97, 32] for [200, 32]"]),
        # Built before they were compared, these took all of the memory.
        (same, {"num_hidden_layers": 10**8}, ["num_hidden_layers 100000000", "weights are of 39 tensors"]),
        (same, {"vocab_size": 10**12}, ["vocab_size 1000000000000", "elements"]),
        (same, {"text_config": {"intermediate_size": 10**9}}, ["intermediate_size 1000000000", "elements"]),
        (same, {"vocab_size": 36_000, "hidden_size": 32_000}, ["of a model of", "weights, and its file holds 37,216"]),
        (same, {"hidden_size": -8}, ["hidden_size -8", "elements"]),
        (same, {"pad_token_id": 10**8}, ["its configuration is not whole"]),
        (same, {"model_type": "gpt2"}, ["missing", "without a place", "GPT2LMHeadModel"]),
        (shorter(UP), {"num_hidden_layers": 2}, ["18 without a place", "1 of another shape"]),
    ],
)
def test_weights_that_are_not_the_configurations_are_refused(
    tiny_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[Tensors], Tensors],
    config: dict[str, Any],
    words: list[str],
) -> None:
    folder = changed(tiny_folder, tmp_path / "model", change, config)
    refused(folder, *words)
    refused(folder, *words, device_map="cpu")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "config"),
    [
        (without("lm_head.weight"), {"tie_word_embeddings": True}),
        (extra("model.layers.0.self_attn.rotary_emb.inv_freq", "model.position_ids"), {}),
        (extra("model.layers.0.attn.masked_bias", "mtp.layers.0.weight"), {}),
    ],
)
def test_weights_that_decide_nothing_may_be_missing_or_left_over(
    tiny_folder: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], config: dict[str, Any]
) -> None:
    load_model(str(changed(tiny_folder, tmp_path / "model", change, config)), dtype="float32", device="cpu")


def test_the_eyes_of_a_model_that_sees_are_no_fault(tiny_folder: Path, tmp_path: Path) -> None:
    """A configuration with a part for images, of which the text model alone is loaded."""

    class Seeing(LlamaConfig):
        sub_configs = {"vision_config": LlamaConfig}  # noqa: RUF012
        vision_config = LlamaConfig()

    class Speaking(LlamaForCausalLM):
        config_class = Seeing

    folder = changed(tiny_folder, tmp_path / "model", extra("vision_tower.weight", "multi_modal_projector.weight"))
    AutoModelForCausalLM.register(Seeing, Speaking)
    load_whole("it", folder, config=Seeing.from_pretrained(folder))
    with pytest.raises(UserError, match="2 without a place"):
        load_whole("it", folder)


def test_experts_that_cannot_be_joined_are_refused(
    tiny_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = MixtralConfig(
        vocab_size=97, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=1,
    )  # fmt: skip
    whole = tmp_path / "whole"
    shutil.copytree(tiny_folder, whole)
    AutoModelForCausalLM.from_config(config).save_pretrained(whole)
    load_model(str(whole), device="cpu", dtype="float32")
    capfd.readouterr()
    for name, change in (("removed", without(EXPERT)), ("shape", shorter(EXPERT))):
        refused(changed(whole, tmp_path / name, change), "experts", "model.layers.1.mlp.experts.gate_up_proj")
    refused(changed(whole, tmp_path / "more", same, {"num_local_experts": 4}), "[3, 16, 24] for [4, 16, 24]")
    assert capfd.readouterr() == ("", "")


def test_a_shard_that_is_missing_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_folder, folder)
    lm = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    lm.save_pretrained(folder, max_shard_size="20KB")
    load_model(str(folder), device="cpu", dtype="float32")
    sorted(folder.glob("*.safetensors"))[1].unlink()
    refused(folder, "model-00002-of-")


def test_a_token_for_what_is_unknown_must_be_one(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["unk_token"] = "<nowhere>"
    (folder / "tokenizer.json").write_text(json.dumps(told))
    refused(folder, "could not be read", "'<nowhere>', is none of its tokens")


@pytest.fixture
def tensors(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """The tiny Llama's, with nothing converted yet."""
    monkeypatch.setenv("ELICIT_HOME", str(tmp_path / "home"))
    return load_file(tiny_folder / "model.safetensors")


def test_a_gguf_file_is_held_to_its_own_configuration(tensors: Tensors, tmp_path: Path) -> None:
    for name, some, blocks, word in (
        ("removed", without(UP)(tensors), 4, f"1 missing, like {UP}"),
        ("shape", shorter(UP)(tensors), 4, "1 of another shape"),
        ("more", tensors, 5, "9 missing"),
        ("fewer", tensors, 2, "18 without a place in it, like blk.2."),
    ):
        path = write_gguf(tmp_path / f"{name}.gguf", some, blocks)
        with pytest.raises(UserError) as caught:
            load_model(str(path), dtype="float32", device="cpu")
        assert word in str(caught.value) and path.name in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "home" / "models").iterdir())
    model = load_model(str(write_gguf(tmp_path / "whole.gguf", tensors)), dtype="float32", device="cpu")
    assert torch.equal(model.lm.get_parameter(UP), tensors[UP])


def test_a_gguf_file_that_counts_blocks_it_does_not_hold_is_refused_before_it_is_built(
    tensors: Tensors, tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "m.gguf", tensors, blocks=10**8)
    with pytest.raises(UserError, match="says block_count 100000000, and its weights are of 39 tensors"):
        load_model(str(file), dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({b"llama.block_count": b"llama.block_coun_"}, "m.gguf does not say how many blocks"),  # transformers makes 32
        (
            {b"_length\x04\0\0\0\x20\0": b"_length\x04\0\0\0\0\x80", b"size\x04\0\0\0\x61\0": b"size\x04\0\0\0\0\x80"},
            "of a model of 2,1",
        ),
        ({b"block_count\x04": b"block_count\x06"}, "m.gguf' could not be converted .*num_hidden_layers"),  # not whole
        (
            {b"_length\x04\0\0\0\x20": b"_length\x04\0\0\0\x21"},
            "m.gguf' could not be converted",
        ),  # no multiple of heads
        ({b"\x01\0\0\0\0\0\0\0!\x01": b"\x01\0\0\0\0\0\0\0?\x01"}, "the tokenizer of 'm.gguf' could not be read"),
    ],
)
def test_a_gguf_file_that_says_what_cannot_be_is_refused_before_a_model_is_drawn(
    tensors: Tensors, tmp_path: Path, changes: dict[bytes, bytes], words: str
) -> None:
    file = write_gguf(tmp_path / "m.gguf", tensors)
    data = file.read_bytes()
    for said, instead in changes.items():
        assert data.count(said) == 1
        data = data.replace(said, instead)
    file.write_bytes(data)
    with pytest.raises(UserError, match=words):
        load_model(str(file), dtype="float32", device="cpu")


def scaled(kind: gguf.RopeScalingType) -> More:
    def more(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(kind)
        writer.add_rope_scaling_factor(4.0)
        if kind is gguf.RopeScalingType.YARN:
            writer.add_rope_scaling_orig_ctx_len(64)

    return more


def test_the_scaling_of_positions_that_a_gguf_file_states_is_kept(tensors: Tensors, tmp_path: Path) -> None:
    # transformers 5.23.0 drops it (findings/gguf-settings-dropped.sh); llama.cpp divides positions by the factor
    plain = load_model(str(write_gguf(tmp_path / "plain.gguf", tensors)), dtype="float32", device="cpu").lm
    for kind in (gguf.RopeScalingType.LINEAR, gguf.RopeScalingType.YARN):
        path = write_gguf(tmp_path / f"{kind.value}.gguf", tensors, more=scaled(kind))
        lm = load_model(str(path), dtype="float32", device="cpu").lm
        held = lm.config.rope_parameters
        assert held["rope_type"] == kind.value and held["factor"] == 4.0
        ids, positions = torch.arange(3, 27)[None], torch.arange(24)[None]
        if kind is gguf.RopeScalingType.LINEAR:
            expected = plain(ids, position_ids=positions / 4).logits
            assert torch.allclose(lm(ids, position_ids=positions).logits, expected, atol=1e-5)
        else:
            assert held["original_max_position_embeddings"] == 64
            assert not torch.allclose(lm(ids).logits, plain(ids).logits, atol=1e-3)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (lambda w: w.add_tensor("blk.0.attn_q.bias", np.zeros(32, np.float32)), "blk.0.attn_q.bias"),
        (lambda w: w.add_tensor("rope_freqs.weight", np.arange(1, 5, dtype=np.float32)), "rope_freqs.weight"),
        (lambda w: w.add_sliding_window(64), "attention.sliding_window 64"),
        (lambda w: w.add_key_length(16), "attention.key_length 16, read as 8"),
        (scaled(gguf.RopeScalingType.LONGROPE), "longrope"),
        (lambda w: w.add_uint32("llama.newest_setting", 3), "newest_setting 3"),
    ],
)  # fmt: skip
def test_what_a_gguf_file_says_and_nobody_reads_is_refused(
    tensors: Tensors,
    tmp_path: Path,
    more: More,
    word: str,
) -> None:
    path = write_gguf(tmp_path / "said.gguf", tensors, more=more)
    with pytest.raises(UserError, match=word) as caught:
        load_model(str(path), dtype="float32", device="cpu")
    assert "said.gguf" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "home" / "models").iterdir())


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("gpt-2", ["12", "!!", "Ċ"]), ("smollm", ["1", "2", "!!", "Ċ"]), ("stablelm2", ["1", "2", "!!Ċ"]),
        ("falcon", None), ("newest", None),
    ],
)  # fmt: skip
def test_text_is_split_as_a_gguf_file_says(
    tensors: Tensors, tmp_path: Path, split: str, pieces: list[str] | None
) -> None:
    # what transformers 5.23.0 does not know it splits as GPT-2 does (findings/gguf-splits.sh)
    path = write_gguf(tmp_path / "split.gguf", tensors, more=lambda w: w.add_tokenizer_pre(split))
    if pieces is None:
        with pytest.raises(UserError, match=split):
            load_model(str(path), dtype="float32", device="cpu")
        return
    tokenizer = load_model(str(path), dtype="float32", device="cpu").tokenizer
    assert [one for one, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12!!\n")] == pieces


def test_the_stretched_rotation_of_llama_3_1_is_read_from_its_factors(tensors: Tensors, tmp_path: Path) -> None:
    """Factors as llama.cpp's converter makes them: by where a wave's length lies between two bounds."""
    waves = 2 * np.pi / np.array([1.0, 0.1, 0.01, 0.001])
    smooth = np.clip((8192 / waves - 1.0) / 3.0, 0.0, 1.0)
    stretched = (1 / ((1 - smooth) / 32 + smooth)).astype(np.float32)
    assert stretched[-1] > 5

    def read_with(name: str, factors: np.ndarray) -> Any:
        path = write_gguf(tmp_path / name, tensors, more=lambda w: w.add_tensor("rope_freqs.weight", factors))
        return load_model(str(path), dtype="float32", device="cpu").lm

    read, plain = read_with("stretched.gguf", stretched), read_with("plain.gguf", np.ones(4, np.float32))
    assert read.config.rope_parameters["rope_type"] == "llama3" and read.config.rope_parameters["factor"] == 32
    assert plain.config.rope_parameters["rope_type"] == "default"
    found, unstretched = (lm.get_buffer("model.rotary_emb.inv_freq") for lm in (read, plain))
    torch.testing.assert_close(found, unstretched / torch.from_numpy(stretched), rtol=1e-5, atol=0)


@pytest.mark.parametrize("special", [False, True])
def test_a_tag_of_html_ends_no_answer(tiny_folder: Path, special: bool) -> None:
    """Gemma's vocabulary holds the tag that ends struck-out text, spelled as the end of a document elsewhere."""
    from tokenizers import AddedToken

    model = load_model(str(tiny_folder), device="cpu")
    model.tokenizer.add_tokens([AddedToken("</s>", special=special)], special_tokens=special)
    assert (model.tokenizer.convert_tokens_to_ids("</s>") in model.eos_ids) is special
