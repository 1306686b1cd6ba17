"""Tiny random models with the tokenizer and chat template of a family that thinks between marks."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from elicit.models import Model
from tests.support.chats import FAMILIES, tokenizer_of
from tests.support.hybrid_parts import as_model


def thinker(family: str, seed: int = 3) -> Model:
    """A random Llama of that family's words, each a character but for its special ones."""
    tokenizer = tokenizer_of(FAMILIES[family])
    torch.manual_seed(seed)
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id, pad_token_id=0, bos_token_id=0,
            max_position_embeddings=512,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.5)
    return as_model(lm, family, tokenizer)
