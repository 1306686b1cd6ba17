#!/usr/bin/env bash
# bitsandbytes 0.50.2 (transformers 5.23.0): in 8 bits a token's log-probability hangs on later tokens of its text and on the other rows.
#
# Documented: llm_int8_threshold: "Any hidden states value that is above this threshold will be considered an outlier and the operation on
# those values will be done in fp16" (BitsAndBytesConfig; 6.0 by default). Seen: once one token of the batch is above it, that feature leaves
# the 8-bit product for *every* token, those before it and those of other rows too, whose rounding changes. A causal model is causal no more:
# what a text's tokens scored while it was sampled, one after the other, is not what one pass over it gives, and a padded batch scores otherwise
# than its rows alone. For a user: ratios of RL's new to old policy are off from 1 before any update, and likelihoods hang on the batch size.
# With llm_int8_threshold=0 both are gone.
# Output, 2026-11-30 (log-probabilities in nats, largest difference):
#     bitsandbytes 0.50.2, threshold 6: by later tokens 0.126, by other rows 0.178
#     bitsandbytes 0.50.2, threshold 0: by later tokens 0.000, by other rows 0.000
#     not quantised: by later tokens 0.000, by other rows 0.000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 accelerate==1.14.0 bitsandbytes==0.50.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON' 2> "$folder/log" || { tail -n 5 "$folder/log"; exit 1; }
import bitsandbytes, torch
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
plain = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.2)).eval()
with torch.no_grad():
    for layer in plain.model.layers:
        layer.input_layernorm.weight[5] = 4.0  # a feature that is large in some tokens, as all larger models have
plain.save_pretrained("model")
texts = torch.randint(0, 64, (8, 12))


@torch.no_grad()
def scores(model, ids):
    return model(ids).logits.float().log_softmax(-1)


def told(model):
    whole = scores(model, texts)
    begun = torch.cat([scores(model, texts[:, :n])[:, -1:] for n in range(1, 13)], dim=1)
    alone = torch.cat([scores(model, texts[i : i + 1]) for i in range(8)])
    return [(whole - other).abs().max().item() for other in (begun, alone)]


found = {}
for threshold in (6.0, 0.0):
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold)
    found[threshold] = told(LlamaForCausalLM.from_pretrained("model", quantization_config=config, device_map={"": "cpu"}).eval())
    later, rows = found[threshold]
    print(f"bitsandbytes {bitsandbytes.__version__}, threshold {threshold:g}: by later tokens {later:.3f}, by other rows {rows:.3f}")
later, rows = told(plain)
print(f"not quantised: by later tokens {later:.3f}, by other rows {rows:.3f}")
mixed, exact = min(found[6.0]) > 0.02, max(*found[0.0], later, rows) < 1e-3
raise SystemExit(0 if mixed and exact else 1)  # 1: it has been mended
PYTHON
