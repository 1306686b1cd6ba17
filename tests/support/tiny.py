"""Tiny random models of each attention variant, built from configurations: no network, no files.

Their weights are scaled up, so that greedy decoding wanders instead of repeating one token.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCAB = 64
_COMMON: dict[str, Any] = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
_GEMMA: dict[str, Any] = dict(_COMMON, sliding_window=6, query_pre_attn_scalar=8)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "qwen2": dict(_COMMON, use_sliding_window=True, sliding_window=6, max_window_layers=2),
    "qwen3": _COMMON,
    "gemma2": dict(_GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=5.0),
    "gemma3": dict(_GEMMA, model_type="gemma3_text", layer_types=["sliding_attention"] * 3 + ["full_attention"]),
    "mistral": dict(_COMMON, sliding_window=6),
    "gpt_neox": dict(_COMMON, rotary_pct=0.25, num_key_value_heads=4),
    "gpt2": dict(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=256, bos_token_id=1, eos_token_id=2),
    "bloom": dict(vocab_size=VOCAB, hidden_size=32, n_layer=3, n_head=4, pad_token_id=0),
    "gpt_oss": dict(_COMMON, sliding_window=6, num_local_experts=2, num_experts_per_tok=1),
}
# Their states run through padding, whatever the mask says.
SEEING_PADDING: dict[str, dict[str, Any]] = {
    "recurrent_gemma": dict(_COMMON, lru_width=32, attention_window_size=64),
    "rwkv": dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, attention_hidden_size=32, context_length=64),
    "xlstm": dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_heads=4),
}


@cache
def tiny_model(architecture: str) -> PreTrainedModel:
    arguments = dict((ARCHITECTURES | SEEING_PADDING)[architecture])
    config = CONFIG_MAPPING[arguments.pop("model_type", architecture)](**arguments)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25 if "embed" not in name and "wte" not in name else 1.0)
    return model


def save_tiny(folder: Path, architecture: str = "llama") -> Path:
    """A model folder with safetensors and a tokenizer whose tokens are single characters."""
    characters = [chr(c) for c in range(32, 127)] + ["\n"]
    vocabulary = {"<end>": 0, **{c: i + 1 for i, c in enumerate(characters)}}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<end>"))
    tokenizer.decoder = Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    arguments = dict((ARCHITECTURES | SEEING_PADDING)[architecture], vocab_size=len(vocabulary))
    arguments |= {"eos_token_id": 0, "pad_token_id": 0}
    arguments["max_position_embeddings"] = 2048
    config = CONFIG_MAPPING[arguments.pop("model_type", architecture)](**arguments)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.0 if "embed" in name else 0.25)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
