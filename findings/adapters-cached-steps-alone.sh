#!/usr/bin/env bash
# adapters 1.3.0: a Llama or Mistral that it has prepared generates from the second token on without seeing the text.
#
# Documented: "an add-on library to HuggingFace's Transformers, integrating 10+ adapter methods into 20+
# state-of-the-art Transformer models"; adapters.init prepares a model; the package asks for transformers ~=4.57.6.
# Seen: those transformers call the cache past_key_values, and the attention that adapters puts into these two models
# knows past_key_value: the cache falls into the rest of the arguments, nothing is written to it, and in each step after
# the prompt the new token attends to itself alone. It needs no adapter, and generate uses the cache by default. Without
# a cache, and for GPT-2, the texts are the model's. Nothing is said. For a user: trained adapters of these models seem
# to have broken them: losses and log-likelihoods of whole texts are right, and what they generate is not. What helps:
# generate(..., use_cache=False).
# Output, 2026-11-30:
#     adapters 1.3.0, transformers 4.57.6, no adapter added
#     LlamaForCausalLM
#         written before init [12, 16, 26, 34, 47, 13, 42, 39], after it [12, 49, 45, 46, 27, 36, 26, 34]
#         without a cache the first; a cached step's logits change by 0.0000 where the first token is another one
#     MistralForCausalLM
#         written before init [29, 32, 27, 27, 27, 17, 1, 3], after it [29, 43, 28, 28, 28, 28, 28, 28]
#         without a cache the first; a cached step's logits change by 0.0000 where the first token is another one
#     GPT2LMHeadModel
#         written before init [9, 35, 34, 38, 35, 35, 35, 27], after it [9, 35, 34, 38, 35, 35, 35, 27]
#         without a cache the first; a cached step's logits change by 2.0901 where the first token is another one
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.6 adapters==1.3.0
cd "$folder"
cat > tried.py <<'PYTHON'
from importlib.metadata import version

import adapters
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

common = dict(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=4, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=None)
small = dict(vocab_size=50, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3, bos_token_id=1, eos_token_id=None)
torch.manual_seed(0)
ids = torch.randint(2, 50, (1, 8))


def written(model, cached):
    """Eight tokens after the prompt."""
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0,
                          use_cache=cached)[0, 8:].tolist()


@torch.no_grad()
def step(model, first):
    """The logits after the prompt's last token, which comes in a step of its own, where the first token is `first`."""
    given = ids.clone()
    given[0, 0] = first
    cache = model(given[:, :-1], use_cache=True).past_key_values
    return model(given[:, -1:], past_key_values=cache, use_cache=True).logits[0, -1]


print(f"adapters {version('adapters')}, transformers {version('transformers')}, no adapter added")
rows = {}
for kind, config in ((LlamaForCausalLM, LlamaConfig(**common)), (MistralForCausalLM, MistralConfig(**common)),
                     (GPT2LMHeadModel, GPT2Config(**small))):
    model = kind(config).eval()
    right = written(model, True)
    adapters.init(model)
    cached, whole = written(model, True), written(model, False)
    seen = float((step(model, 3) - step(model, 4)).abs().max())
    rows[kind] = cached[:1] == right[:1], cached == right, whole == right, seen
    print(kind.__name__)
    without = "the first" if whole == right else whole
    print(f"    written before init {right}, after it {cached}")
    print(f"    without a cache {without};",
          f"a cached step's logits change by {seen:.4f} where the first token is another one")
llama, mistral, gpt2 = rows.values()
broken = all(row == (True, False, True, 0) for row in (llama, mistral))
raise SystemExit(0 if broken and gpt2[:3] == (True, True, True) and gpt2[3] > 1e-3 else 1)  # 1: it has been mended
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" tried.py 2> "$folder/said"
