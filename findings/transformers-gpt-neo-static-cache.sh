#!/usr/bin/env bash
# transformers 5.24.0: GPT-Neo (the TinyStories models among it) reads a wrong window with cache_implementation="static".
#
# Documented: "Name of the cache class that will be instantiated in `generate`, for faster decoding", of which "static" is one. Seen:
# the local layers find out where a token stands from the number of keys, and a static cache has as many as it may ever hold: a token
# at its beginning is taken for one at its end. Where prompt and answer together are longer than the window (256 as published), local
# layers see those places alone that the last token would see, and so less than there is, or nothing that was written. Logits differ
# from the first token on; below that length all is right, so that a short test shows nothing, and nothing is said. For a user: with a
# static cache, as compiled and exported models have, TinyStories and GPT-Neo write other texts than those that were studied. What
# helps: the dynamic cache.
# Output, 2026-11-30:
#     transformers 5.24.0, GPT-Neo with a window of 256: largest difference of logits to a forward without a cache
#     prompt  20,  16 new tokens: dynamic 0.0000, static 0.0000
#     prompt 250,  16 new tokens: dynamic 0.0000, static 0.5224
#     prompt 200, 200 new tokens: dynamic 0.0000, static 5.3163
#     prompt 400, 400 new tokens: dynamic 0.0000, static 5.6735
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch
import transformers
from transformers import GPTNeoConfig, GPTNeoForCausalLM

torch.manual_seed(0)
config = GPTNeoConfig(vocab_size=64, hidden_size=32, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]],
                      max_position_embeddings=1024, initializer_range=0.3, bos_token_id=0, eos_token_id=1)
lm = GPTNeoForCausalLM(config).eval()
print(f"transformers {transformers.__version__}, GPT-Neo with a window of {config.window_size}: largest difference of logits to a "
      "forward without a cache")
rows = {}
for length, new in ((20, 16), (250, 16), (200, 200), (400, 400)):
    ids = torch.randint(2, 60, (1, length))
    rows[length] = []
    for kind in ("dynamic", "static"):
        made = lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False,
                           pad_token_id=1, cache_implementation=kind, output_logits=True, return_dict_in_generate=True)
        with torch.no_grad():
            right = lm(made.sequences, use_cache=False).logits[:, length - 1 : -1]
        rows[length].append(float((torch.stack(made.logits, 1) - right).abs().max()))
    dynamic, static = rows[length]
    print(f"prompt {length:3}, {new:3} new tokens: dynamic {dynamic:.4f}, static {static:.4f}")
short, *long = rows.values()
right = max([*short, *(dynamic for dynamic, _ in long)]) < 1e-3
raise SystemExit(0 if right and min(static for _, static in long) > 0.01 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
