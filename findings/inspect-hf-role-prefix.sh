#!/usr/bin/env bash
# inspect_ai 0.3.285: its hf provider puts "user: " before a prompt where the tokenizer has no chat template.
#
# Documented: use_chat_template=False, and a model without a template, are for base models, which are asked with plain text (docs, providers,
# Hugging Face). Seen: messages are joined as lines "role: text", so that a base model is given "user: Q: …" and a line end after the prompt;
# it answers another prompt than the sample holds, and nothing in the log says so. For a user: accuracies of base models through this provider are those of the longer prompt.
# Output, 2026-11-28:
#     OUTPUT
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 accelerate==1.15.0 inspect_ai==0.3.285
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2> /dev/null
import asyncio
import importlib.metadata

import torch
from inspect_ai.model import get_model
from tokenizers import Tokenizer, decoders, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

torch.manual_seed(0)
letters = {chr(c): c - 31 for c in range(32, 127)} | {"\n": 96, "<end>": 0}
made = Tokenizer(models.BPE(vocab=letters, merges=[], unk_token="<end>"))
made.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")
lm = GPT2LMHeadModel(GPT2Config(vocab_size=97, n_layer=1, n_head=2, n_embd=32, n_positions=256, eos_token_id=0, pad_token_id=0)).eval()
lm.save_pretrained("base")
tokenizer.save_pretrained("base")
asked = "Q: 1+1\nA:"
model = get_model("hf/base", model_path="base", use_chat_template=False, device="cpu")
counted = asyncio.run(model.generate(asked)).usage.input_tokens  # a token of this tokenizer is a character
print(f"inspect_ai {importlib.metadata.version('inspect_ai')}: asked {len(asked)} characters, {counted} were put")
raise SystemExit(0 if counted == len("user: " + asked + "\n") else 1)  # 1: it has been mended
PYTHON
