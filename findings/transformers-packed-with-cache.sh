#!/usr/bin/env bash
# transformers 5.24.0: texts that are packed into one row are kept apart without a cache alone, which is not the default; GPT-OSS never does.
#
# Documented: DataCollatorWithFlattening is the "Data collator used for padding free approach", whose position_ids "restart at
# `position_ids_start` for every flattened sequence", and the mask makes "sure each sequence is fully independent". Seen: position_ids
# are looked at where no cache is made, and a forward makes one unless told otherwise: each text then sees those before it, and the loss
# is another. Trainer switches the cache off; loops and evaluations of one's own, with the collator's batch as it is, do not. GPT-OSS hands its
# position_ids to no mask: its packed texts see one another in Trainer too. Nothing is said. For a user: perplexities
# and log-probabilities of packed texts are those of texts in a context of others. What helps: use_cache=False; for GPT-OSS padding.
# Output, 2026-11-30:
#     transformers 5.24.0: three texts in one row by DataCollatorWithFlattening and one by one, and the largest difference of logits
#     Llama, as called: loss 5.572 and 4.773, logits 7.527
#     Llama, use_cache=False: loss 4.773 and 4.773, logits 0.000
#     Qwen3-MoE, as called: loss 5.612 and 5.003, logits 7.262
#     Qwen3-MoE, use_cache=False: loss 5.003 and 5.003, logits 0.000
#     GPT-OSS, as called: loss 5.289 and 5.544, logits 8.115
#     GPT-OSS, use_cache=False: loss 5.289 and 5.544, logits 8.115
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
cd "$folder"
cat > tried.py <<'PYTHON'
import torch
import transformers
from transformers import AutoModelForCausalLM, DataCollatorWithFlattening, GptOssConfig, LlamaConfig, Qwen3MoeConfig

plain = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             initializer_range=0.3, bos_token_id=0, eos_token_id=1, pad_token_id=2)
experts = dict(num_local_experts=4, num_experts=4, num_experts_per_tok=2, head_dim=8)
kinds = {
    "Llama": LlamaConfig(**plain), "Qwen3-MoE": Qwen3MoeConfig(**plain, **experts, moe_intermediate_size=32),
    "GPT-OSS": GptOssConfig(**plain, **experts),
}
torch.manual_seed(0)
texts = [torch.randint(3, 60, (length,)).tolist() for length in (9, 7, 12)]
print(f"transformers {transformers.__version__}: three texts in one row by DataCollatorWithFlattening and one by one, and the largest "
      "difference of logits")
off = {}
for name, config in kinds.items():
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).float().train()
    batch = DataCollatorWithFlattening()([{"input_ids": text} for text in texts])
    with torch.no_grad():
        alone = [lm(torch.tensor([text]), use_cache=False).logits for text in texts]
        losses = [torch.nn.functional.cross_entropy(one[0, :-1], torch.tensor(text[1:]), reduction="sum")
                  for one, text in zip(alone, texts, strict=True)]
        due = float(sum(losses)) / sum(len(text) - 1 for text in texts)
        for how, more in (("as called", {}), ("use_cache=False", {"use_cache": False})):
            out = lm(**batch, **more)
            off[name, how] = float((out.logits - torch.cat(alone, 1)).abs().max())
            print(f"{name}, {how}: loss {float(out.loss):.3f} and {due:.3f}, logits {off[name, how]:.3f}")
right = max(off.pop((name, "use_cache=False")) for name in ("Llama", "Qwen3-MoE")) < 1e-3
raise SystemExit(0 if right and min(off.values()) > 0.1 else 1)  # 1: it has been mended
PYTHON
"$folder/venv/bin/python" tried.py 2> "$folder/said"
