#!/usr/bin/env bash
# transformers 5.24.0: DeepSeek-V4 reads its padding: a prompt that is padded on the left, as generate asks for, is another prompt.
#
# Documented: attention_mask is the "Mask to avoid performing attention on padding token indices", and generate warns "For correct
# generation results, please set `padding_side='left'`". Seen: the compressed layers make one key of each four (or 128) tokens, counted
# from the first place of the row, padding among them, and nothing asks the mask: what padding says is in keys that every later token
# may look at, and where groups begin hangs on how much padding there is. On the right, and in Llama, padding changes nothing. Nothing
# is said. For a user: an answer hangs on how long the longest prompt of its batch is, in generate and in harnesses that batch with it.
# What helps: one prompt a batch, or prompts of one length.
# Output, 2026-11-30:
#     transformers 5.24.0: largest difference of the next token's logits to those without padding, in their standard
#     deviations; prompts of 64 with another next token
#     DeepSeek-V4, padding on the left, 1: 1.42, 4
#     DeepSeek-V4, padding on the left, 4: 1.00, 4
#     DeepSeek-V4, padding on the left, 8: 1.30, 5
#     DeepSeek-V4, on the right, 8: 0.00
#     Llama, padding on the left, 1: 0.00, 0
#     Llama, padding on the left, 4: 0.00, 0
#     Llama, padding on the left, 8: 0.00, 0
#     Llama, on the right, 8: 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, DeepseekV4Config, LlamaConfig

plain = dict(vocab_size=64, hidden_size=32, num_attention_heads=4, initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=2)
kinds = {
    "DeepSeek-V4": DeepseekV4Config(**plain, num_hidden_layers=8, head_dim=16, q_lora_rank=16, o_groups=2, o_lora_rank=16, hc_mult=2,
                                    moe_intermediate_size=32, n_routed_experts=4, num_experts_per_tok=2, index_n_heads=4, index_head_dim=16),
    "Llama": LlamaConfig(**plain, num_hidden_layers=4, intermediate_size=64, num_key_value_heads=2),
}
torch.manual_seed(0)
ids = torch.randint(3, 60, (64, 24))
print(f"transformers {transformers.__version__}: largest difference of the next token's logits to those without padding, in their "
      "standard deviations; prompts of 64 with another next token")
off = {}
for name, config in kinds.items():
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).float().eval()
    given = dict(max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
    alone = lm.generate(ids, attention_mask=torch.ones_like(ids), **given)
    right = alone.logits[0]
    for count in (1, 4, 8):
        pad = torch.full((64, count), 2)
        mask = torch.cat([torch.zeros_like(pad), torch.ones_like(ids)], 1)
        made = lm.generate(torch.cat([pad, ids], 1), attention_mask=mask, **given)
        other = int((made.sequences[:, -1] != alone.sequences[:, -1]).sum())
        off[name, count] = float((made.logits[0] - right).abs().max() / right.std()), other
        print(f"{name}, padding on the left, {count}: {off[name, count][0]:.2f}, {other}")
    with torch.no_grad():
        behind = lm(torch.cat([ids, torch.full((64, 8), 2)], 1), attention_mask=mask.flip(1), use_cache=False).logits[:, 23]
    off[name, -8] = float((behind - right).abs().max() / right.std()), 0
    print(f"{name}, on the right, 8: {off[name, -8][0]:.2f}")
wrong = [value for (name, count), (value, _) in off.items() if name == "DeepSeek-V4" and count > 0]
right = [value for (name, count), (value, _) in off.items() if name == "Llama" or count < 0]
raise SystemExit(0 if min(wrong) > 0.1 and max(right) < 1e-3 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
