"""GGUF files as tests write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gguf import GGUFWriter
from torch import Tensor

Tensors = dict[str, Tensor]
More = Callable[[GGUFWriter], None]


def finish(writer: GGUFWriter) -> None:
    """Write all that a writer was given, and close its file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(path: Path, tensors: Tensors, blocks: int = 4, more: More | None = None) -> Path:
    """The tiny Llama as a GGUF file that says it has so many blocks, and more."""
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm"}
    writer = GGUFWriter(str(path), "llama")
    writer.add_block_count(blocks)
    writer.add_context_length(256)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(97)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(chr(c) for c in range(33, 127)), "Ġ", "Ċ", "!!"])
    writer.add_token_types([1] * 97)
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    for key, tensor in tensors.items():
        name = key.removesuffix(".weight")
        if name not in whole:
            _, _, block, part = name.split(".", 3)
            whole[name] = f"blk.{block}.{parts[part]}"
        writer.add_tensor(f"{whole[name]}.weight", tensor.numpy())
    if more is not None:
        more(writer)
    finish(writer)
    return path
