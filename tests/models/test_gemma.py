"""The natural base model: its bytes, weights and tokens. Run by `pytest -m slow` where `ELICIT_ACCEPT_TERMS` says that
its terms of use are accepted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from elicit.models import Model, load_model, zoo
from elicit.models.download import ACCEPTED, cache_dir, fetch
from elicit.models.gguf import converted_folder

NAME = "gemma3-270m-base"
WEIGHTS = zoo.WEIGHTS[NAME]
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(NAME not in os.environ.get(ACCEPTED, ""), reason=f"its terms: {WEIGHTS.terms}"),
]
NORMS = ("attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "output_norm")
PLACES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
PLAIN = (
    "The committee met on Tuesday afternoon to discuss the budget for the coming year. Several members argued that "
    "spending on roads should be increased, while others thought the money would be better used for schools. No "
    "decision was reached before the meeting closed."
)


@pytest.fixture(scope="module")
def gemma() -> Model:
    return load_model(NAME, dtype="float32", device="cpu")


def place(name: str) -> str:
    """Where a tensor of the file goes in the model."""
    if name in ("token_embd.weight", "output_norm.weight"):
        return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[name]
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{PLACES[kind]}.weight"


def test_every_tensor_is_what_the_package_gguf_dequantises(gemma: Model, tmp_path: Path) -> None:
    """Gemma's norms are kept as what is added to 1, and llama.cpp's files hold the sum."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    fetch(NAME, WEIGHTS, tmp_path / WEIGHTS.file)
    assert (tmp_path / WEIGHTS.file).stat().st_size == WEIGHTS.bytes
    seen = set()
    with safe_open(converted_folder(WEIGHTS.sha256, NAME) / "model.safetensors", "numpy") as stored:
        for tensor in GGUFReader(tmp_path / WEIGHTS.file).tensors:
            expected = dequantize(tensor.data, tensor.tensor_type)
            if tensor.name.split(".")[-2] in NORMS:
                expected = expected - np.float32(1)
            np.testing.assert_array_equal(stored.get_tensor(place(tensor.name)), expected, err_msg=tensor.name)
            seen.add(place(tensor.name))
        assert seen == set(stored.keys())
    assert cache_dir() in converted_folder(WEIGHTS.sha256, NAME).parents


def test_its_tokens_are_gemmas(gemma: Model) -> None:
    tokens = gemma.tokenizer

    def ids(text: str) -> list[int]:
        return tokens(text, add_special_tokens=False).input_ids

    known = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<start_of_turn>": 105, "<end_of_turn>": 106}
    assert {name: tokens.convert_tokens_to_ids(name) for name in known} == known
    assert gemma.eos_ids == {1, 106} and not gemma.unlisted and gemma.vocab_size == len(tokens) == 262_144
    assert tokens("Hello world").input_ids == [2, 9259, 1902], "one beginning token, and no space before the first word"
    assert [tokens.convert_ids_to_tokens(i) for i in ids("  two spaces")] == ["▁▁", "two", "▁spaces"]
    assert [tokens.convert_ids_to_tokens(i) for i in ids("1234")] == list("1234"), "every digit is a token"
    assert [tokens.convert_ids_to_tokens(i) for i in ids("x\n\ny")] == ["x", "\n\n", "y"]
    unheard = "\u0378"  # of no character: two bytes of UTF-8
    assert [tokens.convert_ids_to_tokens(i) for i in ids(unheard)] == ["<0xCD>", "<0xB8>"]
    for text in (" leading", "\t\ttab", "x\n\n\ny", "日本語 🦄 ẞ \x07", unheard, "a  b   c"):
        assert tokens.decode(ids(text)) == text


def test_its_layers_are_gemma_3s_and_plain_english_is_likely(gemma: Model) -> None:
    config = gemma.lm.config
    assert [n for n, kind in enumerate(config.layer_types) if kind == "full_attention"] == [5, 11, 17]
    assert config.sliding_window == 512 and config.query_pre_attn_scalar == config.head_dim == 256
    rotary = config.rope_parameters
    assert rotary["full_attention"]["rope_theta"] == 1e6 and rotary["sliding_attention"]["rope_theta"] == 1e4
    ids = torch.tensor([gemma.tokenizer(PLAIN).input_ids])
    with torch.no_grad():
        logprobs = gemma.lm(ids).logits.float().log_softmax(-1)
    perplexity = float((-logprobs[0, :-1].gather(1, ids[0, 1:, None]).mean()).exp())
    assert perplexity < 20, perplexity
