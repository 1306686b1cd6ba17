#!/usr/bin/env bash
# transformers 5.24.0: Jamba and Zamba forget the state of their Mamba layers when more than one token goes onto a cache: a second turn,
# a prefix that is kept, or generate(prefill_chunk_size=…) is answered as if they had not read what was before.
#
# Documented, of the cache: "the user can optionally input only unprocessed `input_ids` (those that don't have their past key value
# states given to this model) of shape `(batch_size, unprocessed_length)` instead of all `input_ids`". Seen: one new token goes through
# the recurrent form, which reads the state that is kept; of two or more the scan begins from nothing, and what it ends with is put in
# its place. Attention layers see all. Nothing is said; GraniteMoeHybrid, of the same kind, and Llama are exact. For a user: chats that
# keep their cache, a prefix that many questions share, and long prompts in chunks get other answers than the whole text does. What
# helps: the whole text at once, or token by token.
# Output, 2026-11-30:
#     transformers 5.24.0, 40 tokens in pieces beside all at once: largest difference of logits, in their standard deviations
#     38 and 2: Jamba 1.20   Zamba 1.87   GraniteMoeHybrid 0.00   Llama 0.00
#     39 and 1: Jamba 0.00   Zamba 0.00   GraniteMoeHybrid 0.00   Llama 0.00
#     generate, prompt in chunks of 19: Jamba 1.42   Zamba 1.52   GraniteMoeHybrid 0.00   Llama 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, GraniteMoeHybridConfig, JambaConfig, LlamaConfig, ZambaConfig

plain = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
             bos_token_id=0, eos_token_id=1, pad_token_id=2)
hybrid = dict(layer_types=["mamba", "mamba", "attention", "mamba"], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8)
configs = {
    "Jamba": JambaConfig(**plain, num_hidden_layers=4, attn_layer_period=4, attn_layer_offset=2, mamba_d_state=8, mamba_dt_rank=4),
    "Zamba": ZambaConfig(**plain, num_hidden_layers=8, mamba_dt_rank=4),
    "GraniteMoeHybrid": GraniteMoeHybridConfig(**plain, **hybrid, num_hidden_layers=4, num_local_experts=0),
    "Llama": LlamaConfig(**plain, num_hidden_layers=2),
}
torch.manual_seed(0)
ids = torch.randint(3, 60, (1, 40))
off = {"38 and 2": {}, "39 and 1": {}, "generate, prompt in chunks of 19": {}}
for name, config in configs.items():
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        whole = lm(ids, use_cache=False).logits[:, -1]
        for (row, of), first in zip(list(off.items())[:2], (38, 39)):
            cache = lm(ids[:, :first], use_cache=True).cache
            of[name] = float((lm(ids[:, first:], cache=cache).logits[:, -1] - whole).abs().max() / whole.std())
    given = dict(attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False, output_logits=True)
    chunked = lm.generate(ids, **given, prefill_chunk_size=19, return_dict_in_generate=True).logits[0]
    off["generate, prompt in chunks of 19"][name] = float((chunked - whole).abs().max() / whole.std())
print(f"transformers {transformers.__version__}, 40 tokens in pieces beside all at once: largest difference of logits, "
      "in their standard deviations")
for row, of in off.items():
    print(f"{row}:", "   ".join(f"{name} {value:.2f}" for name, value in of.items()))
two, one, chunks = off.values()
wrong = min(of[name] for of in (two, chunks) for name in ("Jamba", "Zamba")) > 0.1
right = max([*one.values(), *(of[name] for of in (two, chunks) for name in ("GraniteMoeHybrid", "Llama"))]) < 0.01
raise SystemExit(0 if wrong and right else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
